"""Inside the worker process: ImageJ 1.54p without a window, and a command "Run your network" that we answer.

The answer behaves like the CSBDeep plugin does in a Fiji with windows (recorded with CSBDeep 0.6.0, imagej-legacy
2.0.3): lower-case option keys, others ignored in silence; a parameter left out takes its last value, a model
chosen once is remembered and wins over `modelfile=`; old pixels of an image that was used before; a result
called "result", 32-bit, without calibration, on a virtual stack, open but not current; no result and no error
after a failure. The numbers come from the main process, which is asked for them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.errors import InputError, WorkerError
from care_bridge.java import worker_java
from care_bridge.java.imagej_images import (
    array_from_imp,
    imp_from_array,
    open_ids,
    open_titles,
    planes_of,
    stacked,
)
from care_bridge.java.imagej_scripts import binding_of, evaluate, stand_ins, without_parameters
from care_bridge.java.imagej_traces import cause, error_in, log_since, log_size
from care_bridge.java.worker_process import Call
from care_bridge.plugin.options import COMMAND, PluginOptions

PREFERENCES = "/de/csbdresden/csbdeep/commands/GenericNetwork"
REMEMBERED_MODEL = "GenericNetwork_modelfile"

# name of the parameter: its default, as the command declares it
PARAMETERS = PluginOptions().values()

_CANARY = (
    'newImage("q","16-bit black",8,8,1); run("Add...","value=7"); getStatistics(a,m); close(); return ""+m;'
)


@dataclass
class _Plugin:
    """What the plugin keeps for as long as Fiji is open.

    Attributes
    ----------
    call : Call or None
        The call of the main process that runs now: whom to ask for the numbers.
    seen : dict
        For each image that was used: its planes and sizes then. Java's arrays themselves, so that edits in place
        are seen and everything that gives the image other arrays is not.
    windows : bool
        False: the result never reaches ImageJ1, as in a headless Fiji.
    failures : list of str
        Why there was no result, in the order of the runs: what the plugin prints to the console.
    runs : int
        How often the command was run.
    folders : dict
        Where the planes of each result lie.
    """

    call: Call | None = None
    seen: dict[int, tuple[list[Any], tuple[int, ...]]] = field(default_factory=dict)
    windows: bool = True
    failures: list[str] = field(default_factory=list)
    runs: int = 0
    folders: dict[int, Path] = field(default_factory=dict)


_plugin = _Plugin()


def start(settings: dict[str, Any]) -> dict[str, Any]:
    """Start Java, see that dialogs keep their options, and take over the plugin's command."""
    import jpype

    options = ["--add-opens=java.base/java.lang=ALL-UNNAMED"] if settings.get("write_overlay") else []
    java = worker_java.start_jvm(
        classpath=settings["classpath"], heap_mb=settings["heap_mb"], java=settings["java"], options=options
    )
    if settings.get("write_overlay"):
        target = jpype.JClass("java.io.File")(settings["write_overlay"])
        jpype.JClass("net.imagej.patcher.LegacyInjector").writeJar(target, True, False)
        return {"java": java}
    system = jpype.JClass("java.lang.System")
    # Set here and not by -D, because Java reads -D in the locale's encoding. A person's own preferences of
    # ImageJ would change what macros do, and a remembered model must not outlive this process.
    home = settings["home"]
    for name in ("user.home", "java.util.prefs.userRoot", "ij.dir", "plugins.dir"):
        system.setProperty(name, os.path.join(home, "plugins") if name == "plugins.dir" else home)
    if settings.get("onnxruntime"):
        system.setProperty("care_bridge.onnxruntime", settings["onnxruntime"])
    imagej = jpype.JClass("ij.IJ")
    answer = str(jpype.JClass("ij.macro.Interpreter")().run(_CANARY, ""))
    if answer != "7":
        raise WorkerError(
            f"ImageJ answered {answer!r} instead of '7': its dialogs would lose their options; "
            "remove the overlay jar from the cache folder and start again"
        )
    jpype.JClass("ij.Executer").addCommandListener(_listener())
    jpype.JClass("ij.macro.Interpreter").batchMode = True
    return {"imagej": str(imagej.getVersion()), "java": java}


