"""The macros and scripts for Fiji: list them, check anybody's macro, put ours into a Fiji, write one for a model."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from care_bridge.errors import InputError
from care_bridge.files import sha256, write_text
from care_bridge.images import Image
from care_bridge.java.imagej import MacroResult, unpaired_brackets
from care_bridge.plugin.options import PluginOptions

PLUGIN, DEEPIMAGEJ = "Run your network", "DeepImageJ Run"
MENU_FOLDER = Path("scripts", "Plugins", "CARE_bridge")
"""Where Fiji looks for scripts; what lies here is shown as Plugins > CARE bridge."""

INSTALLED_LIST = ".care_bridge_installed.json"

Kind = Literal["text", "number", "boolean", "path"]


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


@dataclass(frozen=True)
class Finding:
    """Something in a macro that does not do what it seems to.

    Attributes
    ----------
    line : int
        From 1.
    rule : str
        Short name, e.g. `unknown-option`.
    message : str
        What really happens, and what to write instead.
    """

    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message} [{self.rule}]"


def _kind(name: str) -> Kind:
    if name == "modelFile":
        return "path"
    return "boolean" if isinstance(getattr(PluginOptions(), name), bool) else "number"


OPTIONS: Mapping[str, Mapping[str, Kind]] = {
    PLUGIN: {
        "input": "text",
        **{field.name.lower(): _kind(field.name) for field in dataclasses.fields(PluginOptions)},
        "modelurl": "text",
    },
    DEEPIMAGEJ: {
        "model_path": "path",
        "input_path": "path",
        "output_folder": "path",
        "display_output": "text",
    },
}
"""Option keys of the commands that compute, in the spelling that macros need."""

_IMAGEJ_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "Duplicate...": ("title", "duplicate", "range", "channels", "slices", "frames", "use", "ignore"),
    "Subtract...": ("value", "stack", "slice"),
    "Add...": ("value", "stack", "slice"),
    "Multiply...": ("value", "stack", "slice"),
    "Divide...": ("value", "stack", "slice"),
    "Min...": ("value", "stack", "slice"),
    "Max...": ("value", "stack", "slice"),
    "Gaussian Blur...": ("sigma", "scaled", "stack", "slice"),
    "Median...": ("radius", "stack", "slice"),
    "Enhance Contrast": ("saturated", "scaled"),
    "Enhance Contrast...": ("saturated", "normalize", "equalize", "process_all", "use"),
    "Z Project...": ("start", "stop", "projection", "all"),
    "Properties...": (
        "channels",
        "slices",
        "frames",
        "unit",
        "pixel_width",
        "pixel_height",
        "voxel_depth",
        "frame",
        "origin",
        "global",
    ),
}
_CHANGES_PIXELS_AFTER_USE = ("Crop", "Rotate 90 Degrees Right", "Rotate 90 Degrees Left", "8-bit", "Size...")
_WAITING = (
    "showMessage",
    "showMessageWithCancel",
    "waitForUser",
    "getNumber",
    "getString",
    "getBoolean",
    "Dialog.show",
    "Dialog.create",
    "getDirectory",
    "File.openDialog",
    "getDir",
)
_ASKING_CONDITION = re.compile(r"headless|interactive|asking|ask_user", re.IGNORECASE)


def macros_folder() -> Path:
    """Where our macros lie: beside the package, in a checkout as well as installed."""
    folder = Path(__file__).resolve().parents[1] / "fiji_macros"
    if not (folder / "restore_image.ijm").is_file():
        raise InputError(f"the macros are not at {folder}; install care-bridge again")
    return folder


def shipped() -> tuple[Shipped, ...]:
    """Our macros and scripts, scripts first."""
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


# --- installing


def install(fiji: str | os.PathLike[str]) -> list[Path]:
    """Put our macros and scripts into a Fiji, under Plugins > CARE bridge; an earlier version is replaced.

    Parameters
    ----------
    fiji : path
        The folder that holds `jars` and `plugins`, or one around it.

    Returns
    -------
    list of Path
        What lies there now.

    Raises
    ------
    InputError
        If this is no Fiji, it cannot be written to, or a file of the same name there is not ours (it is left).
    """
    folder = fiji_root(fiji) / MENU_FOLDER
    ours = _installed(folder)
    foreign = []
    for entry in shipped():
        target = folder / entry.path.name
        if target.exists() and sha256(target) not in (ours.get(target.name), sha256(entry.path)):
            foreign.append(target.name)
    if foreign:
        raise InputError(
            f"{folder} holds {', '.join(foreign)} changed by somebody; move it elsewhere or rename it, then run again"
        )
    uninstall(fiji)
    written = []
    for entry in shipped():
        target = folder / entry.path.name
        write_text(target, entry.path.read_text(encoding="ascii"))
        written.append(target)
    write_text(
        folder / INSTALLED_LIST, json.dumps({path.name: sha256(path) for path in written}, indent=1) + "\n"
    )
    return written


def uninstall(fiji: str | os.PathLike[str]) -> list[Path]:
    """Take out of a Fiji what `install` put there and nobody changed since; what was removed."""
    folder = fiji_root(fiji) / MENU_FOLDER
    removed = []
    for name, known_sha256 in _installed(folder).items():
        path = folder / name
        if path.is_file() and sha256(path) == known_sha256:
            path.unlink()
            removed.append(path)
    (folder / INSTALLED_LIST).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return removed


def fiji_root(path: str | os.PathLike[str]) -> Path:
    """The folder of a Fiji: itself, or a Fiji.app or Fiji in it."""
    given = Path(path).expanduser()
    for folder in (given, *(given / inside for inside in ("Fiji.app", "Fiji", "ImageJ.app"))):
        if (folder / "jars").is_dir() and (folder / "plugins").is_dir():
            return folder
    raise InputError(
        f"{str(path)!r} is no Fiji: it has no jars and plugins; give the folder that holds them (often Fiji.app)"
    )


def _installed(folder: Path) -> dict[str, str]:
    try:
        entries = json.loads((folder / INSTALLED_LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    # Names only: a list that was tampered with must not reach other folders.
    return (
        {Path(name).name: str(known) for name, known in entries.items()} if isinstance(entries, dict) else {}
    )


# --- checking


def lint(text: str) -> list[Finding]:
    """What in a macro would not do what it seems to; works on anybody's ImageJ macro.

    Parameters
    ----------
    text : str
        The macro's text.

    Returns
    -------
    list of Finding
        By line. Each says what really happens: the plugin and ImageJ ignore most mistakes in silence.
    """
    code = _without_comments(text)
    findings = [*_characters(text), *_paths(code), *_waiting_calls(code), *_calls(code)]
    findings += _around_the_plugin(code)
    return sorted(set(findings), key=lambda finding: (finding.line, finding.rule))


def _characters(text: str) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), 1):
        strange = sorted({letter for letter in line if ord(letter) > 126})
        if strange:
            yield Finding(
                number,
                "non-ascii",
                f"{' '.join(strange)} is not ASCII; ImageJ reads macro files as ISO-8859-1, so it becomes other "
                "characters; write um for micrometres",
            )


def _paths(code: str) -> Iterator[Finding]:
    places = [match.start() for match in re.finditer(r'"(?:[A-Za-z]:[\\/]|/)[^"\n]*[\\/][^"\n]*"', code)]
    for call in _runs(code):
        if any(value and re.match(r"[A-Za-z]:[\\/]|/", value) for _, value in call.pairs):
            places.append(call.start)
    for place in places:
        yield Finding(
            _line(code, place),
            "absolute-path",
            "an absolute path works on one computer only; take it from getArgument() or a setting at the top",
        )


def _waiting_calls(code: str) -> Iterator[Finding]:
    for name in _WAITING:
        for match in re.finditer(rf"(?<![\w.]){re.escape(name)}\s*\(([^)]*)", code):
            argument = match[1].strip().strip('"')
            if name in ("getDirectory", "getDir") and argument in _KNOWN_FOLDERS:
                continue
            if any(_ASKING_CONDITION.search(condition) for condition in _conditions(code, match.start())):
                continue
            yield Finding(
                _line(code, match.start()),
                "waits",
                f"{name} waits for a person: a batch stops here until morning, and without a window it fails; "
                'ask only where call("java.awt.GraphicsEnvironment.isHeadless") says there is one',
            )


_KNOWN_FOLDERS = (
    "imagej",
    "home",
    "temp",
    "plugins",
    "macros",
    "luts",
    "image",
    "startup",
    "current",
    "downloads",
)


def _calls(code: str) -> Iterator[Finding]:
    for call in _runs(code):
        if call.command in OPTIONS:
            yield from _plugin_options(call)
        elif call.command in _IMAGEJ_COMMANDS and call.options is not None:
            known = _IMAGEJ_COMMANDS[call.command]
            for key in call.keys:
                if key and not any(key == name or name.startswith(f"{key}_") for name in known):
                    near = difflib.get_close_matches(key, known, n=1)
                    yield Finding(
                        call.line,
                        "unknown-option",
                        f"{call.command!r} has no option {key!r}"
                        + (f" (did you mean {near[0]!r}?)" if near else "")
                        + "; ImageJ ignores it in silence and takes the default",
                    )
        elif call.command.lower() in (name.lower() for name in OPTIONS):
            right = next(name for name in OPTIONS if name.lower() == call.command.lower())
            yield Finding(call.line, "command", f"the command is {right!r}, with these capitals")


def _plugin_options(call: _Run) -> Iterator[Finding]:
    table = OPTIONS[call.command]
    if call.options is None:
        yield Finding(
            call.line,
            "missing-parameter",
            f"{call.command!r} without options opens its dialog, which blocks a macro; give every option",
        )
        return
    if not call.options and call.open_ended:
        return
    given = set()
    for key, value in call.pairs:
        lower = key.lower()
        given.add(lower)
        if lower not in table:
            near = difflib.get_close_matches(lower, table, n=1)
            yield Finding(
                call.line,
                "unknown-option",
                f"{call.command!r} has no option {key!r}"
                + (f" (did you mean {near[0]!r}?)" if near else "")
                + "; it is ignored in silence, and the value of the last run or the default is taken",
            )
        elif key != lower:
            yield Finding(
                call.line,
                "camel-case",
                f"write {lower} for {key}: options are found in lower case only, others are ignored in silence",
            )
        if value is None:
            if table.get(lower) == "boolean" or lower not in table:
                yield Finding(
                    call.line,
                    "bare-boolean",
                    f"{key} without a value is ignored in silence; write {lower}=true",
                )
        elif value != _UNKNOWN:
            yield from _value(call, lower, value, table.get(lower))
    lacking = [key for key in table if key not in given] if call.command == PLUGIN else []
    if call.command == DEEPIMAGEJ and "model_path" not in given:
        lacking = ["model_path"]
    lacking = [key for key in lacking if key != "modelurl"]
    if lacking and not call.open_ended:
        yield Finding(
            call.line,
            "missing-parameter",
            f"{', '.join(lacking)} not given: without a window the value of the last run is taken (or the default), "
            "with one a dialog opens and blocks the macro",
        )


def _value(call: _Run, key: str, value: str, kind: Kind | None) -> Iterator[Finding]:
    if kind == "boolean" and value not in ("true", "false"):
        yield Finding(call.line, "value", f"{key}={value} is neither true nor false, so it is not taken")
    if kind == "number" and not re.fullmatch(r"-?\d+(\.\d*)?", value):
        yield Finding(call.line, "value", f"{key}={value} is no number, so it is not taken")
    if kind == "path" and "\\" in value:
        yield Finding(call.line, "backslash", f"{key}: write / for \\ in paths, also on Windows")


def _around_the_plugin(code: str) -> Iterator[Finding]:
    calls = [call for call in _runs(code) if call.command == PLUGIN]
    if not calls:
        return
    everything = list(_runs(code))
    for number, call in enumerate(calls):
        before = code[calls[number - 1].end if number else 0 : call.start]
        after = code[call.end : calls[number + 1].start if number + 1 < len(calls) else len(code)]
        if '"Duplicate...' not in before and "Duplicate" not in before:
            yield Finding(
                call.line,
                "input-not-duplicated",
                "the plugin goes on with the old pixels of an image that was cropped, rotated or converted after it "
                'was used once; run("Duplicate...", "title=copy duplicate") first and give it that',
            )
        if not re.search(r'selectWindow\(\s*"result"', after):
            yield Finding(
                call.line,
                "result-not-selected",
                "the result is open but not current in batch mode, and after a failure the input is; "
                'selectWindow("result") and check isOpen("result") before',
            )
        elif not re.search(r"rename\(|close\(|title=", after):
            yield Finding(
                call.line,
                "result-not-renamed",
                'every result is called "result"; rename("...") it at once, or the next one cannot be told from it',
            )
        if "isOpen(" not in after and "nImages" not in after:
            yield Finding(
                call.line,
                "failure-not-noticed",
                "where the plugin fails it says nothing and the macro goes on with the input; "
                'if (!isOpen("result")) exit("...")',
            )
    if "GenericNetwork" not in code and any(len(_loops(code, call.start)) for call in calls) | (
        len(calls) > 1
    ):
        yield Finding(
            calls[-1].line,
            "remembered-model",
            "from the second run on the plugin takes the model that it remembers, whatever modelfile= says; clear the "
            "preference before each run (see fiji_macros/restore_image.ijm), or use the script Restore_Image",
        )
    if "setBatchMode" not in code:
        yield Finding(
            calls[0].line,
            "no-batch-mode",
            "without setBatchMode(true) every image opens a window, which is slow and lets a click in between break it",
        )
    if not re.search(r"VoxelSize|Properties\.\.\.|Stack\.setUnits|imageCalculator", code):
        yield Finding(
            calls[0].line,
            "calibration-lost",
            "the result has no pixel size, units or labels; copy them (getVoxelSize before, setVoxelSize after)",
        )
    for call in everything:
        if call.command in _CHANGES_PIXELS_AFTER_USE and any(one.start < call.start for one in calls):
            yield Finding(
                call.line,
                "stale-pixels",
                f"{call.command} after the plugin was used: a next run on the same image takes its old pixels; "
                "duplicate it first",
            )


_UNKNOWN = "\0"


@dataclass(frozen=True)
class _Run:
    """A `run("command", "options")` as far as its text can be read; joined variables are holes."""

    command: str
    options: str | None
    line: int
    start: int
    end: int
    open_ended: bool

    @property
    def pairs(self) -> list[tuple[str, str | None]]:
        found: list[tuple[str, str | None]] = []
        pattern = r"([A-Za-z_][\w]*)(?:=(\[[^\]]*\]|[^\s]*))?(?=\s|$)"
        for match in re.finditer(pattern, self.options or ""):
            value = match[2]
            if value is not None:
                value = value.strip("[]")
                value = _UNKNOWN if _UNKNOWN in value else value
            found.append((match[1], value))
        return found

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.pairs]


def _runs(code: str) -> Iterator[_Run]:
    for match in re.finditer(r'(?<![\w.])run\s*\(\s*"((?:[^"\\]|\\.)*)"\s*', code):
        end = _closing(code, match.start() + code[match.start() :].index("("))
        rest = code[match.end() : end].strip()
        options, open_ended = (None, False) if not rest.startswith(",") else _joined(rest[1:])
        yield _Run(match[1], options, _line(code, match.start()), match.start(), end, open_ended)


def _joined(expression: str) -> tuple[str, bool]:
    """Text of a string expression: literals joined, what is computed replaced by a hole; and if it starts or ends so."""
    text, rest = "", expression
    pieces = re.findall(r'"((?:[^"\\]|\\.)*)"|([^"+]+(?:\([^()]*\))?)', rest)
    open_ended = False
    for literal, computed in pieces:
        if computed.strip():
            text += _UNKNOWN
            # `options` alone, or joined where a key may come: nothing is known of what it holds.
            open_ended |= not re.search(r"=\[?[^\s\[\]]*$", text[:-1])
        else:
            text += literal
    return text.replace('\\"', '"'), open_ended


def _closing(code: str, opening: int) -> int:
    depth, position, inside = 0, opening, False
    while position < len(code):
        letter = code[position]
        if letter == "\\" and inside:
            position += 1
        elif letter == '"':
            inside = not inside
        elif not inside:
            depth += (letter == "(") - (letter == ")")
            if depth == 0:
                return position
        position += 1
    return len(code)


def _without_comments(text: str) -> str:
    """The text with comments blanked and lines kept."""

    def blank(match: re.Match[str]) -> str:
        return match[0] if match[0].startswith('"') else re.sub(r"[^\n]", " ", match[0])

    return re.sub(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|/\*.*?\*/', blank, text, flags=re.DOTALL)


def _line(code: str, position: int) -> int:
    return code.count("\n", 0, position) + 1


def _conditions(code: str, position: int) -> list[str]:
    """Conditions of the blocks and of the single statement around a place."""
    found = []
    statement = re.search(r"[;{}]?\s*(if\s*\((?:[^()]|\([^()]*\))*\))[^;{}]*$", code[:position])
    if statement:
        found.append(statement[1])
    depth = 0
    for index in range(position - 1, -1, -1):
        depth += (code[index] == "}") - (code[index] == "{")
        if depth < 0:
            depth = 0
            head = code[max(0, index - 200) : index]
            condition = re.search(r"if\s*\((?:[^()]|\([^()]*\))*\)\s*$", head)
            found.append(condition[0] if condition else "")
    return found


def _loops(code: str, position: int) -> list[str]:
    depth, found = 0, []
    for index in range(position - 1, -1, -1):
        depth += (code[index] == "}") - (code[index] == "{")
        if depth < 0:
            depth = 0
            head = code[max(0, index - 200) : index]
            loop = re.search(r"(for|while)\s*\((?:[^()]|\([^()]*\))*\)\s*$", head)
            if loop:
                found.append(loop[1])
    return found


# --- writing


@dataclass(frozen=True)
class Generated:
    """Lines for one model, ready to paste.

    Attributes
    ----------
    macro : str
        For the macro window: our restore_image with this model's values at the top.
    line : str
        The bare plugin call, every option given.
    script : str
        The call of the installed script Restore_Image, safer without a window.
    deepimagej : str
        The deepImageJ equivalent, for the model's BioImage.IO package.
    options : PluginOptions
    notes : tuple of str
        What a person should know of these values.
    """

    macro: str
    line: str
    script: str
    deepimagej: str
    options: PluginOptions
    notes: tuple[str, ...]


def for_model(model: str | os.PathLike[str], image: Image | None = None) -> Generated:
    """Write what a person pastes into Fiji for a model, and for an image's size where one is given.

    Parameters
    ----------
    model : path
        The bundle, or the model folder that holds it.
    image : Image, optional
        Decides the number of tiles; None takes one tile.

    Raises
    ------
    InputError
        If there is no bundle, or its path cannot be written into a macro.
    """
    from care_bridge.bundle import find_bundle

    bundle = Path(find_bundle(model)).absolute()
    path = bundle.as_posix()
    if unpaired_brackets(path):
        raise InputError(f"the plugin cannot take the single bracket in {path!r}; rename the folder or file")
    options, notes = _values(bundle, image)
    plain = {key: _written(value) for key, value in vars(options).items() if key != "modelFile"}
    plain["showProgressDialog"] = "false"
    listed = " ".join(f"{key.lower()}={value}" for key, value in plain.items())
    line = f'run("{PLUGIN}", "input=[" + getTitle() + "] {listed} modelfile=[{path}] modelurl=[]");'
    ours = " ".join(f"{key.lower()}={value}" for key, value in plain.items() if key != "showProgressDialog")
    script = f'run("Restore Image", "imp=[" + getTitle() + "] model=[{path}] {ours} bits=32 output=[] sentinel=[]");'
    package = bundle.with_suffix("")
    deepimagej = f'run("{DEEPIMAGEJ}", "model_path=[{package.as_posix()}] display_output=[all]");'
    return Generated(_macro(path, options), line, script, deepimagej, options, tuple(notes))


def _values(bundle: Path, image: Image | None) -> tuple[PluginOptions, list[str]]:
    options, notes = PluginOptions(), []
    written = _meta(bundle).get("care_bridge", {}).get("fiji", {})
    known = {key: value for key, value in written.items() if key in vars(options)}
    if known:
        options = PluginOptions.from_mapping(known)
    if image is None:
        if not known:
            notes.append(
                "the bundle does not say its values; these are the plugin's defaults, so look for seams"
            )
        return options, notes
    if not known:
        notes.append(
            "the bundle does not say its values; these are for csbdeep's usual network (depth 2, kernel 5)"
        )
    from care_bridge.plugin.advice import advise

    meta = _meta(bundle)
    axes = str(meta.get("axes", "YXC")).replace("C", "")
    needs: dict[str, Any] = {}
    if known and {"axes_div_by", "tile_overlap"} <= meta.keys():
        needs = {
            "size_multiple": dict(zip(axes, meta["axes_div_by"], strict=False)),
            "halo": dict(zip(axes, meta["tile_overlap"], strict=False)),
        }
    advice = advise(image.shape, image.axes, space=axes, options=options, **needs)
    return advice.options, [*notes, *advice.notes]


def _meta(bundle: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(bundle) as opened:
            meta = json.loads(opened.read("meta.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return {}
    return meta if isinstance(meta, dict) else {}


def _macro(path: str, options: PluginOptions) -> str:
    text = (macros_folder() / "restore_image.ijm").read_text(encoding="ascii")
    values = {
        "model": f'"{path}"',
        "normalize": f'"{_written(options.normalizeInput)}"',
        "bottom": _written(options.percentileBottom),
        "top": _written(options.percentileTop),
        "clip": f'"{_written(options.clip)}"',
        "nTiles": _written(options.nTiles),
        "blockMultiple": _written(options.blockMultiple),
        "overlap": _written(options.overlap),
        "batchSize": _written(options.batchSize),
    }
    for name, value in values.items():
        setting = re.compile(rf"(?m)^var {name} = [^;]*;")
        changed = len(setting.findall(text))
        text = setting.sub(f"var {name} = {value};".replace("\\", r"\\"), text)
        if changed != 1:
            raise RuntimeError(f"restore_image.ijm has {changed} settings {name!r}")
    return text


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


# --- running


@dataclass(frozen=True)
class Ending:
    """What a macro or script of ours says of itself at its end, in its sentinel file.

    Attributes
    ----------
    status : str
        `done`, `done with failures`, `different` (of Compare_With_Python), `failed`; `stopped` where it did not
        come to its end.
    done, skipped, failed : int
    message : str
    """

    status: str
    done: int
    skipped: int
    failed: int
    message: str


def run(
    name: str,
    settings: Mapping[str, str],
    *,
    image: Path | None = None,
    timeout_s: float | None = None,
) -> tuple[MacroResult, Ending]:
    """Run one of our macros or scripts, unchanged, in headless ImageJ with TensorFlow 1.x behind the plugin's command.

    Parameters
    ----------
    name : str
    settings : mapping of str to str
        Of a macro its argument, of a script its parameters.
    image : Path, optional
        Image that is in front when a script starts.
    timeout_s : float, optional
        Seconds without a sign of life.

    Raises
    ------
    InputError, NotInstalledError, WorkerError
    """
    from care_bridge.java import runtimes
    from care_bridge.java.imagej import ImageJ

    entry = find_shipped(name)
    script = entry.kind == "script"
    with tempfile.TemporaryDirectory(prefix="care-bridge-") as folder:
        sentinel = Path(settings.get("sentinel") or Path(folder, "sentinel.json"))
        given = {**settings, "sentinel": sentinel.as_posix()}
        sentinel.unlink(missing_ok=True)
        with ImageJ(groovy=script or not runtimes.missing("groovy"), timeout_s=timeout_s) as imagej:
            if script:
                result = imagej.run_script(entry.path, given, image=image)
            else:
                argument = " ".join(f"{key}=[{value}]" for key, value in given.items())
                result = imagej.run_macro(entry.path, argument)
        return result, _ending(sentinel, result)


def _ending(sentinel: Path, result: MacroResult) -> Ending:
    if sentinel.is_file():
        said = json.loads(sentinel.read_text(encoding="utf-8"))
        return Ending(said["status"], said["done"], said["skipped"], said["failed"], said["message"])
    own = [line for line in result.log.splitlines() if line.startswith("CARE bridge: ")]
    if own:
        return Ending("failed", 0, 0, 1, own[-1].removeprefix("CARE bridge: "))
    return Ending("stopped", 0, 0, 0, result.error or "it did not come to its end")
