"""A person's own Fiji inside a worker process, through pyimagej."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.java.installation import FijiFolder
from care_bridge.java.worker_process import Call, in_words

COMMAND = "de.csbdresden.csbdeep.commands.GenericNetwork"
ISONET = "de.csbdresden.csbdeep.commands.GenericIsotropicNetwork"
RESULT = "result"

_DIMENSIONS = {"T": "t", "Z": "pln", "Y": "row", "X": "col", "C": "ch"}  # pyimagej's names
_LETTERS = {"X": "X", "Y": "Y", "Z": "Z", "Time": "T", "Channel": "C"}
_JAVA_ERROR = re.compile(r"(?:Exception in thread .*? )?([\w.$]+(?:Exception|Error)(?:: .*)?)$")

_fiji: dict[str, Any] = {}


def start(settings: dict[str, Any]) -> dict[str, Any]:
    """Start Fiji without a window; the canary is that its plugin, legacy layer and TensorFlow answer."""
    folder = Path(settings["fiji"])
    scratch = Path(settings["worker_folder"])
    for name in ("prefs", "models", "tmp"):
        (scratch / name).mkdir(exist_ok=True)
    base = FijiFolder(folder).mirrored_in(scratch / "Fiji.app")
    os.environ["JAVA_HOME"] = settings["java"]
    # Where scyjava would fetch a Java from although there is one.
    os.environ["CJDK_INDEX_URL"] = "http://127.0.0.1:9/"
    try:
        import scyjava

        # "never" makes pyimagej 1.8.0 fail; "auto" takes the one that is here.
        scyjava.config.set_java_constraints(fetch="auto")
        scyjava.config.get_repositories().pop("scijava.public", None)
        import imagej
    except ImportError as error:
        raise NotInstalledError(
            f"pyimagej is not installed ({error}): pip install 'care-bridge[fiji]'"
        ) from error
    # Importing pyimagej asks for imglib2-imglyb from the network; here it has to be in the folder.
    scyjava.config.endpoints.clear()
    for option in (
        f"-Xmx{settings['heap_mb']}m",
        "-XX:+UseParallelGC",
        # Nothing that is remembered, unpacked or downloaded may stay in the person's own Fiji or home.
        f"-Djava.util.prefs.userRoot={scratch / 'prefs'}",
        f"-Dimagej.tensorflow.models.dir={scratch / 'models'}",
        f"-Djava.io.tmpdir={scratch / 'tmp'}",
        # Scripts are looked for, and the mark of a TensorFlow that is being loaded is kept, where these say.
        *(f"-D{name}.dir={base}" for name in ("imagej", "imagej2", "fiji")),
    ):
        scyjava.config.add_option(option)
    try:
        gateway = imagej.init(str(folder), mode="headless")
    except Exception as error:
        raise WorkerError(f"the Fiji at {folder} does not start: {in_words(error)}") from error
    if not gateway.legacy or not gateway.legacy.isActive():
        raise WorkerError(f"the Fiji at {folder} starts without ImageJ 1 (imagej-legacy is not active)")
    import jpype

    try:
        _fiji.update(ij=gateway, commands=[jpype.JClass(name) for name in (COMMAND, ISONET)])
    except TypeError as error:
        raise NotInstalledError(
            f"the Fiji at {folder} does not know {COMMAND} or {ISONET}: tick its update site CSBDeep"
        ) from error
    system = jpype.JClass("java.lang.System")
    return {
        "imagej": str(gateway.getVersion()),
        "csbdeep": settings["csbdeep"],
        "tensorflow": _load_tensorflow(gateway),
        "java": str(system.getProperty("java.version")),
        "pyimagej": str(imagej.__version__),
    }


def predict(call: Call) -> dict[str, Any]:
    """Run the plugin's command, every parameter given, without its pre- and postprocessors."""
    import jpype

    ij = _fiji["ij"]
    _forget()
    dataset = _dataset(call)
    parameters: list[Any] = ["input", dataset]
    for name, value in call.arguments["options"].items():
        parameters += [name, _as_java(value)]
    parameters += ["modelFile", jpype.JClass("java.io.File")(call.arguments["bundle"])]
    scale = call.arguments["scale"]
    if scale is not None:
        parameters += ["scale", jpype.JFloat(scale)]
    command = COMMAND if scale is None else ISONET
    before = _log_size(call)
    try:
        module = ij.command().run(command, False, *parameters).get()
        output = None if module is None else module.getOutput("output")
    finally:
        # Even without its pre- and postprocessors the command remembers its model, for later macros.
        _forget()
    if output is None:
        return {"reasons": reasons(_log_since(call, before))}
    return _give(call, output)