def run_macro(call: Call) -> dict[str, Any]:
    """Run a macro's text and collect what it left in the five places where ImageJ puts errors."""
    import jpype

    _close_all()
    _plugin.call, _plugin.windows, _plugin.runs = call, call.arguments["windows"], 0
    interpreter_class = jpype.JClass("ij.macro.Interpreter")
    interpreter = interpreter_class()
    interpreter_class.batchMode = True
    log_start = log_size(call.folder)
    value, thrown = "", ""
    try:
        value = str(interpreter.run(call.arguments["text"], call.arguments["argument"]) or "")
    except BaseException as error:
        thrown = str(error)
    finally:
        _plugin.call = None
    log = log_since(call.folder, log_start)
    message, line = error_in(interpreter, thrown, log, value)
    titles = open_titles()
    _close_all()
    return {
        "value": value,
        "error": message,
        "aborted": bool(thrown) or value == "[aborted]",
        "line": line,
        "log": log,
        "open_titles": titles,
        "plugin_failures": _take(_plugin.failures),
        "plugin_runs": _plugin.runs,
    }


def predict(call: Call) -> dict[str, Any]:
    """Show an image, run the command on it as a macro would, and give the result back."""
    _close_all()
    image = imp_from_array(call.arrays["image"], call.arguments["axes"], call.arguments["title"])
    import jpype

    jpype.JClass("ij.macro.Interpreter").batchMode = True
    image.show()
    _plugin.call, _plugin.windows = call, True
    forget(call)
    try:
        jpype.JClass("ij.macro.Interpreter")().run(call.arguments["macro"], call.arguments["model"])
        result = jpype.JClass("ij.WindowManager").getImage("result")
        if result is None:
            failures = _take(_plugin.failures)
            raise InputError(failures[-1] if failures else "the command gave no result")
        array, axes = array_from_imp(result)
        call.output("result", shape=array.shape, dtype=np.float32)[...] = array
        return {"axes": axes}
    finally:
        _plugin.call = None
        _close_all()


def forget(call: Call) -> dict[str, Any]:
    """Clear what the plugin remembers between runs."""
    import jpype

    root = jpype.JClass("java.util.prefs.Preferences").userRoot()
    if root.nodeExists(PREFERENCES):
        root.node(PREFERENCES).clear()
    _plugin.seen.clear()
    return {}


def run_script(call: Call) -> dict[str, Any]:
    """Run a Groovy script with its `#@` parameters given, beside objects that answer like SciJava's services."""
    import jpype

    _close_all()
    _plugin.call, _plugin.windows, _plugin.runs = call, True, 0
    _plugin.failures.clear()
    jpype.JClass("ij.macro.Interpreter").batchMode = True
    log_start = log_size(call.folder)
    arguments = call.arguments
    error = ""
    try:
        compute = _compute_for_scripts() if arguments["stand_ins"] else None
        evaluate(arguments, binding_of(arguments, compute=compute))
    except BaseException as thrown:
        error = cause(thrown)
    finally:
        _plugin.call = None
    titles = open_titles()
    _close_all()
    return {
        "value": "",
        "error": error,
        "aborted": bool(error),
        "line": None,
        "log": log_since(call.folder, log_start),
        "open_titles": titles,
        "plugin_failures": _take(_plugin.failures),
        "plugin_runs": _plugin.runs,
    }


def restore(call: Call) -> dict[str, Any]:
    """Show an image, run a script that restores it, and give the result back; nothing answers for the plugin."""
    import jpype

    _close_all()
    arguments = call.arguments
    jpype.JClass("ij.macro.Interpreter").batchMode = True
    image = imp_from_array(call.arrays["image"], arguments["axes"], arguments["title"])
    image.show()
    log_start = log_size(call.folder)
    try:
        try:
            evaluate(arguments, binding_of(arguments, image=image))
        except BaseException as thrown:
            raise WorkerError(f"the script {arguments['name']} failed: {cause(thrown)}") from None
        result = jpype.JClass("ij.WindowManager").getImage(arguments["result"])
        if result is None:
            raise InputError(_last_said(log_since(call.folder, log_start)))
        array, axes = array_from_imp(result)
        call.output("result", shape=array.shape, dtype=np.float32)[...] = array
        return {"axes": axes, "info": str(result.getInfoProperty() or "")}
    finally:
        _close_all()


def _last_said(log: str) -> str:
    said = [
        line.removeprefix("CARE bridge: ") for line in log.splitlines() if line.startswith("CARE bridge: ")
    ]
    return said[-1] if said else "the script gave no result, and no reason"


