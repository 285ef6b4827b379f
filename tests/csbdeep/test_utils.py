"""csbdeep's small helpers, held against the installed csbdeep."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from care_bridge.csbdeep import utils
from care_bridge.csbdeep.utils.tf import limit_gpu_memory
from care_bridge.errors import InputError


@pytest.fixture(scope="module")
def theirs(oracle):
    import csbdeep.utils

    return csbdeep.utils


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).gamma(1, 200, (3, 20, 24)).astype(np.float32)


@pytest.mark.tf
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize(
    "options", [{}, {"axis": (1, 2)}, {"axis": 0, "clip": True}, {"pmin": 1, "pmax": 90, "eps": 0.5}]
)
def test_normalisation_is_csbdeeps(theirs, x, dtype, options) -> None:
    image = x.clip(0, 255).astype(dtype)
    expected, got = (module.normalize(image, **options) for module in (theirs, utils))
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.tf
def test_fits_axes_and_colours_are_csbdeeps(theirs, x) -> None:
    for module in (theirs, utils):
        assert module.axes_dict("ZYX")["X"] == 2
    np.testing.assert_allclose(
        utils.normalize_minmse(x[0], x[1]), theirs.normalize_minmse(x[0], x[1]), rtol=1e-4
    )
    np.testing.assert_array_equal(
        utils.move_image_axes(x, "CYX", "YXC"), theirs.move_image_axes(x, "CYX", "YXC")
    )
    for shape, fr, to in (((1, 5, 6), "TYX", "YX"), ((5, 6), "YX", "TZCYX")):
        image = x[0].ravel()[: np.prod(shape)].reshape(shape)
        np.testing.assert_array_equal(
            utils.move_image_axes(image, fr, to, True), theirs.move_image_axes(image, fr, to, True)
        )
    np.testing.assert_allclose(utils.to_color(x), theirs.to_color(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError):
        utils.move_image_axes(x, "CYX", "YX")
    assert utils.axes_check_and_normalize("yx", return_allowed=True) == ("YX", "STCZYX")
    with pytest.raises(InputError, match="hold S"):
        utils.axes_check_and_normalize("SYX", disallowed="S")


def test_sparse_images_are_not_blown_up() -> None:
    sparse = np.zeros((100, 100), np.float32)
    sparse[0, :3] = 5
    with pytest.warns(UserWarning, match="maximum"):
        assert utils.normalize(sparse).max() == 1
    assert utils.normalize(sparse, axis=(0, 1)).max() == 1


def test_pictures_are_drawn(monkeypatch, x) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    history = SimpleNamespace(epoch=[0, 1], history={"loss": [2, 1], "val_loss": [3, 2]})
    plt.figure()
    utils.plot_history(history, ["loss", "val_loss"], "loss", logy=True)  # csbdeep fails on logy
    assert [panel.get_yscale() for panel in plt.gcf().axes] == ["log", "log"]
    assert len(plt.gcf().axes[0].lines) == 2
    plt.figure()
    utils.plot_some(x, [x, x, x], title_list=[["a", "b", "c"]], pmin=1, pmax=99)
    assert len(plt.gcf().axes) == 6
    assert plt.gcf().axes[0].get_title() == "a"
    plt.close("all")


def test_json_comes_back(tmp_path: Path) -> None:
    utils.save_json({"a": [1, 2]}, tmp_path / "a.json")
    assert utils.load_json(tmp_path / "a.json") == {"a": [1, 2]}


def test_a_zip_is_unpacked_once_and_only_into_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data/low/a.tif", b"1")
    utils.download_and_extract_zip_file(str(tmp_path / "a.zip"), tmp_path / "out")
    file = tmp_path / "out" / "data" / "low" / "a.tif"
    file.write_bytes(b"changed")
    utils.download_and_extract_zip_file((tmp_path / "a.zip").as_uri(), tmp_path / "out")
    assert file.read_bytes() == b"changed"
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("../outside.tif", b"1")
    with pytest.raises(InputError, match="points outside of the zip"):
        utils.download_and_extract_zip_file(str(tmp_path / "b.zip"), tmp_path / "out")
    with pytest.raises(InputError, match="cannot be fetched"):
        utils.download_and_extract_zip_file(str(tmp_path / "none.zip"), tmp_path / "out")


@pytest.mark.tf
def test_gpu_memory_is_limited_where_there_is_one() -> None:
    limit_gpu_memory(0.5, total_memory=8000)
    with pytest.raises(InputError, match="between 0 and 1"):
        limit_gpu_memory(2)
