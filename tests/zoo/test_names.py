"""Names of models that come with the package, where a path is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

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