def compile_script(call: Call) -> dict[str, Any]:
    """Let the real Groovy compile a script; raises with its message where it cannot."""
    import jpype

    text = without_parameters(call.arguments["text"])
    try:
        loader = stand_ins(call.arguments["stand_ins"])
        jpype.JClass("groovy.lang.GroovyShell")(loader).parse(text, call.arguments["name"])
    except BaseException as error:
        raise InputError(cause(error)) from None
    return {"groovy": str(jpype.JClass("groovy.lang.GroovySystem").getVersion())}


def preference(call: Call) -> dict[str, Any]:
    """The model that is remembered, or set it: what a run before in the same Fiji left."""
    import jpype

    node = jpype.JClass("java.util.prefs.Preferences").userRoot().node(PREFERENCES)
    if "set" in call.arguments:
        node.put(REMEMBERED_MODEL, call.arguments["set"])
    return {"remembered": str(node.get(REMEMBERED_MODEL, "") or "")}


HANDLERS = {
    "run_macro": run_macro,
    "predict": predict,
    "forget": forget,
    "run_script": run_script,
    "restore": restore,
    "compile_script": compile_script,
    "preference": preference,
}


# ---- the command -----------------------------------------------------------------------------------------


def _listener() -> Any:
    import jpype

    def command_executing(_self: Any, name: Any) -> Any:
        if str(name) != COMMAND:
            return name
        options = str(jpype.JClass("ij.Macro").getOptions() or "")
        try:
            _run_command(options)
        except BaseException:
            traceback.print_exc()  # ImageJ would end the macro without a word
            raise
        return None  # handled: ImageJ looks no further

    implemented = type("Listener", (), {"commandExecuting": jpype.JOverride(command_executing)})
    return jpype.JImplements("ij.CommandListener")(implemented)()


def _run_command(options: str) -> None:
    """One run as from a macro: whatever goes wrong is printed, and the macro goes on."""
    import jpype

    _plugin.runs += 1
    get_value = jpype.JClass("ij.Macro").getValue
    given = {
        name: text
        for name in (*PARAMETERS, "input", "modelFile", "modelUrl")
        if (text := str(get_value(options, name.lower(), "") or ""))
    }
    values = _resolve(given)
    remembered = _remembered_model()
    model = remembered or given.get("modelFile", "")
    window_manager = jpype.JClass("ij.WindowManager")
    current = window_manager.getCurrentImage()
    image = _image_named(given.get("input", "")) or current
    if image is None:
        _fail("Please open an image first")
        return
    _remember(values, model)
    result = _compute(image, model, values)
    if result is None:
        return
    if not _plugin.windows:
        _lose(result)
        return
    result.show()
    # Open, but not current: the plugin's display reaches ImageJ1 beside its batch mode.
    if current is not None:
        window_manager.setTempCurrentImage(current)


def _lose(result: Any) -> None:
    """Put a result where only SciJava sees it, as in a Fiji without a window."""
    import jpype

    folder = str(Path(__file__).with_name("stand_ins"))
    try:
        loader = stand_ins(folder)
    except TypeError:
        return  # without Groovy nobody can fetch it anyway
    # Here `IJ.runPlugIn("org.scijava.Context", "")` looks for its class.
    known = jpype.JClass("ij.IJ").class_.getDeclaredField("classLoader")
    known.setAccessible(True)
    known.set(None, loader)
    jpype.JClass(loader.loadClass("org.scijava.Context")).lose(result)


def _resolve(given: dict[str, str]) -> dict[str, Any]:
    """Values of the parameters: given, else of the last run, else the default."""
    values: dict[str, Any] = {}
    stored = _preferences()
    for name, default in PARAMETERS.items():
        value = _converted(given.get(name, ""), default)
        if value is None:
            value = _converted(str(stored.get(name, "") or ""), default)
        values[name] = default if value is None else value
    return values


def _converted(text: str, like: bool | int | float) -> bool | int | float | None:
    if not text:
        return None
    if isinstance(like, bool):
        return text.lower() == "true" if text.lower() in ("true", "false") else None
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if isinstance(like, int) else number


def _preferences() -> Any:
    import jpype

    return jpype.JClass("java.util.prefs.Preferences").userRoot().node(PREFERENCES)


def _remembered_model() -> str:
    return str(_preferences().get(REMEMBERED_MODEL, "") or "")


def _remember(values: dict[str, Any], model: str) -> None:
    node = _preferences()
    for name, value in values.items():
        if value == PARAMETERS[name]:
            node.remove(name)
        else:
            node.put(name, str(value).lower() if isinstance(value, bool) else str(value))
    if model:
        node.put(REMEMBERED_MODEL, model)


