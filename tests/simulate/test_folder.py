from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.errors import InputError
from care_bridge.images import Image, read_image, write_image
from care_bridge.simulate import folder as module
from care_bridge.simulate.folder import find_images, write_pairs
from care_bridge.simulate.recipe import Recipe, load_recipe


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments), "--quiet"])


def test_a_data_set_holds_pairs_recipe_manifest_and_sheet(clean_folder: Path, tmp_path: Path) -> None:
    summary = write_pairs("mito", [clean_folder], out=tmp_path / "out")
    out = summary.folder
    assert (summary.pairs, summary.made) == (12, 12)
    assert list(summary.snr_db.values()) == sorted(summary.snr_db.values(), reverse=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "contact_sheet.png",
        "manifest.csv",
        "psf",
        "recipe.yaml",
        "source",
        "target",
    ]
    names = [path.name for path in sorted((out / "source").iterdir())]
    assert names == [path.name for path in sorted((out / "target").iterdir())]
    assert load_recipe(out / "recipe.yaml") == load_recipe("mito")
    table = rows(out)
    assert [row["name"] + ".tif" for row in table] == [
        f"cell{k}_{each}.tif" for k in range(4) for each in ("mild", "medium", "strong")
    ]
    first = table[0]
    assert first["image"] == "cell0"
    assert len(first["image_sha256"]) == 64
    assert float(first["minimum.radius_um"]) == pytest.approx(0.1)
    assert 100 <= float(first["poisson.photons"]) <= 200
    source = read_image(out / "source" / "cell0_mild.tif")
    assert source.dtype == np.uint16
    assert source.pixel_size_um == pytest.approx({"Y": 0.1, "X": 0.1})
    assert read_image(out / "target" / "cell0_mild.tif").shape == source.shape
    kernel = read_image(out / "psf" / "strong.tif")
    assert kernel.pixel_size_um == pytest.approx({"Y": 0.1, "X": 0.1})
    assert kernel.data.sum() == pytest.approx(1, abs=1e-6)


def test_isotropic_data_keep_their_factor_and_kernel(clean_folder: Path, tmp_path: Path) -> None:
    out = write_pairs("isotropic", [clean_folder], out=tmp_path / "out").folder
    assert {row["subsample.factor"] for row in rows(out)} == {"4.0"}
    along_y, along_x = (read_image(out / "psf" / f"along-{axis}.tif").data for axis in "yx")
    np.testing.assert_array_equal(along_y, along_x.T)


