"""The real plugin in a person's own Fiji, driven through pyimagej in a worker process: level `fiji`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from care_bridge.bundle import SAVED_MODEL, read_bundle
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.images import Image, write_image
from care_bridge.java.installation import FijiFolder, find_fiji
from care_bridge.java.worker import Answer, Worker, heap_mb
from care_bridge.plugin.emulation import channels_in_front
from care_bridge.plugin.options import PluginOptions
from care_bridge.plugin.plan import UNLABELLED, PluginFailure, PluginRefusal, name_unlabelled
from care_bridge.plugin.quoting import imagej_string
from care_bridge.plugin.unzipping import unpack
from care_bridge.predictor import ImagesOnly, Runtime
from care_bridge.progress import Progress, silent
from care_bridge.tiling import FijiTiles

HEAP_SHARE = 0.5
"""Part of the free memory for Fiji's heap: the plugin copies the image several times."""

_START_TIMEOUT_S = 180


class FijiSession:
    """One Fiji in one worker process, for any number of bundles; use it as a context manager.

    A worker that crashed or hung is started again at the next use. Nothing is written into the Fiji
    folder or among the person's preferences, whenever it is ended: what Fiji writes goes into the worker's folder.

    Parameters
    ----------
    fiji : path, optional
        Fiji folder with the CSBDeep update site; None takes `CARE_BRIDGE_FIJI`.
    timeout_s : float, optional
        Seconds without a sign of life after which the worker is ended; None takes `CARE_BRIDGE_TIMEOUT` or
        `worker.DEFAULT_TIMEOUT_S`.

    Raises
    ------
    InputError
        If the folder is no Fiji.
    NotInstalledError
        If no Fiji is named, or it lacks something; all that is missing at once.
    """

    def __init__(self, fiji: str | os.PathLike[str] | None = None, *, timeout_s: float | None = None) -> None:
        found = find_fiji(fiji)
        if found is None:
            raise NotInstalledError(
                "no Fiji is named: set CARE_BRIDGE_FIJI (or --fiji) to the folder with the CSBDeep plugin"
            )
        problems = found.problems()
        if problems:
            raise NotInstalledError("\n".join(f"{found.path}: {problem}" for problem in problems))
        self.fiji: FijiFolder = found
        self._timeout_s = timeout_s
        self._worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        """The living worker; started if there is none."""
        if self._worker is None or not self._worker.alive:
            self._worker = Worker(
                "care_bridge.java.pyimagej_worker",
                settings={
                    "fiji": str(self.fiji.path),
                    "java": str(self.fiji.java()),
                    "csbdeep": self.fiji.version("csbdeep"),
                    "heap_mb": heap_mb(share=HEAP_SHARE, least_mb=512),
                },
                start_timeout_s=_START_TIMEOUT_S,
                timeout_s=self._timeout_s,
            )
        return self._worker

    @property
    def runtime(self) -> Runtime:
        return Runtime("fiji", dict(self.worker.facts), "fiji")

    def open(self, bundle: str | os.PathLike[str], options: PluginOptions | None = None) -> FijiPlugin:
        """The plugin with a bundle; as `FijiPlugin(bundle, options, session=self)`."""
        return FijiPlugin(bundle, options, session=self)

    def run_macro(self, macro: str, *, timeout_s: float | None = None) -> str:
        """Run an ImageJ macro in this Fiji, without windows.

        Parameters
        ----------
        macro : str
            Text of the macro. Without windows a result of "Run your network" never becomes an ImageJ 1 image;
            `FijiPlugin.predict_by_macro` fetches it.

        Returns
        -------
        str
            What was printed. Fiji itself raises for no error in a macro: look for your own last line in it.
        """
        return str(self.worker.call("run_macro", macro=macro, timeout_s=timeout_s).values["printed"])

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> FijiSession:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class FijiPlugin(ImagesOnly):
    """The real plugin's "Run your network" or "Run your IsoNet"; a `predictor.Predictor` and a context manager.

    Parameters
    ----------
    bundle : path
        A zip as the plugin opens it.
    options : PluginOptions, optional
        What one would type; None takes the plugin's defaults. All of them are always given to the command,
        because one left out takes the value of the last run.
    fiji : path, optional
        Fiji folder; None takes `CARE_BRIDGE_FIJI`. Ignored where a session is given.
    session : FijiSession, optional
        A running Fiji to use; without it one is started and ends with this.
    timeout_s : float, optional
        As for `FijiSession`.
    scale : float, optional
        How many planes one becomes; given, "Run your IsoNet" is run.
    """

    options: PluginOptions

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        options: PluginOptions | None = None,
        *,
        fiji: str | os.PathLike[str] | None = None,
        session: FijiSession | None = None,
        timeout_s: float | None = None,
        scale: float | None = None,
    ) -> None:
        self.scale = scale
        self.bundle = Path(bundle).absolute()
        if self.bundle.is_dir():
            raise InputError(f"{bundle} is a folder; the plugin opens a bundle (.zip)")
        self._has_widths = bool(read_bundle(self.bundle).meta.probabilistic)
        _check_as_unpacked(self.bundle)
        self.options = options or PluginOptions()
        self._owns_session = session is None
        self._session = session or FijiSession(fiji, timeout_s=timeout_s)

    @property
    def runtime(self) -> Runtime:
        """Name and level `fiji`, with the versions of ImageJ, plugin, TensorFlow and Java; starts Fiji."""
        return self._session.runtime

    def variant(self, *, normalize: bool, tiles: FijiTiles) -> FijiPlugin:
        """The same bundle in the same Fiji with other tiles, and with or without normalisation."""
        options = self.options.with_tiles(tiles, normalizeInput=normalize)
        return FijiPlugin(self.bundle, options, session=self._session, scale=self.scale)

    def predict(self, image: Image, *, progress: Progress = silent) -> Image:
        """Run the plugin's command on an image.

        Raises
        ------
        PluginRefusal, PluginFailure
            Where the plugin gives nothing, with the reason that it printed.
        WorkerError
            If Fiji crashes or hangs.
        """
        image = channels_in_front(image)
        answer = self._session.worker.call(
            "predict",
            arrays={"image": image.data},
            progress=progress,
            axes=image.axes,
            # A dialog without a window is an error in Java.
            options=self.options.replace(showProgressDialog=False).values(),
            bundle=str(self.bundle),
            scale=self.scale,
        )
        return self._image(answer)

    def predict_by_macro(self, image: Image) -> Image:
        """As `predict`, but by ``run("Run your network", ...)`` in a macro, on a TIFF that the macro opens.

        Raises
        ------
        PluginRefusal, PluginFailure
            Where the plugin gives nothing, with the reason that it printed.
        """
        worker = self._session.worker
        file = worker.folder / "input.tif"
        write_image(file, image)
        try:
            return self._image(worker.call("predict_by_macro", macro=self.macro(file)))
        finally:
            file.unlink(missing_ok=True)

    def macro(self, file: str | os.PathLike[str]) -> str:
        """The macro lines that open a TIFF and run the plugin on it, every option given."""
        line = self.options.macro_line(model=str(self.bundle), source=Path(file).name)
        return f"open({imagej_string(_slashes(file))});\n{line}\n"

    def close(self) -> None:
        """End Fiji if it is this predictor's own."""
        if self._owns_session:
            self._session.close()

    def _image(self, answer: Answer) -> Image:
        if "image" in answer.arrays:
            axes = "".join(axis or UNLABELLED for axis in name_unlabelled(answer.values["axes"][::-1]))[::-1]
            return Image(
                answer.arrays["image"],
                axes,
                name=answer.values["name"],
                has_widths=self._has_widths,
                normalized=self.options.normalizeInput,
            )
        reasons = answer.values["reasons"]
        if not reasons:
            raise PluginFailure("it printed no reason; see the log of the worker")
        # Java's exceptions end a run that began; without one the plugin looked and said no.
        kind = (
            PluginFailure
            if any("Exception" in reason or "Error" in reason for reason in reasons)
            else PluginRefusal
        )
        # A null pointer is what follows where the real reason was printed before and not listened to.
        telling = [reason for reason in reasons if not reason.startswith("java.lang.NullPointerException")]
        raise kind((telling or reasons)[-1])


def _check_as_unpacked(bundle: Path) -> None:
    """Look at the graph that the plugin finds: it reads a zip from its first byte on, others by the list at its end."""
    with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
        unpack(bundle, folder)
        if (Path(folder) / SAVED_MODEL).is_file():
            try:
                read_bundle(folder)
            except InputError as error:
                raise InputError(str(error).replace(folder, str(bundle))) from None


def _slashes(path: str | os.PathLike[str]) -> str:
    return str(path).replace("\\", "/")