def _compute(image: Any, model: str, values: dict[str, Any]) -> Any:
    """The result as an ImagePlus; None, with the reason printed, where the plugin gives none."""
    computed = _computed_array(*_stale_array(image), model, values)
    if computed is None:
        return None
    folder = _result_folder()
    result = imp_from_array(*computed, "result", folder=folder)
    _plugin.folders[int(result.getID())] = folder
    return result


def _computed_array(
    array: NDArray[Any], axes: str, model: str, values: dict[str, Any]
) -> tuple[NDArray[Any], str] | None:
    """The numbers, asked for in the main process; None, with the reason printed, where there are none."""
    if not model:
        _fail("no model file was given")
        return None
    if not Path(model).is_file():
        _fail(f"Model file {model} does not exist")
        return None
    if _plugin.call is None:
        _fail("nobody is there to compute")
        return None
    try:
        answer = _plugin.call.ask("network", arrays={"image": array}, axes=axes, model=model, options=values)
    except (InputError, WorkerError) as error:
        _fail(str(error))
        return None
    if answer.values.get("reason"):
        _fail(answer.values["reason"])
        return None
    return answer.arrays["result"], answer.values["axes"]


def _fail(reason: str) -> None:
    _plugin.failures.append(reason)
    sys.stderr.write(f"[{COMMAND}] {reason}\n")
    sys.stderr.flush()


def _image_named(text: str) -> Any:
    """An open image by title or by id, as the plugin's option takes it."""
    import jpype

    if not text:
        return None
    window_manager = jpype.JClass("ij.WindowManager")
    for number in open_ids():
        image = window_manager.getImage(number)
        if str(image.getTitle()) == text or str(number) == text:
            return image
    return None


def _compute_for_scripts() -> Any:
    """What `command.run(GenericNetwork, false, ...)` computes; also remembers the model, as the plugin does."""
    import jpype

    def apply(_self: Any, values: Any) -> Any:
        image = values.get("input").getProperty("imp")
        options = {
            name: type(default)(
                values.get(name).toString() == "true" if isinstance(default, bool) else str(values.get(name))
            )
            for name, default in PARAMETERS.items()
        }
        model = str(values.get("modelFile").getPath())
        _plugin.runs += 1
        _preferences().put(REMEMBERED_MODEL, model)
        computed = _computed_array(*array_from_imp(image), model, options)
        if computed is None:
            return None
        array, axes = computed
        flat = np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
        java = jpype.JArray(jpype.JFloat)(flat.size)
        worker_java.direct_buffer(flat).asFloatBuffer().get(java)
        answer = jpype.JArray(jpype.JObject)(3)
        answer[0] = java
        answer[1] = jpype.JArray(jpype.JLong)(list(array.shape[::-1]))
        answer[2] = jpype.JString(axes[::-1])
        return answer

    implemented = type("Compute", (), {"apply": jpype.JOverride(apply)})
    return jpype.JImplements("java.util.function.Function")(implemented)()


def _take(entries: list[str]) -> list[str]:
    taken = list(entries)
    entries.clear()
    return taken


# ---- what is open, and what was seen ---------------------------------------------------------------------


def _stale_array(image: Any) -> tuple[NDArray[Any], str]:
    """The pixels as the plugin sees them: of the arrays that the image had when it was first used."""
    key = int(image.getID())
    if key not in _plugin.seen:
        _plugin.seen[key] = planes_of(image)
    return stacked(*_plugin.seen[key])


def _result_folder() -> Path:
    """A folder for the planes of a result; those of results that are closed meanwhile go."""
    still_open = set(open_ids())
    for number in [number for number in _plugin.folders if number not in still_open]:
        shutil.rmtree(_plugin.folders.pop(number), ignore_errors=True)
    assert _plugin.call is not None
    return Path(tempfile.mkdtemp(prefix="result-", dir=_plugin.call.folder))


def _close_all() -> None:
    """Images left open would be found by title in the next run."""
    import jpype

    window_manager = jpype.JClass("ij.WindowManager")
    interpreter = jpype.JClass("ij.macro.Interpreter")
    for number in open_ids():
        image = window_manager.getImage(number)
        if image is not None:
            image.changes = False
            interpreter.removeBatchModeImage(image)
            image.close()
    window_manager.setTempCurrentImage(None)
    _plugin.seen.clear()