def test_the_number_of_processes_changes_nothing(clean_folder: Path, tmp_path: Path) -> None:
    write_pairs("mito", [clean_folder], out=tmp_path / "one")
    write_pairs("mito", [clean_folder], out=tmp_path / "two", jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("file_format", ["tiff", "zarr"])
def test_an_interrupted_run_continues_exactly(
    file_format: Any, clean_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs("mito", [clean_folder], out=tmp_path / "whole", file_format=file_format)
    made: list[str] = []
    real = module._make_item

    def failing(recipe: Recipe, item: Any, *rest: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(item.name)
        return real(recipe, item, *rest)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(module, "_make_item", failing)
        with pytest.raises(KeyboardInterrupt):
            write_pairs("mito", [clean_folder], out=out, file_format=file_format)
    # As a crash would leave it: the last line cut short.
    log = out / "unfinished.jsonl"
    log.write_text(log.read_text() + '{"name": "cell3_mi')
    with pytest.raises(InputError, match=r"holds an unfinished run .* --resume"):
        write_pairs("mito", [clean_folder], out=out, file_format=file_format)
    with pytest.raises(InputError, match="a run with another recipe or seed;"):
        write_pairs("mito", [clean_folder], out=out, seed=5, file_format=file_format, resume=True)
    with pytest.raises(InputError, match="a run with another format;"):
        write_pairs("mito", [clean_folder], out=out, file_format="npz", resume=True)
    with pytest.raises(InputError, match="a run with other images;"):
        write_pairs("mito", [clean_folder / "cell1.tif"], out=out, file_format=file_format, resume=True)
    summary = write_pairs("mito", [clean_folder], out=out, file_format=file_format, resume=True)
    assert (summary.pairs, summary.made) == (12, 6)
    assert contents(out) == contents(tmp_path / "whole")
    with pytest.raises(InputError, match="a finished run; there is nothing to resume"):
        write_pairs("mito", [clean_folder], out=out, file_format=file_format, resume=True)


def test_npz_has_csbdeeps_layout_and_zarr_the_same_values(clean_folder: Path, tmp_path: Path) -> None:
    import zarr

    write_pairs("mito", [clean_folder], out=tmp_path / "n", file_format="npz")
    write_pairs("mito", [clean_folder], out=tmp_path / "z", file_format="zarr")
    with np.load(tmp_path / "n" / "pairs.npz") as file:
        assert sorted(file.files) == ["X", "Y", "axes"]
        assert str(file["axes"]) == "SCYX"
        assert file["X"].shape == file["Y"].shape == (12, 1, 64, 64)
        assert file["X"].dtype == np.float32
        for name, key in (("source", "X"), ("target", "Y")):
            array: Any = zarr.open_array(store=str(tmp_path / "z" / "pairs.zarr" / name), mode="r")
            assert array.attrs["axes"] == "SCYX"
            np.testing.assert_array_equal(array[:], file[key])


@pytest.mark.tf
def test_csbdeep_opens_the_npz(clean_folder: Path, tmp_path: Path) -> None:
    csbdeep_io = pytest.importorskip("csbdeep.io")
    write_pairs("mito", [clean_folder], out=tmp_path / "n", file_format="npz")
    (source, target), _, axes = csbdeep_io.load_training_data(str(tmp_path / "n" / "pairs.npz"))
    assert axes == "SYXC"
    assert source.shape == target.shape == (12, 64, 64, 1)


def test_synthetic_samples_need_no_images(tmp_path: Path) -> None:
    done = run("tubules", "--count", 2, "--seed", 3, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert "2 pairs in" in done.output
    assert [row["name"] for row in rows(tmp_path / "out")] == ["tubules_0000_noisy", "tubules_0001_noisy"]
    assert rows(tmp_path / "out")[0]["seed"] == "3"


def test_a_recipe_file_and_its_options(clean_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\n[[sets]]\nname = "a"\n[[sets.steps]]\nstep = "poisson"\nphotons = 30\n')
    done = run("--recipe", file, clean_folder, "--pixel-size", 0.2, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = read_image(tmp_path / "out" / "source" / "cell0_a.tif")
    assert found.pixel_size_um == pytest.approx({"Y": 0.2, "X": 0.2})
    assert "pixel_size_um:\n    Y: 0.2" in (tmp_path / "out" / "recipe.yaml").read_text()


def test_recipes_can_be_listed_and_shown() -> None:
    assert "mito " in run("--list").output
    shown = run("mito", "--show", "--seed", 9)
    assert "seed: 9" in shown.output
    assert "pinhole_au: 1.0" in shown.output


def made(folder: Path, name: str, image: Image) -> Path:
    write_image(folder / name, image)
    return folder / name


@pytest.fixture
def bad(tmp_path: Path, clean_folder: Path, clean_image: Callable[..., Image]) -> dict[str, Any]:
    """Arguments of `simulate` that cannot work, by name."""
    folder, out = tmp_path / "bad", tmp_path / "out"
    clean = clean_image()
    holes = clean.data.astype(np.float32)
    holes[0, 0] = np.nan
    half = made(folder, "half.tif", clean)
    half.write_bytes(half.read_bytes()[:3000])
    furlongs = folder / "furlongs.tif"
    tifffile.imwrite(furlongs, clean.data, imagej=True, resolution=(10, 10), metadata={"unit": "furlong"})
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    misspelt = tmp_path / "misspelt.yaml"
    misspelt.write_text("name: r\nsets:\n  - {name: a, steps: [{step: poisson, photon: 3}]}\n")
    stack = made(folder, "stack.tif", clean_image(shape=(3, 64, 64)))
    small = made(folder, "small.tif", clean_image(shape=(32, 32)))
    cell = clean_folder / "cell0.tif"
    return {
        "no recipe": ([], "name a recipe"),
        "no out": (["mito", cell], "--out DIR"),
        "unknown recipe": (["mitto", cell, "--out", out], "did you mean 'mito'"),
        "misspelt key": (["--recipe", misspelt, cell, "--out", out], "did you mean 'photons'"),
        "no images": (["mito", "--out", out], "name some files or folders"),
        "image not there": (["mito", tmp_path / "none.tif", "--out", out], "is not there"),
        "empty folder": (["mito", tmp_path / "empty", "--out", out], "holds no .tif"),
        "images for a synthetic recipe": (["tubules", cell, "--out", out], "draws its samples itself"),
        "count for images": (["mito", cell, "--count", 3, "--out", out], "--count is for"),
        "channel for a synthetic recipe": (["tubules", "--channel", 1, "--out", out], "--channel is for"),
        "nan": (["mito", made(folder, "nan.tif", clean.replace(data=holes)), "--out", out], "holds NaN"),
        "cut short": (["mito", half, "--out", out], "half.tif"),
        "mixed axes": (["mito", cell, stack, "--out", out], "different axes"),
        "mixed shapes": (["mito", cell, small, "--format", "npz", "--out", out], "different shapes"),
        "unknown format": (["mito", cell, "--format", "png", "--out", out], "one of tiff, npz, zarr"),
        "no pixel size": (
            ["mito", made(folder, "bare.tif", clean.replace(pixel_size_um={})), "--out", out],
            "pixel size along Y is not known",
        ),
        "unknown unit": (["mito", furlongs, "--out", out], "pixel size along Y is not known"),
        "coarse pixels": (["mito", cell, "--pixel-size", 1, "--out", out], "too coarse"),
        "negative pixel size": (["mito", cell, "--pixel-size", -1, "--out", out], "must be above 0 um"),
        "folder of somebody": (["mito", cell, "--out", tmp_path / "full"], "holds files already"),
        "nothing to resume": (["mito", cell, "--resume", "--out", tmp_path / "full"], "holds no run"),
        "out is a file": (["mito", cell, "--out", misspelt], "misspelt.yaml"),
        "two of one name": (
            ["mito", cell, made(folder, "cell0.tif", clean), "--out", out],
            "several images are called 'cell0'",
        ),
    }


BAD = (
    "no recipe",
    "no out",
    "unknown recipe",
    "misspelt key",
    "no images",
    "image not there",
    "empty folder",
    "images for a synthetic recipe",
    "count for images",
    "channel for a synthetic recipe",
    "nan",
    "cut short",
    "mixed axes",
    "mixed shapes",
    "unknown format",
    "no pixel size",
    "unknown unit",
    "coarse pixels",
    "negative pixel size",
    "folder of somebody",
    "nothing to resume",
    "out is a file",
    "two of one name",
)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(name: str, bad: dict[str, Any], tmp_path: Path) -> None:
    arguments, message = bad[name]
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_every_bad_input_is_in_the_list(bad: dict[str, Any]) -> None:
    assert sorted(bad) == sorted(BAD)


def test_all_bad_images_are_named_at_once(clean_folder: Path, clean_image: Any, tmp_path: Path) -> None:
    burnt = clean_image().data.copy()
    burnt[:20] = 65535
    write_image(clean_folder / "burnt.tif", clean_image().replace(data=burnt))
    (clean_folder / "broken.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError) as caught:
        write_pairs("mito", [clean_folder], out=tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "broken.tif" in lines[0]
    assert "burnt.tif' has 31.25% saturated pixels" in lines[1]


def test_images_of_a_folder_come_in_the_order_of_their_names(clean_folder: Path) -> None:
    assert [path.name for path in find_images([clean_folder])] == [f"cell{k}.tif" for k in range(4)]


def test_the_share_that_was_clipped_is_said_and_pairs_are_counted_rightly(
    clean_folder: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "dim.yaml"
    recipe.write_text(
        "name: bright\nclean: {kind: images}\nprepare: [{step: contrast, pmin: 0.1, pmax: 99.9}]\n"
        "sets:\n  - name: bright\n    steps: [{step: gaussian, sigma: 0.5}, {step: round, dtype: uint8}]\n"
    )
    done = run("--recipe", recipe, clean_folder / "cell0.tif", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("1 pair in ")
    (row,) = rows(tmp_path / "out")
    (share,) = (float(value) for key, value in row.items() if key.endswith(".clipped"))
    assert 0.05 < share < 0.9
    assert f"dB, {100 * share:.3g} % of the pixels clipped" in done.stdout
    summary = write_pairs("photons", [clean_folder], out=tmp_path / "floats")
    assert summary.clipped == {}
