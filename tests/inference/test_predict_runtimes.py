"""`care-bridge predict` in ONNX Runtime and in TensorFlow 1.x gives what it gives in Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import CareConfig
from care_bridge.images import Image, read_image, write_image

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

KINDS: dict[str, dict[str, Any]] = {
    "2-D": {"unet_n_depth": 1, "unet_kern_size": 3},
    "3-D": {"axes": "ZYX", "unet_n_depth": 1},
    "probabilistic": {"unet_n_depth": 1, "unet_kern_size": 3, "probabilistic": True, "norm_pmin": 5},
    "projection": {
        "axes": "ZYX",
        "kind": "ProjectionCARE",
        "unet_n_depth": 1,
        "proj_n_depth": 1,
        "proj_n_filt": 2,
    },
    "isotropic": {"kind": "IsotropicCARE", "unet_n_depth": 1, "unet_kern_size": 3, "factor": 2.0},
    "upsampling": {"kind": "UpsamplingCARE", "axes": "ZYX", "unet_n_depth": 1, "factor": 2.0},
}
RUNTIMES = {
    "onnx": ("onnx",),
    "tf1 1.12.0": ("tf1", "--tensorflow", "1.12.0"),
    "tf1 1.15.0": ("tf1",),
}

run = CliRunner().invoke


class Folders(dict[str, Path]):
    """For each kind a model folder with its bundle and ONNX file, and an image; made when first asked for."""

    def __init__(self, parent: Path) -> None:
        super().__init__()
        self.parent = parent

    def __missing__(self, kind: str) -> Path:
        from care_bridge.export.onnx import write_onnx
        from care_bridge.export.savedmodel import write_bundle
        from care_bridge.training.folder import save_model
        from care_bridge.training.unet import build

        folder = self[kind] = self.parent / kind
        config = CareConfig(**KINDS[kind], unet_n_first=4, seed=1)
        model = save_model(folder / "model", config, build(config))
        write_bundle(model, folder / "model" / "fiji.zip", how_to=False)
        write_onnx(model, folder / "model" / "model.onnx")
        shape = (20, 27) if kind in ("2-D", "probabilistic") else (5, 20, 27)
        pixels = np.random.default_rng(2).integers(100, 4000, shape).astype(np.uint16)
        write_image(folder / "in.tif", Image(pixels, "ZYX"[-len(shape) :], {"Y": 0.1, "X": 0.1}))
        return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("runtimes"))


def restore(folder: Path, out: str, *options: str) -> list[np.ndarray]:
    arguments = [
        "predict",
        str(folder / "model"),
        str(folder / "in.tif"),
        "--out",
        str(folder / out),
        "--quiet",
    ]
    result = run(app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert result.output == ""
    return [read_image(file).data for file in sorted((folder / out).iterdir())]


def largest_difference(ours: list[np.ndarray], theirs: list[np.ndarray], folder: Path) -> list[float]:
    """For each image, in the normalised range of the input."""
    assert [image.shape for image in ours] == [image.shape for image in theirs]
    low, high = np.percentile(read_image(folder / "in.tif").data, (2, 99.8))
    return [float(np.abs(a - b).max() / (high - low)) for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.java
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_runtime_restores_as_keras_does(folders: Folders, kind: str, runtime: str) -> None:
    folder = folders[kind]
    scales = ("--scale",) * (kind == "probabilistic")
    twice = ("--applications", "2") * (kind != "projection")
    expected = restore(folder, "keras", *twice, *scales)
    received = restore(folder, runtime, *twice, *scales, "--runtime", *RUNTIMES[runtime])
    differences = largest_difference(received, expected, folder)
    assert len(differences) == (1 if kind == "projection" else 2) * (1 + len(scales))
    # in the order of names: the first application, then the second
    once = differences[: (len(differences) + 1) // 2]
    assert max(once) <= 1e-5
    assert max(differences) <= 5e-5


@pytest.mark.java
def test_a_bundle_alone_is_measured_and_restores_the_same(folders: Folders) -> None:
    folder = folders["2-D"]
    options = ("--quiet", "--n-tiles", "1,2", "--out", str(folder / "alone"), "--runtime", "tf1")
    result = run(app, ["predict", str(folder / "model" / "fiji.zip"), str(folder / "in.tif"), *options])
    assert result.exit_code == 0, result.output
    received = [read_image(folder / "alone" / "in.tif").data]
    assert largest_difference(received, restore(folder, "keras once"), folder)[0] <= 1e-5


@pytest.fixture
def plugin_options(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a Fiji would be asked for; none is started, since few machines have one."""
    from care_bridge import opening

    asked: list[Any] = []

    def stop(_model: Path, *, runtime: str, options: Any, **_more: Any) -> None:
        asked.append((runtime, options))
        raise opening.InputError("asked")

    monkeypatch.setattr(opening, "open_predictor", stop)
    return asked


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), {}),
        (("--rule", "fiji"), {}),
        (("--rule", "none"), {"normalizeInput": False}),
        (("--norm-pmin", "1", "--n-tiles", "4"), {"percentileBottom": 1.0, "nTiles": 4}),
    ],
)
def test_fiji_is_asked_with_the_plugins_own_rule(
    model_folder: Path,
    image: Path,
    plugin_options: list[Any],
    options: tuple[str, ...],
    wanted: dict[str, Any],
) -> None:
    from care_bridge.plugin.options import PluginOptions

    out = str(image.parent / "out")
    result = run(app, ["predict", str(model_folder), str(image), "--out", out, "--runtime", "fiji", *options])
    assert result.output == "care-bridge: asked\n"
    # The lower percentile is the model's own, not the plugin's 3.
    assert plugin_options == [("fiji", PluginOptions(**{"percentileBottom": 2.0} | wanted))]