def predict_by_macro(call: Call) -> dict[str, Any]:
    """Run the plugin from an ImageJ macro; its result is a display that ImageJ 1 never sees without windows."""
    ij = _fiji["ij"]
    _forget()
    _close_displays(ij)
    before = _log_size(call)
    try:
        ij.py.run_macro(call.arguments["macro"])
        display = ij.display().getDisplay(RESULT)
        if display is None:
            return {"reasons": reasons(_log_since(call, before))}
        return _give(call, ij.imageDisplay().getActiveDataset(display))
    finally:
        _forget()
        _close_displays(ij)


def run_macro(call: Call) -> dict[str, Any]:
    """Run any macro; gives what it printed. Neither an abort nor an error of it raises in Fiji."""
    ij = _fiji["ij"]
    _forget()
    before = _log_size(call)
    try:
        ij.py.run_macro(call.arguments["macro"])
    finally:
        _forget()
        _close_displays(ij)
    printed = _log_since(call, before)
    return {"printed": printed, "reasons": reasons(printed)}


HANDLERS = {"predict": predict, "predict_by_macro": predict_by_macro, "run_macro": run_macro}


def reasons(printed: str) -> list[str]:
    """The plugin's own messages and Java's causes in what was printed; the innermost cause last."""
    found: list[str] = []
    for line in map(str.strip, printed.splitlines()):
        if line.startswith("[ERROR]"):
            message = re.sub(r"^\[ERROR\] (?:[\w.]+: )?", "", line)
        elif line.startswith("Caused by: "):
            message = line.removeprefix("Caused by: ")
        elif _JAVA_ERROR.match(line):
            message = line
        else:
            continue
        if message and message not in found:
            found.append(message)
    return found


def _load_tensorflow(ij: Any) -> str:
    """Version of Fiji's TensorFlow; loading it now gives its reason, which the plugin would show in a dialog."""
    import jpype

    service = ij.get("net.imagej.tensorflow.TensorFlowService")
    try:
        service.loadLibrary()
        status = service.getStatus()
        if not status.isLoaded():
            raise WorkerError(f"Fiji's TensorFlow does not load: {status.getInfo()}")
        return str(service.getTensorFlowVersion().getVersionNumber())
    except AttributeError:
        # imagej-tensorflow before 1.1.3 has no such methods and loads at first use.
        return str(jpype.JClass("org.tensorflow.TensorFlow").version())
    except jpype.JException as error:
        raise WorkerError(f"Fiji's TensorFlow does not load: {in_words(error)}") from error


def _dataset(call: Call) -> Any:
    array, axes = call.arrays["image"], call.arguments["axes"]
    if array.dtype == bool:
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    array = np.ascontiguousarray(array)
    unknown = [axis for axis in axes if axis not in _DIMENSIONS]
    if unknown:
        raise InputError(f"Fiji has no axis {unknown[0]!r} (axes {axes!r}); use letters of TCZYX")
    # Held until the next one comes: Java looks into NumPy's memory.
    _fiji["memory"] = array
    return _fiji["ij"].py.to_dataset(array, dim_order=[_DIMENSIONS[axis] for axis in axes])


def _give(call: Call, dataset: Any) -> dict[str, Any]:
    count = int(dataset.numDimensions())
    labels = [str(dataset.axis(d).type().getLabel()) for d in range(count)]
    shape = tuple(int(dataset.dimension(d)) for d in reversed(range(count)))
    output = call.output("image", shape=shape, dtype=np.float32)
    _fiji["ij"].py.rai_to_numpy(dataset, output)
    axes = "".join(_LETTERS.get(label, "?") for label in reversed(labels))
    return {"axes": axes, "name": str(dataset.getName()), "type": str(dataset.getTypeLabelShort())}


def _as_java(value: Any) -> Any:
    import jpype

    if isinstance(value, bool):
        return jpype.JBoolean(value)
    return jpype.JInt(value) if isinstance(value, int) else jpype.JFloat(value)


def _forget() -> None:
    """Clear what Fiji remembers of the commands: a remembered model wins over the one that a macro names."""
    for command in _fiji["commands"]:
        _fiji["ij"].prefs().clear(command.class_)


def _close_displays(ij: Any) -> None:
    for display in list(ij.display().getDisplays()):
        display.close()


def _log_size(call: Call) -> int:
    _flush_java()
    return (call.folder / "log.txt").stat().st_size


def _log_since(call: Call, start: int) -> str:
    _flush_java()
    with open(call.folder / "log.txt", "rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", errors="replace")


def _flush_java() -> None:
    import jpype

    system = jpype.JClass("java.lang.System")
    system.out.flush()
    system.err.flush()
