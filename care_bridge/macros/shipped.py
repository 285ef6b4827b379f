"""Our macros and scripts: where they lie, what each is for, and how they get into a Fiji and out again."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from care_bridge import zips
from care_bridge.errors import InputError
from care_bridge.files import (
    atomic_file,
    clear_leftovers,
    scratch_folder,
    sha256,
    writable_folder,
    write_text,
)
from care_bridge.java import runtimes
from care_bridge.java.imagej import scripts_folder

MENU_FOLDER = Path("scripts", "Plugins", "CARE_bridge")
"""Where Fiji looks for scripts; what lies here is shown as Plugins > CARE bridge."""

MACRO_FOLDER = Path("macros", "CARE_bridge")
"""Where ImageJ looks for the macros that others run, by `runMacro("CARE_bridge/restore_folder.ijm", settings)`.

They are in no menu: a call from there cannot pass them a setting, and Restore Folder would stand beside restore folder.
"""

MODEL_FOLDER = Path("models", "CARE_bridge")
"""Where bundles go: the script Restore finds them there by name, and the dialogs' file chooser by hand."""

ONNX_FOLDER = Path("lib", "CARE_bridge")
"""Where ONNX Runtime lies: not in `jars` or `plugins`, where another version of it would be on the same class path."""

ONNX_LICENCE = """\
ONNX Runtime, MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
"""Its jar holds the notices of what it is built of, but not its own licence."""

PYTHON_FILE = "python.txt"
"""Beside the scripts: the Python that installed them, which Train, Evaluate and Check Model run."""

INSTALLED_LIST = ".care_bridge_installed.json"


@dataclass(frozen=True)
class Shipped:
    """A macro or script of ours.

    Attributes
    ----------
    name : str
        File name without ending.
    path : Path
    kind : str
        `macro` (.ijm) or `script` (.groovy).
    purpose : str
        First sentence of its comment.
    """

    name: str
    path: Path
    kind: str
    purpose: str


def macros_folder() -> Path:
    """Where our macros lie: beside the package, in a checkout as well as installed."""
    return scripts_folder()


def shipped() -> tuple[Shipped, ...]:
    """Our macros and scripts, scripts first.

    Returns
    -------
    tuple of Shipped
        Name, path, kind and purpose of each.
    """
    found = []
    for path in sorted(macros_folder().iterdir()):
        if path.suffix in (".ijm", ".groovy"):
            lines = [
                line.removeprefix("//").strip() for line in path.read_text(encoding="ascii").splitlines()
            ]
            start = 2 if lines[0].startswith("CARE bridge:") else 0
            end = next((n for n in range(start, len(lines)) if not lines[n]), len(lines))
            sentence = " ".join(lines[start:end]).split(". ")[0].rstrip(".") + "."
            kind = "macro" if path.suffix == ".ijm" else "script"
            found.append(Shipped(path.stem, path, kind, sentence))
    return tuple(sorted(found, key=lambda entry: (entry.kind == "macro", entry.name)))


def find_shipped(name: str) -> Shipped:
    """One of ours by name, in any case, with or without its ending; InputError with the nearest."""
    wanted = name.removesuffix(".ijm").removesuffix(".groovy")
    entries = shipped()
    exact = [entry for entry in entries if entry.name == wanted]
    loose = exact or [entry for entry in entries if entry.name.lower() == wanted.lower()]
    if name.endswith(".ijm") or name.endswith(".groovy"):
        loose = [entry for entry in loose if entry.path.suffix == Path(name).suffix] or loose
    if loose:
        return loose[0]
    near = difflib.get_close_matches(wanted, [entry.name for entry in entries], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(
        f"there is no macro {name!r}{hint}; there are {', '.join(entry.name for entry in entries)}"
    )


def install(fiji: str | os.PathLike[str], *, python: str | os.PathLike[str] | None = None) -> list[Path]:
    """Put our scripts into a Fiji, under Plugins > CARE bridge, and our macros beside it; an earlier version is replaced.

    Parameters
    ----------
    fiji : path
        The folder that holds `jars` and `plugins`, or one around it.
    python : path, optional
        The interpreter that the scripts Train, Evaluate and Check Model run; it must have this package. None: they say that
        none is known.

    Returns
    -------
    list of Path
        What lies there now.

    Raises
    ------
    InputError
        If this is no Fiji, it cannot be written to, or a file of the same name there is not ours (it is left).
    """
    root = fiji_root(fiji)
    texts = {
        root / _folder_of(entry) / entry.path.name: entry.path.read_text(encoding="ascii")
        for entry in shipped()
    }
    if python is not None:
        texts[root / MENU_FOLDER / PYTHON_FILE] = f"{os.fspath(python)}\n"
    new = {target: hashlib.sha256(text.encode()).hexdigest() for target, text in texts.items()}
    foreign = [
        str(target)
        for target, coming in new.items()
        if target.exists() and sha256(target) not in {*_installed(target.parent).get(target.name, ()), coming}
    ]
    if foreign:
        raise InputError(
            f"{', '.join(foreign)} changed by somebody; move it elsewhere or rename it, then run again"
        )
    for folder in _folders(root):
        # First, with what is there and what comes: wherever this ends, `uninstall` knows both.
        listed = {name: {*hashes} for name, hashes in _installed(folder).items()}
        for target, coming in new.items():
            if target.parent == folder:
                listed.setdefault(target.name, set()).add(coming)
        _write_list(folder, {name: sorted(hashes) for name, hashes in listed.items()})
    for folder in _folders(root):
        _remove_listed(folder, keep={target.name for target in new if target.parent == folder})
    for target, text in texts.items():
        write_text(target, text)
    for folder in _folders(root):
        _write_list(
            folder, {target.name: coming for target, coming in new.items() if target.parent == folder}
        )
    return list(new)


def install_models(fiji: str | os.PathLike[str], bundles: Collection[str | os.PathLike[str]]) -> list[Path]:
    """Put bundles into a Fiji's models/CARE_bridge; those of an earlier time are replaced, others' are not.

    Parameters
    ----------
    fiji : path
        As for `install`.
    bundles : collection of path
        Their file names stay.

    Returns
    -------
    list of Path
        What lies there now.

    Raises
    ------
    InputError
        If this is no Fiji, or a file of the same name there is not ours (it is left).
    """
    return _install_files(
        fiji_root(fiji) / MODEL_FOLDER, {Path(bundle).name: Path(bundle) for bundle in bundles}
    )


def install_onnx(fiji: str | os.PathLike[str]) -> list[Path]:
    """Put ONNX Runtime for Java into a Fiji, off its class path, with its licence and third-party notices.

    Parameters
    ----------
    fiji : path
        As for `install`.

    Returns
    -------
    list of Path
        What lies there now.

    Raises
    ------
    NotInstalledError
        If it is not fetched; the message holds the command.
    InputError
        If this is no Fiji, or a file of the same name there is not ours (it is left).
    """
    root, jar = fiji_root(fiji), runtimes.onnx_jar()
    with scratch_folder() as name:
        notices, licence = (Path(name, f"{jar.stem}-{what}.txt") for what in ("notices", "licence"))
        notices.write_bytes(zips.read(jar, "ThirdPartyNotices.txt") or b"")
        licence.write_text(ONNX_LICENCE, encoding="utf-8", newline="\n")
        return _install_files(root / ONNX_FOLDER, {file.name: file for file in (jar, notices, licence)})


def _install_files(folder: Path, new: Mapping[str, Path]) -> list[Path]:
    """Put files into a folder of a Fiji; ours of an earlier time are replaced, others' are not."""
    ours = _installed(folder)
    for name, file in new.items():
        there = folder / name
        if there.exists() and sha256(there) not in {*ours.get(name, ()), sha256(file)}:
            raise InputError(
                f"{there} is not ours, or was changed; move it elsewhere or rename it, then run again"
            )
    writable_folder(folder)
    # As `install`: listed first, so that an interrupted one can be taken out.
    listed = {name: {*hashes} for name, hashes in ours.items()}
    for name, file in new.items():
        listed.setdefault(name, set()).add(sha256(file))
    _write_list(folder, {name: sorted(hashes) for name, hashes in listed.items()})
    _remove_listed(folder, keep=new)
    for name, file in new.items():
        with atomic_file(folder / name) as part:
            shutil.copyfile(file, part)
    _write_list(folder, {name: sha256(file) for name, file in new.items()})
    return [folder / name for name in new]


