"""`care-bridge doctor --try`: a level that is there really opens a bundle, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from care_bridge import levels, trial
from care_bridge.bundle import read_bundle
from care_bridge.cli import app
from care_bridge.errors import WorkerError
from care_bridge.images import Image
from care_bridge.plugin.emulation import PluginFailure
from care_bridge.predictor import Closable, Runtime


class Toy(Closable):
    """A predictor that answers with what it is told."""

    runtime = Runtime("toy", {}, "emulation")

    def __init__(self, answer):
        self.answer, self.closed = answer, False

    def predict(self, image: Image) -> Image:
        return self.answer(image)

    def close(self) -> None:
        self.closed = True


def test_the_bundle_for_trying_is_read_as_what_it_is(tmp_path: Path) -> None:
    (graph,) = read_bundle(trial.write_doubling_bundle(tmp_path / "b.zip")).graphs
    assert (graph.tags, graph.ops, graph.producer) == (("serve",), ("Add", "Placeholder"), 27)
    signature = graph.signatures["serving_default"]
    assert signature.inputs[0].shape == signature.outputs[0].shape == (None, None, None, 1)


@pytest.mark.tf
def test_the_bundle_is_opened_by_tensorflow_2() -> None:
    assert trial.try_level("emulation").level == "emulation"


@pytest.mark.java
@pytest.mark.parametrize("version", ["1.12.0", "1.15.0"])
def test_the_bundle_is_opened_by_tensorflow_1(version: str) -> None:
    runtime = trial.try_level("tf1", version=version)
    assert (runtime.level, runtime.versions["tensorflow"]) == ("tf1", version)


@pytest.mark.java
@pytest.mark.parametrize("level", ["imagej", "onnx"])
def test_the_bundle_is_opened_in_imagej(level: str) -> None:
    assert trial.try_level(level).level == level


def fails(_image: Image) -> Image:
    raise PluginFailure("java.lang.NoSuchMethodError: makeExtensionsImmutable")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (fails, "does not run a bundle of two nodes: .*makeExtensionsImmutable"),
        (lambda image: Image(image.data * np.float32(3), "YX"), "other pixels than the bundle's"),
        (lambda image: Image(image.data.T * np.float32(2), "XY"), "axes XY"),
    ],
    ids=["fails", "other pixels", "other axes"],
)
def test_a_level_that_starts_and_does_not_run_the_bundle_is_told(monkeypatch, answer, words) -> None:
    toy = Toy(answer)
    monkeypatch.setattr(trial, "open_predictor", lambda *_, **__: toy)
    monkeypatch.setattr(trial, "choose_level", lambda level, **_: level)
    with pytest.raises(WorkerError, match=words):
        trial.try_level("fiji")
    assert toy.closed


def test_doctor_ends_with_1_where_a_level_that_is_there_does_not_run(monkeypatch) -> None:
    monkeypatch.setattr(levels, "why_not", lambda level, **_: "" if level == "tf1" else "not here")
    monkeypatch.setattr(trial, "open_predictor", lambda *_, **__: Toy(fails))
    result = CliRunner().invoke(app, ["doctor", "--try"])
    assert result.exit_code == 1
    assert "tf1         DOES NOT RUN: it does not run a bundle of two nodes" in result.stderr
    monkeypatch.setattr(
        trial, "open_predictor", lambda *_, **__: Toy(lambda image: Image(image.data * np.float32(2), "YX"))
    )
    result = CliRunner().invoke(app, ["doctor", "--try"])
    assert (result.exit_code, "tf1         runs: toy" in result.stderr) == (0, True)
