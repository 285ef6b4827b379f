"""`predict` of volumes by the command, with Keras and ONNX: the same bits as in memory with the same tiles."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import CareConfig
from care_bridge.images import Image, read_image, write_image

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def command(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def volume_model(tmp_path_factory):
    """A folder with a small 3-D model, first weights."""
    import keras

    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    folder = tmp_path_factory.mktemp("volumes") / "model"
    config = CareConfig(axes="ZYX", unet_n_first=4, unet_n_depth=2, unet_kern_size=3)
    keras.utils.set_random_seed(0)
    save_model(folder, config, build(config))
    return folder


@pytest.fixture
def volume(tmp_path):
    data = np.random.default_rng(0).gamma(2.0, 300.0, (2, 21, 50, 43)).astype(np.uint16)
    image = Image(data, "TZYX", {"Z": 0.5, "Y": 0.1, "X": 0.1}, frame_interval_s=2.0)
    write_image(tmp_path / "in.tif", image)
    write_image(tmp_path / "in.ome.zarr", image, ome_zarr="0.4")
    return image


@pytest.mark.parametrize("runtime", ["keras", "onnx"])
def test_the_command_gives_the_bits_of_memory(volume_model, volume, tmp_path, runtime):
    model = volume_model
    if runtime == "onnx":
        command("export", volume_model, "--format", "onnx", "--out", tmp_path / "model.onnx")
        model = tmp_path / "model.onnx"
    tiles = ["--n-tiles", "1,2,2,2", "--runtime", runtime, "--quiet"]
    command("predict", model, tmp_path / "in.tif", "--out", tmp_path / "memory", *tiles)
    command("predict", model, tmp_path / "in.ome.zarr", "--out", tmp_path / "out.ome.zarr", *tiles)
    command("predict", model, tmp_path / "in.tif", "--out", tmp_path / "out.ome.tif", "--resume", *tiles)
    expected = read_image(tmp_path / "memory" / "in.tif")
    for name in ("out.ome.zarr", "out.ome.tif"):
        found = read_image(tmp_path / name)
        assert np.array_equal(found.data, expected.data)
        assert (found.axes, found.frame_interval_s) == (expected.axes, 2.0)
        assert found.pixel_size_um == pytest.approx(expected.pixel_size_um)
    assert np.abs(expected.data - volume.data).max() > 1  # something was restored


def test_a_volume_larger_than_memory_goes_piece_by_piece_by_itself(
    volume_model, volume, tmp_path, monkeypatch
):
    monkeypatch.setattr("care_bridge.inference.large.free_bytes", lambda: 1 << 20)
    seen = []
    from care_bridge.inference import files

    original = files.predict_volume
    monkeypatch.setattr(
        files, "predict_volume", lambda *args, **more: seen.append(1) or original(*args, **more)
    )
    said = command("predict", volume_model, tmp_path / "in.tif", "--out", tmp_path / "out")
    assert seen == [1]
    assert "in.tif: float32, imagej-tiff" in said
    assert read_image(tmp_path / "out" / "in.tif").shape == volume.shape


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "in.ome.zarr"], "would replace"),
        (["--out", "out.ome.zarr", "--ome-zarr", "0.6"], "--ome-zarr"),
        (
            ["--out", "out.ome.zarr", "--resume", "--applications", "2"],
            "--applications needs in.ome.zarr in memory",
        ),
        (["--out", "out.ome.zarr", "--dtype", "uint8", "--rule", "fiji"], "stay normalised"),
    ],
)
def test_what_cannot_be_is_one_line(volume_model, volume, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    output = command("predict", volume_model, "in.ome.zarr", *words, code=2)
    assert said in output
    assert len(output.strip().splitlines()) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.ome.zarr", "in.tif"]


def test_several_images_and_the_name_of_one_result_are_refused(volume_model, volume, tmp_path):
    both = [tmp_path / "in.tif", tmp_path / "in.ome.zarr"]
    said = command("predict", volume_model, *both, "--out", tmp_path / "a.ome.zarr", code=2)
    assert "names one image, and there are 2" in said