def test_fiji_is_not_asked_for_what_upsamples_before_its_network(
    folders: Folders, plugin_options: list[Any], tmp_path: Path
) -> None:
    folder = folders["upsampling"]
    for model in (folder / "model", folder / "model" / "fiji.zip"):
        command = ["predict", str(model), str(folder / "in.tif"), "--out", str(tmp_path / "out")]
        result = run(app, [*command, "--runtime", "fiji"])
        assert result.exit_code == 2
        assert result.output.endswith(
            "is of kind UpsamplingCARE, which upsamples stacks before the network sees them, "
            "and 'Run your network' does not; use --runtime keras or imagej-onnx\n"
        )
    assert plugin_options == []


@pytest.mark.parametrize("more", [(), ("--factor", "3")])
def test_fiji_is_asked_for_an_isotropic_model(
    folders: Folders, plugin_options: list[Any], tmp_path: Path, more: tuple[str, ...]
) -> None:
    folder = folders["isotropic"]
    command = [
        "predict",
        str(folder / "model"),
        str(folder / "in.tif"),
        "--out",
        str(tmp_path / "out"),
        *more,
    ]
    assert run(app, [*command, "--runtime", "fiji"]).output == "care-bridge: asked\n"
    assert len(plugin_options) == 1


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_image(tmp_path / "in.tif", Image(np.zeros((8, 8), np.uint16), "YX"))
    return tmp_path / "in.tif"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("fiji",), "no Fiji is named"),
        (("fiji", "--rule", "csbdeep"), "not by --rule csbdeep; leave --rule out"),
        (("fiji", "--n-tiles", "1,2"), "takes one number"),
        (("fiji", "--norm-undo"), "--norm-undo is not for --runtime fiji"),
        (("fiji", "--factor", "2"), "--factor is not for --runtime fiji"),
        (("onnx",), "has 0 .onnx files; name one, or write one: care-bridge export"),
        (("onnx", "--precision", "bfloat16"), "--precision is for --runtime keras"),
        (("tf1",), "--format fiji --out"),
        (("tf1", "--model-weights", "weights_last.h5"), "--model-weights is for --runtime keras"),
    ],
)
def test_wrong_use_of_a_runtime_is_one_line_and_exit_code_2(
    model_folder: Path,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.delenv("CARE_BRIDGE_FIJI", raising=False)
    out = image.parent / "out"
    result = run(app, ["predict", str(model_folder), str(image), "--out", str(out), "--runtime", *options])
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert result.output.count("\n") == 1
    assert not out.exists()


@pytest.mark.java
def test_a_version_that_does_not_exist_and_a_kind_without_its_folder_are_one_line(
    folders: Folders, tmp_path: Path
) -> None:
    folder = folders["2-D"]
    command = ["predict", str(folder / "model" / "fiji.zip"), str(folder / "in.tif"), "--out", str(tmp_path)]
    for options, sentence in (
        (("--tensorflow", "2.0"), "use one of 1.12.0"),
        (("--factor", "2"), "name its folder, not"),
    ):
        result = run(app, [*command, "--runtime", "tf1", *options])
        assert result.exit_code == 2, result.output
        assert sentence in result.output
        assert result.output.count("\n") == 1
