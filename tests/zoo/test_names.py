"""Names of models that come with the package, where a path is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.errors import InputError
from care_bridge.model_names import model_path, named_models

NAME = "tiny-denoise-2d"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo without a model beside nothing of ours."""
    monkeypatch.setattr("care_bridge.model_names._HERE", tmp_path / "nowhere")
    monkeypatch.delenv("CARE_BRIDGE_ZOO", raising=False)
    return tmp_path


@pytest.mark.tf
def test_a_name_is_the_folder_of_its_model(zoo: Path) -> None:
    assert model_path(NAME) == zoo
    assert model_path(Path(NAME)) == zoo


@pytest.mark.tf
def test_what_lies_here_wins_over_a_name_and_it_is_said(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    with pytest.warns(UserWarning, match="what lies here is used"):
        assert model_path(NAME) == Path(NAME)


@pytest.mark.tf
def test_two_models_of_one_name_are_refused(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(zoo, tmp_path / "other" / NAME.upper())
    monkeypatch.setenv("CARE_BRIDGE_ZOO", f"{zoo.parent}:{tmp_path / 'other'}")
    with pytest.raises(InputError, match="two models are called 'tiny-denoise-2d'"):
        named_models()


@pytest.mark.tf
def test_two_models_of_one_title_are_refused(zoo: Path) -> None:
    from care_bridge.zoo import models

    shutil.copytree(zoo, zoo.with_name("other"))
    with pytest.raises(InputError, match="have one title, 'CARE denoising of blobs"):
        models()


@pytest.mark.tf
def test_a_name_that_is_almost_one_is_told_the_right_one(zoo: Path) -> None:
    with pytest.raises(InputError, match="did you mean tiny-denoise-2d"):
        model_path("tiny-denoize-2d")
    with pytest.raises(InputError, match="did you mean tiny-denoise-2d"):
        model_path("denoise")


def test_paths_are_left_alone(empty: Path) -> None:
    for path in ("models/mito", "cell.zip", "nowhere", ".", "/"):
        assert model_path(path) == Path(path)


def test_a_zoo_that_is_no_folder_is_said(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARE_BRIDGE_ZOO", str(empty / "none"))
    with pytest.raises(InputError, match="CARE_BRIDGE_ZOO names"):
        named_models()


@pytest.mark.parametrize("command", [["list"], ["build", "--out", "built"], ["check"]])
def test_an_empty_zoo_is_said(empty: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(empty)
    done = CliRunner().invoke(app, ["zoo", *command])
    assert done.exit_code == 0
    assert "no model is shipped yet" in done.stdout
    assert list(empty.iterdir()) == []


def test_a_name_of_nothing_is_refused_by_show(empty: Path) -> None:
    done = CliRunner().invoke(app, ["zoo", "show", "nothing"])
    assert done.exit_code == 2
    assert "no model is shipped yet" in done.stderr


@pytest.mark.tf
def test_list_and_show_say_what_a_model_is_for(zoo: Path) -> None:
    done = CliRunner().invoke(app, ["zoo", "list"])
    assert f"{NAME}  2D  white       White noise on images of blobs." in done.stdout
    shown = CliRunner().invoke(app, ["zoo", "show", NAME]).stdout
    assert "Images whose noise is shared" in shown
    assert "The care_bridge authors" in shown
    assert "not for intensity-based quantification" in shown


@pytest.mark.tf
def test_a_name_predicts_and_is_opened_in_python(zoo: Path, made: Path, tmp_path: Path) -> None:
    from care_bridge.opening import open_network

    image = made / "tests" / "cell1_noisy.tif"
    done = CliRunner().invoke(app, ["predict", NAME, str(image), "--out", str(tmp_path / "restored")])
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "restored").rglob("*.tif"))) == 1
    assert open_network(NAME).output_shape[-1] == 1


@pytest.mark.tf
def test_an_export_of_a_name_is_not_written_among_the_files_of_the_package(zoo: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", NAME])
    assert done.exit_code == 2
    assert "--out" in done.stderr
    assert not list(zoo.glob("*.zip"))
    done = CliRunner().invoke(app, ["export", NAME, "--out", str(tmp_path / "fiji.zip")])
    assert done.exit_code == 0, done.output


# ---- what is built where a bundle or an ONNX file is needed


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test alone."""
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in arguments])
    return done.exit_code, done.output


@pytest.mark.tf
def test_a_name_is_its_bundle_and_its_onnx_file_built_once_in_the_cache(
    zoo: Path, made: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import care_bridge.built

    write, written = care_bridge.built._write, []
    monkeypatch.setattr(care_bridge.built, "_write", lambda *a: (written.append(a[1].name), write(*a)))
    image = made / "tests" / "cell1_noisy.tif"
    for runtime in ("keras", "onnx", "onnx"):
        code, said = run("predict", NAME, image, "--runtime", runtime, "--out", tmp_path / runtime)
        assert code == 0, said
    given = {runtime: next((tmp_path / runtime).rglob("*.tif")) for runtime in ("keras", "onnx")}
    from care_bridge.images import read_image

    # Of the same weights in float32, on grey levels of some tens.
    np.testing.assert_allclose(*(read_image(file).data for file in given.values()), atol=1e-3)
    code, said = run("compare", NAME, NAME, image, "--level", "emulation")
    assert code == 0, said
    code, said = run("check", NAME)
    assert f"{NAME}.zip" in said
    code, said = run("macros", "for", NAME)
    assert code == 0, said
    assert f"{NAME}.zip" in said
    assert written == [f"{NAME}.onnx", f"{NAME}.zip"]
    assert sorted(file.suffix for file in cache.rglob(f"{NAME}.*")) == [".onnx", ".zip"]
    assert not [*zoo.glob("*.zip"), *zoo.glob("*.onnx")]


@pytest.mark.tf
def test_a_model_that_changed_is_built_again(zoo: Path, cache: Path) -> None:
    from care_bridge.built import built

    first = built(zoo, "onnx")
    assert built(zoo, "onnx") == first
    (zoo / "weights_best.h5").write_bytes((zoo / "weights_best.h5").read_bytes() + b"\0")
    second = built(zoo, "onnx")
    assert second != first
    assert built(zoo, "keras") is None
    assert built(zoo.parent, "onnx") is None
    (zoo / "own.onnx").write_bytes(b"")
    assert built(zoo, "onnx") is None  # what lies in the folder is meant


@pytest.mark.tf
def test_macros_are_run_with_the_bundle_of_a_name(
    zoo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, str] = {}

    def take(name: str, settings: dict[str, str], **_: object) -> None:
        given.update(settings)
        raise InputError("seen")

    monkeypatch.setattr("care_bridge.macros.run", take)
    assert "seen" in run("macros", "run", "restore_image", f"model={NAME}", "input=a.tif")[1]
    assert Path(given["model"]).is_relative_to(cache)
    assert Path(given["model"]).name == f"{NAME}.zip"
    code, said = run("macros", "run", "restore_image", "model=tiny-denoize-2d")
    assert (code, "did you mean tiny-denoise-2d?" in said) == (2, True)


@pytest.mark.tf
def test_one_model_is_installed_into_a_fiji_by_its_name(zoo: Path, tmp_path: Path) -> None:
    fiji = tmp_path / "Fiji.app"
    for folder in ("jars", "plugins"):
        (fiji / folder).mkdir(parents=True)
    code, said = run("macros", "install", fiji, "--models", "tiny-denoize-2d")
    assert (code, "did you mean tiny-denoise-2d?" in said) == (2, True)
    assert not (fiji / "macros").exists()
    code, said = run("macros", "install", fiji, "--models", NAME)
    assert code == 0, said
    assert [file.name for file in fiji.glob("models/**/*.zip")] == [f"{NAME}.zip"]


@pytest.mark.tf
@pytest.mark.parametrize(
    "words",
    [
        "predict MODEL IMAGE --out OUT",
        "predict MODEL IMAGE --out OUT --runtime onnx",
        "evaluate MODEL IMAGE IMAGE",
        "compare MODEL MODEL IMAGE",
        "check MODEL",
        "export MODEL --out OUT",
        "advise MODEL IMAGE",
        "macros for MODEL",
        "cross-eval --model MODEL --data a=b,c --out OUT",
        "restore IMAGE --model MODEL --out OUT",
        "train IMAGE IMAGE --start MODEL --out OUT --epochs 1 --steps 1",
    ],
)
def test_a_name_that_is_no_model_is_told_the_nearest_by_every_command(
    zoo: Path, made: Path, tmp_path: Path, words: str
) -> None:
    shutil.copytree(zoo, zoo.with_name("tiny-denoise-3d"))
    card = zoo.with_name("tiny-denoise-3d") / "model.toml"
    card.write_text(card.read_text(encoding="utf-8").replace("of blobs", "of stacks"), encoding="utf-8")
    places = {
        "MODEL": "tiny-denoise",
        "IMAGE": str(made / "tests" / "cell1_noisy.tif"),
        "OUT": tmp_path / "o",
    }
    code, said = run(*(places.get(word, word) for word in words.split()))
    assert code == 2
    assert "no model of the zoo is called so (did you mean tiny-denoise-2d or tiny-denoise-3d?)" in said
