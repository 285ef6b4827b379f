"""What in a macro would not do what it seems to, said before it runs."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from care_bridge.plugin.options import COMMAND, PluginOptions

PLUGIN, DEEPIMAGEJ = COMMAND, "DeepImageJ Run"

Kind = Literal["text", "number", "boolean", "path"]


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
