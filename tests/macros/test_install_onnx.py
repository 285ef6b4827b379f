"""ONNX Runtime and models in a Fiji: put there, replaced, taken out; the zip for a person without Python."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from care_bridge import macros
from care_bridge.cli import app
from care_bridge.files import sha256
from care_bridge.java import runtimes

LIB = Path("lib", "CARE_bridge")


@pytest.fixture
def fiji(tmp_path: Path) -> Path:
    folder = tmp_path / "ein Fiji äöü" / "Fiji.app"
    for name in ("jars", "plugins"):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.fixture
def jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file instead of the 89 MB, as if it were fetched."""
    path = tmp_path / "onnxruntime-1.18.0.jar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ThirdPartyNotices.txt", "notices of others")
    monkeypatch.setattr(runtimes, "onnx_jar", lambda: path)
    monkeypatch.setattr(runtimes, "install", lambda *_args, **_settings: [path])
    return path


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["macros", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_the_runtime_comes_off_the_class_path_with_its_licences_and_goes_without_a_trace(
    fiji: Path, jar: Path
) -> None:
    run("install", fiji, "--engine", "onnx")
    there = fiji / LIB
    assert files(there) == [
        macros.INSTALLED_LIST,
        "onnxruntime-1.18.0-licence.txt",
        "onnxruntime-1.18.0-notices.txt",
        "onnxruntime-1.18.0.jar",
    ]
    assert (there / jar.name).read_bytes() == jar.read_bytes()
    assert (there / "onnxruntime-1.18.0-notices.txt").read_text() == "notices of others"
    assert "Copyright (c) Microsoft" in (there / "onnxruntime-1.18.0-licence.txt").read_text()
    assert files(fiji / "jars") == files(fiji / "plugins") == []
    old = there / "onnxruntime-1.17.0.jar"  # of an earlier care-bridge
    old.write_bytes(b"old")
    listed = json.loads((there / macros.INSTALLED_LIST).read_text())
    (there / macros.INSTALLED_LIST).write_text(json.dumps({**listed, old.name: sha256(old)}))
    run("install", fiji)  # without the engine it stays
    assert (there / jar.name).is_file()
    run("install", fiji, "--engine", "onnx")
    assert not old.exists()
    run("uninstall", fiji)
    assert files(fiji) == []
    assert not (fiji / "lib").exists()


def test_a_jar_that_somebody_put_there_is_left(fiji: Path, jar: Path) -> None:
    (fiji / LIB).mkdir(parents=True)
    (fiji / LIB / jar.name).write_bytes(b"of somebody")
    done = CliRunner().invoke(app, ["macros", "install", str(fiji), "--engine", "onnx"])
    assert done.exit_code == 2
    assert "is not ours" in done.stderr
    assert (fiji / LIB / jar.name).read_bytes() == b"of somebody"


@pytest.mark.usefixtures("jar")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["install", "{fiji}", "--engine", "tensorrt"], "--engine 'tensorrt' is not known; use one of onnx"),
        (["install", "{fiji}", "--models", "{fiji}"], "no bundle (.zip for Fiji) lies in this folder"),
        (["install", "{fiji}", "--models", "no such"], "no model at 'no such'"),
        (["bundle", "--out", "{fiji}"], "name a file that ends in .zip"),
    ],
)
def test_what_cannot_be_installed_is_one_line(fiji: Path, arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["macros", *(one.format(fiji=fiji) for one in arguments)])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert words in done.stderr
    assert files(fiji) == []


@pytest.mark.tf
@pytest.mark.usefixtures("jar")
def test_models_are_named_as_people_have_them(fiji: Path, tmp_path: Path) -> None:
    from care_bridge.config import CareConfig
    from care_bridge.export.savedmodel import write_bundle
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig(unet_n_first=4, unet_kern_size=3, unet_n_depth=1, probabilistic=True)
    save_model(tmp_path / "nuclei", config, build(config))
    (tmp_path / "shared").mkdir()
    write_bundle(tmp_path / "nuclei", tmp_path / "shared" / "mito.zip", how_to=False)
    with zipfile.ZipFile(tmp_path / "shared" / "something.zip", "w") as archive:
        archive.writestr("notes.txt", "no model")
    run("install", fiji, "--models", tmp_path / "nuclei", "--models", tmp_path / "shared")
    there = [name for name in files(fiji / "models" / "CARE_bridge") if name.endswith(".zip")]
    assert there == ["mito.zip", "mito_mean.zip", "nuclei.zip", "nuclei_mean.zip"]


@pytest.mark.java
@pytest.mark.tf
def test_the_zip_unpacked_into_a_fiji_is_all_that_it_needs(
    bundles, write_image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real ImageJ finds the real jar and the model by its name, where the zip has put them."""
    from tests.macros.conftest import _ready

    _ready("onnx")
    from care_bridge.java.imagej import ImageJ

    target = tmp_path / "care-bridge-fiji.zip"
    said = run("bundle", "--out", target, "--models", bundles.planes)
    assert "unpack it into the folder of a Fiji" in said
    first = target.read_bytes()
    macros.write_fiji_zip(target, [bundles.planes])
    assert target.read_bytes() == first
    monkeypatch.setattr(runtimes, "onnx_jar", lambda: "")  # no setting tells where it lies
    with ImageJ(onnx=True, timeout_s=120) as imagej, zipfile.ZipFile(target) as archive:
        archive.extractall(imagej._home)
        sentinel = tmp_path / "sentinel.json"
        for name in ("planes", "planes.zip", "planes - takes noise away", "none such"):
            result = imagej.run_script(
                imagej._home / "scripts" / "Plugins" / "CARE_bridge" / "Restore.groovy",
                {"model": name, "sentinel": sentinel, "output": tmp_path / "out" / "cell.tif"},
                image=write_image("cell.tif"),
            )
            ending = json.loads(sentinel.read_text())
            assert result.error == ""
            assert ending["status"] == ("failed" if name == "none such" else "done"), ending
        imagej.run_script(
            imagej._home / "scripts" / "Plugins" / "CARE_bridge" / "Restore.groovy",
            {"sentinel": sentinel},
            image=write_image("cell.tif"),
        )
        assert "no model was given; there are planes" in json.loads(sentinel.read_text())["message"]