def uninstall(fiji: str | os.PathLike[str]) -> list[Path]:
    """Take out of a Fiji what `install` put there and nobody changed since; what was removed."""
    root = fiji_root(fiji)
    removed = []
    for folder in (*_folders(root), root / MODEL_FOLDER, root / ONNX_FOLDER):
        removed += _remove_listed(folder)
        (folder / INSTALLED_LIST).unlink(missing_ok=True)
        clear_leftovers(folder)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            if folder == root / ONNX_FOLDER and not any(folder.parent.iterdir()):
                folder.parent.rmdir()  # no Fiji has it of its own
    return removed


def _folders(root: Path) -> tuple[Path, Path]:
    return root / MENU_FOLDER, root / MACRO_FOLDER


def _remove_listed(folder: Path, *, keep: Collection[str] = ()) -> list[Path]:
    """Take away what the list of a folder names and nobody changed since."""
    removed = []
    for name, hashes in _installed(folder).items():
        path = folder / name
        if name not in keep and path.is_file() and sha256(path) in hashes:
            path.unlink()
            removed.append(path)
    return removed


def _write_list(folder: Path, listed: Mapping[str, str | list[str]]) -> None:
    write_text(folder / INSTALLED_LIST, json.dumps(listed, indent=1) + "\n")


def _folder_of(entry: Shipped) -> Path:
    return MENU_FOLDER if entry.kind == "script" else MACRO_FOLDER


def fiji_root(path: str | os.PathLike[str]) -> Path:
    """The folder of a Fiji: itself, or a Fiji.app or Fiji in it."""
    given = Path(path).expanduser()
    for folder in (given, *(given / inside for inside in ("Fiji.app", "Fiji", "ImageJ.app"))):
        if (folder / "jars").is_dir() and (folder / "plugins").is_dir():
            return folder
    raise InputError(
        f"{str(path)!r} is no Fiji: it has no jars and plugins; give the folder that holds them (often Fiji.app)"
    )


def _installed(folder: Path) -> dict[str, list[str]]:
    """Names of what was installed, and which contents are ours: several while an installation is not finished."""
    try:
        entries = json.loads((folder / INSTALLED_LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(entries, dict):
        return {}
    # Names only: a list that was tampered with must not reach other folders.
    return {
        Path(name).name: [str(one) for one in known] if isinstance(known, list) else [str(known)]
        for name, known in entries.items()
    }
