"""ImageJ 1.54p itself, without a window: runs macros and scripts as they are, and answers "Run your network".

Level `imagej`: macro language, image types, files and calibration are ImageJ's own; the plugin's arithmetic is
`plugin.emulation`; the network is run by TensorFlow 1.x. The plugin's behaviour in macros (`imagej_worker`) is
written after runs of the real plugin, its traps included: a macro that runs here has met them.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from care_bridge.bundle import read_meta
from care_bridge.defaults import TF1_VERSION
from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.files import atomic_file, make_scratch_folder
from care_bridge.images import Image
from care_bridge.java import runtimes, trusted
from care_bridge.java.tf1 import Tf1Network, Tf1Session
from care_bridge.java.worker import Answer, Array, Worker, heap_mb
from care_bridge.plugin.emulation import run_plugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import PluginError
from care_bridge.plugin.quoting import Code
from care_bridge.predictor import ImagesOnly, Network, Runtime
from care_bridge.tiling import FijiTiles

IMAGEJ_VERSION = "1.54p"

_TITLE = "care_input"
_HEAP_MB = 4096


def scripts_folder() -> Path:
    """Where our macros and scripts lie: beside the package, in a checkout as well as installed."""
    folder = Path(__file__).resolve().parents[2] / "fiji_macros"
    if not (folder / "restore_image.ijm").is_file():
        raise InputError(f"the macros are not at {folder}; install care-bridge again")
    return folder


OpenNetwork = Callable[[Path], Network]


@dataclass(frozen=True)
class MacroResult:
    """How a macro or a script ended. ImageJ itself always says it went well: look at `error` and at the files.

    Attributes
    ----------
    value : str
        What the macro returned.
    error : str
        Its failure, from the five places where ImageJ leaves one; "" when there was none. Some do not stop a macro.
    aborted : bool
        Whether it was stopped by its failure.
    line : int, optional
        Of the failure, where ImageJ names it.
    log : str
        Everything that was printed.
    open_titles : tuple of str
        Images that were open at the end.
    plugin_runs : int
        How often "Run your network" was run.
    plugin_failures : tuple of str
        Why it gave no result, in the plugin's words: what a person finds in Window > Console.
    seconds : float
    """

    value: str
    error: str
    aborted: bool
    line: int | None
    log: str
    open_titles: tuple[str, ...]
    plugin_runs: int
    plugin_failures: tuple[str, ...]
    seconds: float


class ImageJ:
    """A running ImageJ in a process of its own; use it as a context manager.

    Parameters
    ----------
    groovy : bool
        Whether Groovy lies among the jars, as in Fiji: scripts need it, and macros use it where it is there.
    open_network : callable, optional
        Gives the network of a bundle. None runs it by TensorFlow 1.x.
    tf1_version : str
        Which TensorFlow, where `open_network` is None.
    onnx : bool
        Whether ONNX Runtime lies where scripts look for it. Then nothing answers for the plugin or SciJava, and
        Groovy is there.
    timeout_s : float, optional
        Seconds without a sign of life after which it is ended; a dialog that waits looks like this.

    Raises
    ------
    NotInstalledError
        If ImageJ, Groovy or Java is missing; the message holds the command that adds it.
    """

    def __init__(
        self,
        *,
        groovy: bool = False,
        open_network: OpenNetwork | None = None,
        tf1_version: str = TF1_VERSION,
        onnx: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        jars = [overlay_jar(), runtimes.imagej_jars()[0]]
        if groovy or onnx:
            jars += runtimes.groovy_jars()
        self._stand_ins = "" if onnx else str(Path(__file__).with_name("stand_ins"))
        self._session: Tf1Session | None = None
        if onnx:
            open_network = _no_plugin
        elif open_network is None:
            runtimes.require(f"tf1-{tf1_version}")
            self._session = Tf1Session(tf1_version)
            open_network = self._session.open
        self._open_network = open_network
        self._networks: dict[tuple[str, int, int], Network] = {}
        self._home = make_scratch_folder("care-bridge-imagej-")
        try:
            self.worker = Worker(
                "care_bridge.java.imagej_worker",
                settings={
                    "classpath": [str(jar) for jar in jars],
                    "java": str(runtimes.java_home()),
                    "heap_mb": heap_mb(share=0.4, most_mb=_HEAP_MB),
                    "home": str(self._home),
                    "onnxruntime": str(runtimes.onnx_jar()) if onnx else "",
                },
                timeout_s=timeout_s,
            )
        except BaseException:
            self.close()
            raise

    @property
    def versions(self) -> dict[str, str]:
        """Versions of ImageJ and Java, and of what has run networks so far."""
        versions = {key: str(value) for key, value in self.worker.facts.items()}
        for network in self._networks.values():
            versions |= {key: value for key, value in network.runtime.versions.items() if key != "java"}
        return versions

    @property
    def fiji_folder(self) -> Path:
        """What scripts take for the folder of their Fiji (`ij.dir`); it goes with this process."""
        return self._home

    @property
    def remembered_model(self) -> str:
        """The model that the plugin would take whatever a macro says; "" when none is remembered."""
        return str(self.worker.call("preference").values["remembered"])

    @remembered_model.setter
    def remembered_model(self, path: str | os.PathLike[str]) -> None:
        self.worker.call("preference", set=os.fspath(path))

    def forget(self) -> None:
        """Clear everything that the plugin remembers between runs."""
        self.worker.call("forget")

    def run_macro(
        self, macro: str | Path, argument: str = "", *, windows: bool = True, timeout_s: float | None = None
    ) -> MacroResult:
        """Run a macro from a clean start (no images open).

        Parameters
        ----------
        macro : str or Path
            The text, or a file. A file is read as ISO-8859-1, as ImageJ does.
        argument : str
            What `getArgument()` gives.
        windows : bool
            False lets the plugin behave as in a Fiji without a window, where its results never reach ImageJ1.
        timeout_s : float, optional
            Seconds without a sign of life.

        Raises
        ------
        WorkerError
            If ImageJ hung, crashed or was killed. A macro that failed is no exception, but in the result.
        """
        text = macro.read_text(encoding="iso-8859-1") if isinstance(macro, Path) else macro
        return self._result("run_macro", timeout_s=timeout_s, text=text, argument=argument, windows=windows)

    def run_script(
        self,
        script: Path,
        parameters: Mapping[str, Any],
        *,
        image: Path | None = None,
        timeout_s: float | None = None,
    ) -> MacroResult:
        """Run a Groovy script with the real Groovy, beside objects that answer like the plugin's services.

        Parameters
        ----------
        script : Path
        parameters : mapping
            Values of its `#@` parameters by name.
        image : Path, optional
            File that is opened for its `#@ ImagePlus`.
        timeout_s : float, optional
        """
        return self._result(
            "run_script",
            timeout_s=timeout_s,
            text=script.read_text(encoding="utf-8"),
            name=script.name,
            parameters={key: _as_json(value) for key, value in parameters.items()},
            image=str(image) if image else "",
            stand_ins=self._stand_ins,
        )

    def compile_script(self, script: Path) -> str:
        """Let the real Groovy compile a script; its version, or InputError with what it says."""
        values = self.worker.call(
            "compile_script",
            text=script.read_text(encoding="utf-8"),
            name=script.name,
            stand_ins=self._stand_ins,
        ).values
        return str(values["groovy"])

    def restore(self, script: Path, parameters: Mapping[str, Any], image: Image) -> Image:
        """Run a script that restores the image in front.

        Raises
        ------
        InputError
            If it gives no result; the script's own reason.
        """
        answer = self.worker.call(
            "restore",
            arrays={"image": for_imagej(image)},
            axes=image.axes,
            title=_TITLE,
            result=f"{_TITLE}_restored",
            text=script.read_text(encoding="utf-8"),
            name=script.name,
            parameters={key: _as_json(value) for key, value in parameters.items()},
            image="",
            stand_ins=self._stand_ins,
        )
        return image.replace(data=answer.arrays["result"], axes=answer.values["axes"], name="result")

    def predict(self, image: Image, model: str | os.PathLike[str], options: PluginOptions) -> Image:
        """Run the command on an image as a macro would.

        Raises
        ------
        InputError
            If the plugin gives no result; its own reason.
        """
        answer = self.worker.call(
            "predict",
            arrays={"image": for_imagej(image)},
            answer=self._answer,
            axes=image.axes,
            model=os.fspath(model),
            title=_TITLE,
            macro=options.macro_line(model=Code("getArgument()"), source=_TITLE),
        )
        return image.replace(data=answer.arrays["result"], axes=answer.values["axes"], name="result")

    def close(self) -> None:
        """End it and the TensorFlow beside it."""
        if hasattr(self, "worker"):
            self.worker.close()
        if self._session is not None:
            self._session.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> ImageJ:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _result(self, do: str, *, timeout_s: float | None, **arguments: Any) -> MacroResult:
        started = time.monotonic()
        values = self.worker.call(do, answer=self._answer, timeout_s=timeout_s, **arguments).values
        return MacroResult(
            value=values["value"],
            error=values["error"],
            aborted=values["aborted"],
            line=values["line"],
            log=values["log"],
            open_titles=tuple(values["open_titles"]),
            plugin_runs=values["plugin_runs"],
            plugin_failures=tuple(values["plugin_failures"]),
            seconds=time.monotonic() - started,
        )

    def _answer(self, name: str, arguments: dict[str, Any], arrays: dict[str, Array]) -> Answer:
        """What the plugin would have computed, or why it would have given nothing."""
        try:
            network = self._network(Path(arguments["model"]))
            options = PluginOptions.from_mapping(arguments["options"])
            result = run_plugin(network, arrays["image"], arguments["axes"], options=options)
        except PluginError as error:
            return Answer({"reason": error.reason})
        except (InputError, WorkerError, NotInstalledError) as error:
            return Answer({"reason": str(error)})
        return Answer({"axes": result.axes}, {"result": result.data})

    def _network(self, path: Path) -> Network:
        # The plugin too keeps a model for as long as its file is the same.
        about = path.stat()
        key = (str(path), about.st_mtime_ns, about.st_size)
        if key not in self._networks:
            self._networks[key] = self._open_network(path)
        return self._networks[key]


class ImageJPredictor(ImagesOnly):
    """Level `imagej`: a bundle through ImageJ's own command and option handling; a `predictor.Predictor`.

    Parameters
    ----------
    bundle : path or Tf1Network
        A zip for "Run your network", or the network of one that is open already.
    options : PluginOptions, optional
        None takes the plugin's defaults.
    imagej : ImageJ, optional
        A running one to use; without it this predictor starts its own and ends it with itself.
    tf1_version : str
        Which TensorFlow runs the network, where `bundle` is a path.
    """

    options: PluginOptions

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Tf1Network,
        options: PluginOptions | None = None,
        *,
        imagej: ImageJ | None = None,
        tf1_version: str = TF1_VERSION,
    ) -> None:
        network = bundle if isinstance(bundle, Tf1Network) else None
        self.bundle = Path(bundle.bundle.path if isinstance(bundle, Tf1Network) else bundle).absolute()
        if not self.bundle.is_file():
            raise InputError(
                f"there is no zip at {str(self.bundle)!r}; give the one that was exported for Fiji"
            )
        self.options = options or PluginOptions()
        # The path is computed in the macro; that ImageJ reads it as it is, is looked at here.
        self.options.macro_line(model=str(self.bundle), source=_TITLE)
        self._owns_imagej = imagej is None
        self._network = network
        open_network = (lambda _path: network) if network else None
        self._imagej = imagej or ImageJ(open_network=open_network, tf1_version=tf1_version)

    @property
    def runtime(self) -> Runtime:
        return Runtime("imagej", self._imagej.versions, "imagej")

    def variant(self, *, normalize: bool, tiles: FijiTiles) -> ImageJPredictor:
        """The same bundle in the same ImageJ with other tiles, and with or without normalisation."""
        options = self.options.with_tiles(tiles, normalizeInput=normalize)
        return ImageJPredictor(self._network or self.bundle, options, imagej=self._imagej)

    def predict(self, image: Image) -> Image:
        """Restore an image; see `ImageJ.predict`."""
        result = self._imagej.predict(image, self.bundle, self.options)
        return result.replace(
            has_widths=bool(read_meta(self.bundle).probabilistic), normalized=self.options.normalizeInput
        )

    def close(self) -> None:
        """End ImageJ if it is this predictor's own."""
        if self._owns_imagej:
            self._imagej.close()
        if self._network is not None:
            self._network.close()


def overlay_jar() -> Path:
    """ImageJ's classes patched to work without a window; written once beside the fetched jars, and anew if changed.

    Unpatched, every dialog of ImageJ falls back to its defaults without a word.
    """
    jars = runtimes.imagej_jars()
    target = runtimes.overlay_path()
    if not trusted.wrong({target: runtimes.OVERLAY_CONTENT}, how=trusted.content_sha256):
        return target
    with atomic_file(target) as part:
        settings = {
            "classpath": [str(jars[1]), str(jars[2]), str(jars[0])],
            "java": str(runtimes.java_home()),
            "heap_mb": 512,
            "write_overlay": str(part),
        }
        Worker("care_bridge.java.imagej_worker", settings=settings).close()
    return target


def for_imagej(image: Image) -> Array:
    """Pixels in a type that ImageJ has: 8 and 16 bits unsigned, else 32-bit float."""
    if "S" in image.axes:
        raise InputError("ImageJ has no axis S; give one image of the series at a time")
    return image.data if image.dtype.name in ("uint8", "uint16") else image.data.astype("float32")


def _no_plugin(_path: Path) -> Network:
    raise InputError("the CSBDeep plugin is not in this ImageJ; use the scripts with engine=onnx")


def _as_json(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
