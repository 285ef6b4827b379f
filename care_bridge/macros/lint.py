"""What in a macro would not do what it seems to, said before it runs."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from care_bridge.macros.reading import HOLE, Call, Happening, Macro, Token, pieces_of, unquoted
from care_bridge.plugin.options import COMMAND as PLUGIN
from care_bridge.plugin.options import PluginOptions

DEEPIMAGEJ = "DeepImageJ Run"

Kind = Literal["text", "number", "boolean", "path"]

LANGUAGES: Mapping[str, str] = {
    ".groovy": "Groovy",
    ".gvy": "Groovy",
    ".py": "Jython",
    ".js": "JavaScript",
    ".bsh": "BeanShell",
    ".java": "Java",
    ".clj": "Clojure",
    ".rb": "JRuby",
    ".scala": "Scala",
    ".kts": "Kotlin",
    ".r": "R",
    ".m": "MATLAB",
}
"""Languages of Fiji's scripts by the endings of their files; of these only calls of IJ.run are read."""


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
    fault : bool
        Whether something is wrong; False where this only says what was not looked at.
    """

    line: int
    rule: str
    message: str
    fault: bool = True

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

_SCIJAVA = re.compile(
    r"(N2V|DenoiSeg|StarDist|Run your IsoNet|(2D|3D) Denoising|Isotropic Reconstruction|Deconvolution -)"
)
"""Other commands of the CSBDeep update site, StarDist's and N2V's; their options are found in lower case only too."""

_IMAGEJ_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "Duplicate...": ("title", "duplicate", "range", "channels", "slices", "frames", "use", "ignore"),
    **dict.fromkeys(
        ("Subtract...", "Add...", "Multiply...", "Divide...", "Min...", "Max..."),
        ("value", "stack", "slice"),
    ),
    "Gaussian Blur...": ("sigma", "scaled", "stack", "slice"),
    "Median...": ("radius", "stack", "slice"),
    "Enhance Contrast": ("saturated", "scaled"),
    "Enhance Contrast...": ("saturated", "normalize", "equalize", "process_all", "use"),
    "Z Project...": ("start", "stop", "projection", "all"),
    "Properties...": (
        *("channels", "slices", "frames", "unit", "pixel_width", "pixel_height"),
        *("voxel_depth", "frame", "origin", "global"),
    ),
}
_CHANGES_PIXELS_AFTER_USE = ("Crop", "Rotate 90 Degrees Right", "Rotate 90 Degrees Left", "8-bit", "Size...")
_WAITING = (
    *("showMessage", "showMessageWithCancel", "waitForUser", "getNumber", "getString", "getBoolean"),
    *("Dialog.show", "Dialog.create", "getDirectory", "File.openDialog", "getDir"),
)
_ASKING_CONDITION = re.compile(r"headless|interactive|asking|ask_user", re.IGNORECASE)
_KNOWN_FOLDERS = (
    *("imagej", "home", "temp", "plugins", "macros", "luts", "image", "startup", "current", "downloads"),
)
_ABSOLUTE = re.compile(r"[A-Za-z]:[\\/]|/[^/\s*][^\n]*[\\/]|\\\\\w")
_ABSOLUTE_VALUE = re.compile(r"(?:^|\s)\w+=\[?(?:[A-Za-z]:[\\/]|/[^/\s*][^\n]*[\\/])")
# What is compared with or replaced in a path is no path.
_ON_TEXTS = re.compile(r"replace|indexOf|lastIndexOf|matches|startsWith|endsWith|split|contains|print|exit")
_PATH_KEYS = (
    "open",
    "save",
    "path",
    "file",
    "folder",
    "dir",
    "directory",
    "input_path",
    "output",
    "modelfile",
)
_TAKES_PATHS = re.compile(r"open|saveAs|save|File\.\w+|runMacro|getFileList|openVirtual")


def lint(text: str, suffix: str = ".ijm") -> list[Finding]:
    """What in a macro would not do what it seems to; works on anybody's ImageJ macro.

    Parameters
    ----------
    text : str
        The macro's text.
    suffix : str
        Ending of its file. Of scripts in other languages only calls of ``IJ.run`` are read, which is said.

    Returns
    -------
    list of Finding
        By line. Each says what really happens: the plugin and ImageJ ignore most mistakes in silence.
    """
    language = LANGUAGES.get(suffix.lower(), "")
    macro = Macro(text, hash_comments=language in ("Jython", "JRuby", "R"))
    findings = [*_calls(macro)]
    if language:
        findings.append(
            Finding(
                1,
                "not-read",
                f"this is a {language} script, and lint reads ImageJ macros; of scripts only the calls of IJ.run are "
                "looked at, so nothing is said of the rest",
            )
        )
    else:
        findings += [*_characters(macro), *_paths(macro), *_waiting_calls(macro), *_quoted_variables(macro)]
        findings += _around_the_plugin(macro)
    return sorted(set(findings), key=lambda finding: (finding.line, finding.rule))


# --- the whole text


def _characters(macro: Macro) -> Iterator[Finding]:
    for number, line in enumerate(macro.code.split("\n"), 1):
        strange = sorted({letter for letter in line if ord(letter) > 126})
        if strange:
            yield Finding(
                number,
                "non-ascii",
                f"{' '.join(strange)} is not ASCII; ImageJ reads macro files as ISO-8859-1, so it becomes other "
                "characters; write um for micrometres",
            )


def _paths(macro: Macro) -> Iterator[Finding]:
    for number, token in enumerate(macro.tokens):
        if token.kind != "text":
            continue
        text = unquoted(token.word)
        # As a value among options, or as a path of its own.
        value = _ABSOLUTE_VALUE.search(text) and _is_option(macro, number)
        if value or (_ABSOLUTE.match(text) and _begins_a_path(macro, number)):
            yield Finding(
                macro.line(token.start),
                "absolute-path",
                "an absolute path works on one computer only; take it from getArgument() or a setting at the top",
            )


def _is_option(macro: Macro, number: int) -> bool:
    """Whether a text is given to a command, or kept for one, and not said to a person."""
    around = [call for call in macro.calls if call.first < number < call.last]
    return (
        around[-1].name in ("run", "IJ.run", "runMacro") if around else macro.tokens[number - 1].word == "="
    )


def _begins_a_path(macro: Macro, number: int) -> bool:
    """Whether a text is the beginning of a path: not joined to a path before it, not compared, no setting."""
    words = [token.word for token in macro.tokens[max(0, number - 3) : number]]
    before = words[-1] if words else ""
    if _is_joined(macro, number):
        return False
    if before in ("==", "!="):
        return False
    if before == "=" and len(words) == 3:
        # `var model = "/m/a.zip";` at the top is the setting that the message asks for.
        if words[0] == "var":
            return False
        return not _only_joined(macro, words[1])
    around = [call for call in macro.calls if call.first < number < call.last]
    return not (around and _ON_TEXTS.fullmatch(around[-1].name.rpartition(".")[2]))


def _is_joined(macro: Macro, number: int) -> bool:
    """Whether a token stands behind a + and what is before that is the beginning of a path."""
    if number < 2 or macro.tokens[number - 1].word != "+":
        return False
    before = macro.tokens[number - 2]
    return before.kind != "text" or not (
        unquoted(before.word) == "" or unquoted(before.word).endswith(("=", "[", " "))
    )


def _only_joined(macro: Macro, name: str) -> bool:
    """Whether a variable is used, and only behind the beginning of a path."""
    uses = [
        number
        for number, token in enumerate(macro.tokens)
        if token.word == name and (number + 1 >= len(macro.tokens) or macro.tokens[number + 1].word != "=")
    ]
    return bool(uses) and all(_is_joined(macro, number) for number in uses)


def _waiting_calls(macro: Macro) -> Iterator[Finding]:
    # Without batch mode somebody sits there.
    if not any(call.name == "setBatchMode" for call in macro.calls):
        return
    for call in macro.calls:
        if call.name not in _WAITING:
            continue
        argument = macro.value(call.arguments[0]) if call.arguments else ""
        if call.name in ("getDirectory", "getDir") and argument in _KNOWN_FOLDERS:
            continue
        if any(_ASKING_CONDITION.search(condition) for condition in macro.conditions(call.first)):
            continue
        yield Finding(
            call.line,
            "waits",
            f"{call.name} waits for a person: a batch stops here until morning, and without a window it fails; "
            'ask only where call("java.awt.GraphicsEnvironment.isHeadless") says there is one',
        )


def _quoted_variables(macro: Macro) -> Iterator[Finding]:
    """Names of variables between quotes, where their values are meant."""
    variables = set(macro.assigned)
    titles = {value for run in _runs(macro) for key, value, _ in run.pairs if key == "title"}
    titles |= {
        macro.value(call.arguments[0]) for call in macro.calls if call.name == "rename" and call.arguments
    }
    for run in _runs(macro):
        for key, value, _ in run.pairs:
            if key == "title" or value is None:
                continue
            inner = re.fullmatch(r"[\s\"'+]*([A-Za-z_]\w*)[\s\"'+]*", value)
            if inner and inner[1] in variables - titles:
                yield _quoted(macro.line(run.start), inner[1], f'{key}=[" + {inner[1]} + "]')
    for call in macro.calls:
        named = call.name in ("selectWindow", "isOpen")
        if named or _TAKES_PATHS.fullmatch(call.name):
            for argument in call.arguments[-1:]:
                literal = len(argument) == 1 and argument[0].kind == "text"
                name = unquoted(argument[0].word) if literal else ""
                if name in variables - (titles if named else set()):
                    yield _quoted(
                        call.line, name, f"{call.name}({'..., ' * (len(call.arguments) > 1)}{name})"
                    )


def _quoted(line: int, name: str, better: str) -> Finding:
    return Finding(
        line,
        "quoted-variable",
        f"{name} between quotes is the word itself and not the variable's value; write {better}",
    )


# --- single calls


@dataclass(frozen=True)
class _Run:
    """A `run("command", "options")` as far as its text can be read; what is computed is a hole."""

    command: str
    options: str | None
    line: int
    start: int
    open_ended: bool
    holes: tuple[tuple[Token, ...], ...] = ()

    @property
    def pairs(self) -> list[tuple[str, str | None, bool]]:
        """Keys, their values (None for a bare key), and whether the value stands in brackets."""
        found: list[tuple[str, str | None, bool]] = []
        pattern = r"([A-Za-z_]\w*)(?:=(\[[^\]]*\]?|[^\s]*))?(?=\s|$)"
        for match in re.finditer(rf"(?<![^\s]){pattern}", self.options or ""):
            value = match[2]
            bracketed = value is not None and value.startswith("[")
            found.append((match[1], value.strip("[]") if value is not None else None, bracketed))
        return found


def _runs(macro: Macro) -> list[_Run]:
    found = []
    for call in macro.calls:
        if run := _as_run(macro, call):
            found.append(run)
    return found


def _as_run(macro: Macro, call: Call) -> _Run | None:
    if call.name not in ("run", "IJ.run", "ij.IJ.run", "IJ.runPlugIn"):
        return None
    arguments = list(call.arguments)
    # IJ.run(imp, "command", "options") of a script.
    if len(arguments) > 1 and macro.value(arguments[0]) == HOLE and call.name != "run":
        del arguments[0]
    command = macro.value(arguments[0]) if arguments else ""
    if len(arguments) < 2:
        return _Run(command, None, call.line, call.start, False)
    options = macro.value(arguments[1])
    # A hole where a key may stand: nothing is known of what it holds.
    holes = (match.start() for match in re.finditer(HOLE, options))
    inside = r"(=|=\[[^\]]*|=[^\s\[\]]+)$"
    open_ended = any(not re.search(inside, options[:place].replace(HOLE, "x")) for place in holes)
    holders = tuple(piece for piece in _flat(macro, arguments[1]) if macro.piece(piece) == HOLE)
    return _Run(command, options, call.line, call.start, open_ended, holders)


def _flat(macro: Macro, expression: tuple[Token, ...], depth: int = 5) -> list[tuple[Token, ...]]:
    """The parts that an expression joins, those of variables that are set once among them."""
    found = []
    for piece in pieces_of(expression):
        inner = macro.once(piece[0].word) if depth and len(piece) == 1 and piece[0].kind == "name" else ()
        found += _flat(macro, inner, depth - 1) if len(pieces_of(inner)) > 1 else [piece]
    return found


def _calls(macro: Macro) -> Iterator[Finding]:
    for run in _runs(macro):
        if run.command in OPTIONS:
            yield from _plugin_options(run)
        elif _SCIJAVA.match(run.command):
            yield from _scijava_options(run)
        elif run.command in _IMAGEJ_COMMANDS and run.options is not None:
            yield from _imagej_options(run)
        elif run.command.lower() in (name.lower() for name in OPTIONS):
            right = next(name for name in OPTIONS if name.lower() == run.command.lower())
            yield Finding(run.line, "command", f"the command is {right!r}, with these capitals")
        elif run.command == "Command From Macro":
            yield Finding(
                run.line,
                "not-checked",
                "what args=[...] gives to the command is not checked here",
                fault=False,
            )
        yield from _blanks(macro, run)


def _blanks(macro: Macro, run: _Run) -> Iterator[Finding]:
    """Values that end at their first blank, because no brackets stand around them."""
    holes = list(run.holes)
    for key, value, bracketed in run.pairs:
        own = [holes.pop(0) for _ in range(min((value or "").count(HOLE), len(holes)))]
        if value is None or bracketed or not value:
            continue
        kind = OPTIONS.get(run.command, {}).get(key.lower())
        is_path = (
            kind == "path" or key.lower() in _PATH_KEYS or key.lower().endswith(("file", "path", "folder"))
        )
        title = any(
            macro.leads_to(hole, name)
            for hole in own
            for name in ("getTitle", "getInfo", "File.getName", "File.name")
        )
        cut_off = re.search(rf"(?<!\S){key}=[^\s\[]+((?: [^\s=\[\]]+)+)\.\w+(?=\s|$)", run.options or "")
        if title or (is_path and (HOLE in value or cut_off)):
            yield Finding(
                run.line,
                "blank-in-value",
                f"{key}= ends at the first blank of its value, and the rest is taken for other options; put brackets "
                f"around it: {key}=[...]",
            )


def _imagej_options(run: _Run) -> Iterator[Finding]:
    known = _IMAGEJ_COMMANDS[run.command]
    for key, _, _ in run.pairs:
        if not any(key == name or name.startswith(f"{key}_") for name in known):
            near = difflib.get_close_matches(key, known, n=1)
            yield Finding(
                run.line,
                "unknown-option",
                f"{run.command!r} has no option {key!r}"
                + (f" (did you mean {near[0]!r}?)" if near else "")
                + "; ImageJ ignores it in silence and takes the default",
            )


def _scijava_options(run: _Run) -> Iterator[Finding]:
    """What holds for every command of this kind; which options it has is not known here."""
    if run.options is None:
        yield _no_options(run)
        return
    for key, value, _ in run.pairs:
        if key != key.lower():
            yield _camel_case(run, key)
        if value is None:
            yield _bare(run, key)
    yield Finding(
        run.line,
        "not-checked",
        f"the options of {run.command!r} are looked at for capitals and bare words only",
        fault=False,
    )


def _no_options(run: _Run) -> Finding:
    return Finding(
        run.line,
        "missing-parameter",
        f"{run.command!r} without options opens its dialog, which blocks a macro; give every option",
    )


def _camel_case(run: _Run, key: str) -> Finding:
    return Finding(
        run.line,
        "camel-case",
        f"write {key.lower()} for {key}: options are found in lower case only, others are ignored in silence",
    )


def _bare(run: _Run, key: str) -> Finding:
    return Finding(
        run.line, "bare-boolean", f"{key} without a value is ignored in silence; write {key.lower()}=true"
    )


def _plugin_options(run: _Run) -> Iterator[Finding]:
    table = OPTIONS[run.command]
    if run.options is None:
        yield _without_a_model(run) if run.command == DEEPIMAGEJ else _no_options(run)
        return
    if not run.options.replace(HOLE, "") and run.open_ended:
        return
    given = set()
    for key, value, _ in run.pairs:
        lower = key.lower()
        given.add(lower)
        if lower not in table:
            yield _unknown(run, key, table)
        elif key != lower:
            yield _camel_case(run, key)
        if value is None:
            if table.get(lower) == "boolean" or lower not in table:
                yield _bare(run, key)
        elif HOLE not in value:
            yield from _value(run, lower, value, table.get(lower))
    if run.open_ended:
        return
    lacking = [key for key in table if key not in given and key != "modelurl"]
    if run.command == DEEPIMAGEJ:
        if "model_path" in lacking:
            yield _without_a_model(run)
    elif lacking:
        yield Finding(
            run.line,
            "missing-parameter",
            f"{', '.join(lacking)} not given: without a window the value of the last run is taken (or the default), "
            "with one a dialog opens and blocks the macro",
        )


def _without_a_model(run: _Run) -> Finding:
    return Finding(
        run.line,
        "missing-parameter",
        f"{run.command!r} without model_path= ends the macro with an exception; give the folder of the model",
    )


def _unknown(run: _Run, key: str, table: Mapping[str, Kind]) -> Finding:
    near = difflib.get_close_matches(key.lower(), table, n=1)
    if not near:
        # deepImageJ 3.0 wrote its keys in one word.
        near = [name for name in table if name.replace("_", "") == key.lower()]
    happens = "it is ignored in silence"
    if run.command == PLUGIN:
        happens += ", and the value of the last run or the default is taken"
    return Finding(
        run.line,
        "unknown-option",
        f"{run.command!r} has no option {key!r}"
        + (f" (did you mean {near[0]!r}?)" if near else "")
        + f"; {happens}",
    )


def _value(run: _Run, key: str, value: str, kind: Kind | None) -> Iterator[Finding]:
    if kind == "boolean" and value not in ("true", "false"):
        yield Finding(run.line, "value", f"{key}={value} is neither true nor false, so it is not taken")
    if kind == "number" and not re.fullmatch(r"-?\d+(\.\d*)?", value):
        yield Finding(run.line, "value", f"{key}={value} is no number, so it is not taken")
    if kind == "path" and "\\" in value:
        yield Finding(run.line, "backslash", f"{key}: write / for \\ in paths, also on Windows")


# --- what stands around the plugin's call


@dataclass(frozen=True)
class _Use:
    """A run of the plugin, and what happens between the one before and it, and between it and the next."""

    run: _Run
    repeated: bool
    before: tuple[Happening, ...]
    after: tuple[Happening, ...]


def _uses(macro: Macro) -> list[_Use]:
    happenings = macro.happenings
    places = []
    for number, happening in enumerate(happenings):
        run = _as_run(macro, happening.call)
        if run is not None and run.command == PLUGIN:
            places.append((number, run))
    uses = []
    for index, (number, run) in enumerate(places):
        start = places[index - 1][0] + 1 if index else 0
        end = places[index + 1][0] if index + 1 < len(places) else len(happenings)
        repeated = happenings[number].repeated
        uses.append(_Use(run, repeated, tuple(happenings[start:number]), tuple(happenings[number + 1 : end])))
    return uses


def _around_the_plugin(macro: Macro) -> Iterator[Finding]:
    uses = _uses(macro)
    if not uses:
        return
    for use in uses:
        yield from _input_of(macro, use)
        yield from _result_of(macro, use)
    yield from _remembered(macro, uses)
    yield from _batch(macro, uses)
    yield from _stale(macro, uses)


def _input_of(macro: Macro, use: _Use) -> Iterator[Finding]:
    if not any(_is_run(macro, one, "Duplicate...") for one in use.before):
        yield Finding(
            use.run.line,
            "input-not-duplicated",
            "the plugin goes on with the old pixels of an image that was cropped, rotated or converted after it "
            'was used once; run("Duplicate...", "title=copy duplicate") first and give it that',
        )


def _result_of(macro: Macro, use: _Use) -> Iterator[Finding]:
    names = {one.call.name for one in use.after}
    selected = any(
        one.call.name == "selectWindow"
        and one.call.arguments
        and macro.value(one.call.arguments[0]) == "result"
        for one in use.after
    )
    copied = any(_is_run(macro, one, "Duplicate...") for one in use.after)
    if not selected:
        yield Finding(
            use.run.line,
            "result-not-selected",
            "the result is open but not current in batch mode, and after a failure the input is; "
            'selectWindow("result") and check isOpen("result") before',
        )
    elif not names & {"rename", "close"} and not copied:
        yield Finding(
            use.run.line,
            "result-not-renamed",
            'every result is called "result"; rename("...") it at once, or the next one cannot be told from it',
        )
    if not names & {"isOpen", "nImages"}:
        yield Finding(
            use.run.line,
            "failure-not-noticed",
            "where the plugin fails it says nothing and the macro goes on with the input; "
            'if (!isOpen("result")) exit("...")',
        )


def _remembered(macro: Macro, uses: list[_Use]) -> Iterator[Finding]:
    if "GenericNetwork" not in macro.code and (len(uses) > 1 or any(use.repeated for use in uses)):
        yield Finding(
            uses[-1].run.line,
            "remembered-model",
            "from the second run on the plugin takes the model that it remembers, whatever modelfile= says; clear the "
            "preference before each run (see fiji_macros/restore_image.ijm), or use the script Restore_Image",
        )


def _batch(macro: Macro, uses: list[_Use]) -> Iterator[Finding]:
    line = min(use.run.line for use in uses)
    if not any(call.name == "setBatchMode" for call in macro.calls):
        yield Finding(
            line,
            "no-batch-mode",
            "without setBatchMode(true) every image opens a window, which is slow and lets a click in between break it",
        )
    if not re.search(r"VoxelSize|Properties\.\.\.|Stack\.setUnits|imageCalculator", macro.code):
        yield Finding(
            line,
            "calibration-lost",
            "the result has no pixel size, units or labels; copy them (getVoxelSize before, setVoxelSize after)",
        )


def _stale(macro: Macro, uses: list[_Use]) -> Iterator[Finding]:
    for use in uses:
        for one in use.after:
            run = _as_run(macro, one.call)
            if run is not None and run.command in _CHANGES_PIXELS_AFTER_USE:
                yield Finding(
                    run.line,
                    "stale-pixels",
                    f"{run.command} after the plugin was used: a next run on the same image takes its old pixels; "
                    "duplicate it first",
                )


def _is_run(macro: Macro, happening: Happening, command: str) -> bool:
    run = _as_run(macro, happening.call)
    return run is not None and run.command == command
