"""Builds the macros and scripts of fiji_macros from its folder source: `python -m care_bridge.macros.generate`.

Each file in source that no other includes becomes one file; a line `// include: NAME` in it stands for
the content of source/NAME. What is written is whole, so that a person can paste it into Fiji.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from care_bridge.errors import InputError
from care_bridge.files import write_text
from care_bridge.macros.shipped import macros_folder

_INCLUDE = re.compile(r"^// include: (\S+)$")


def generated() -> dict[str, str]:
    """Text of every macro and script by its file name, as its source says.

    Raises
    ------
    InputError
        If there is no source (an installed package has none), or a file that is included is not there.
    """
    source = macros_folder() / "source"
    if not source.is_dir():
        raise InputError(f"there is no {source}; the macros are made in a checkout of care_bridge only")
    texts = {path.name: path.read_text(encoding="ascii") for path in sorted(source.iterdir())}
    included = {name for text in texts.values() for name in _included(text)}
    return {name: _whole(name, texts) for name in texts if name not in included}


def write(folder: Path | None = None) -> list[Path]:
    """Write every macro and script into a folder, ours where none is given; the files that changed."""
    folder = folder or macros_folder()
    changed = []
    for name, text in generated().items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="ascii") != text:
            write_text(path, text)
            changed.append(path)
    return changed


def _included(text: str) -> list[str]:
    return [match[1] for line in text.splitlines() if (match := _INCLUDE.match(line))]


def _whole(name: str, texts: dict[str, str]) -> str:
    lines = []
    for line in texts[name].splitlines():
        match = _INCLUDE.match(line)
        if match is None:
            lines.append(line)
        elif match[1] not in texts:
            raise InputError(f"source/{name} includes {match[1]!r}, which is not there")
        else:
            lines += _marked(match[1], texts[match[1]])
    return "\n".join(lines) + "\n"


def _marked(name: str, text: str) -> list[str]:
    """The lines of an included file; what is shared at the end stands between two lines that say so."""
    lines = text.splitlines()
    if not name.startswith("shared."):
        return lines
    kind = "macro" if name.endswith(".ijm") else "script"
    begin = f"// ---- The same in every {kind} of this folder: begin (how it is done; from source/{name}, by make macros) "
    end = f"// ---- The same in every {kind} of this folder: end "
    return [begin.ljust(110, "-"), "", *lines, "", end.ljust(110, "-")]


if __name__ == "__main__":
    sys.stdout.writelines(f"written: {path}\n" for path in write())
