"""Level `onnx`: our scripts, unchanged, in the real ImageJ, with ONNX Runtime for Java behind them.

Nothing is answered by a stand-in: ImageJ, Groovy, the script and the runtime are what a Fiji has. The CSBDeep plugin
takes no part.
"""

from __future__ import annotations

import os
from pathlib import Path

from care_bridge.bundle import read_meta, read_onnx
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.java import runtimes
from care_bridge.java.imagej import ImageJ, scripts_folder
from care_bridge.model_files import UPSAMPLING_KINDS, factor_of, kind_of
from care_bridge.plugin.options import PluginOptions
from care_bridge.predictor import ImagesOnly, Runtime
from care_bridge.tiling import FijiTiles

SCRIPT = "Restore_Image.groovy"

_TAKEN = (
    "normalizeInput",
    "percentileBottom",
    "percentileTop",
    "clip",
    "nTiles",
    "blockMultiple",
    "overlap",
    "batchSize",
)
"""Options of the plugin that the script takes under the same names."""


class ImageJOnnxPredictor(ImagesOnly):
    """A bundle's ONNX network by our script in headless ImageJ; a `predictor.Predictor`.

    Parameters
    ----------
    bundle : path
        A zip that `export --format fiji` wrote.
    options : PluginOptions, optional
        None takes the plugin's defaults. With more tiles and any overlap the result is that of one tile: the script
        cuts with at least what a pixel hangs on.
    imagej : ImageJ, optional
        A running one with ONNX Runtime; without it this predictor starts its own and ends it with itself.

    Raises
    ------
    InputError
        If the bundle holds no ONNX network, or another one than its SavedModel.
    NotInstalledError
        If ImageJ, Groovy, ONNX Runtime or Java is missing; the message holds the command that adds it.
    """

    options: PluginOptions

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        options: PluginOptions | None = None,
        *,
        imagej: ImageJ | None = None,
    ) -> None:
        self.bundle = Path(bundle).absolute()
        if not self.bundle.is_file():
            raise InputError(
                f"there is no zip at {str(self.bundle)!r}; give the one that was exported for Fiji"
            )
        if why := read_onnx(self.bundle).why_not:
            raise InputError(f"{self.bundle.name} cannot be run by ONNX Runtime: {why}")
        self.options = options or PluginOptions()
        self._owns_imagej = imagej is None
        self._imagej = imagej or ImageJ(onnx=True)

    @property
    def runtime(self) -> Runtime:
        versions = self._imagej.versions | {"onnxruntime": runtimes.artifacts("onnx")[0].version}
        return Runtime("imagej-onnx", versions, "onnx")

    def variant(self, *, normalize: bool, tiles: FijiTiles) -> ImageJOnnxPredictor:
        """The same bundle in the same ImageJ with other tiles, and with or without normalisation."""
        options = self.options.with_tiles(tiles, normalizeInput=normalize)
        return ImageJOnnxPredictor(self.bundle, options, imagej=self._imagej)

    def predict(self, image: Image) -> Image:
        """Restore an image; see `ImageJ.restore`."""
        given = {name: getattr(self.options, name) for name in _TAKEN}
        result = self._imagej.restore(
            scripts_folder() / SCRIPT, {"model": self.bundle, "engine": "onnx", **given}, image
        )
        sizes = dict(result.pixel_size_um)
        finer = factor_of(self.bundle) if kind_of(self.bundle) in UPSAMPLING_KINDS else None
        if finer and "Z" in sizes:
            sizes["Z"] /= finer
        return result.replace(
            has_widths=bool(read_meta(self.bundle).probabilistic),
            normalized=self.options.normalizeInput,
            pixel_size_um=sizes,
        )

    def close(self) -> None:
        """End ImageJ if it is this predictor's own."""
        if self._owns_imagej:
            self._imagej.close()
