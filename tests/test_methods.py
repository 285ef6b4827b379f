"""Which method is advised for what a person has, and that the line to type is one that this version takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter1d
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.config import Method
from care_bridge.errors import InputError
from care_bridge.images import Image, write_image
from care_bridge.methods import MethodAdvice, advise_method


def clean(seed: int) -> Any:
    """Smooth structure of 1,000 grey levels."""
    image = gaussian_filter(np.random.default_rng(seed).random((160, 144)), 4)
    return 200 + 1000 * (image - image.min()) / np.ptp(image)


def noise(seed: int, *, along: int = 1) -> Any:
    white = np.random.default_rng([seed, 1]).normal(0, 60, (160, 144))
    return uniform_filter1d(white, along, axis=1) * np.sqrt(along)


def folder(place: Path, images: list[Any], first: int = 0) -> Path:
    place.mkdir(parents=True)
    for number, image in enumerate(images):
        write_image(place / f"{first + number}.tif", Image(np.asarray(image, np.float32), "YX"))
    return place


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    truths = [clean(seed) for seed in range(6)]
    return {
        "noisy": folder(tmp_path / "noisy", [one + noise(n) for n, one in enumerate(truths)]),
        "rows": folder(tmp_path / "rows", [one + noise(n, along=3) for n, one in enumerate(truths)]),
        "clean": folder(tmp_path / "clean", truths),
        "others": folder(tmp_path / "others", [clean(seed) for seed in range(20, 26)]),
        "elsewhere": folder(tmp_path / "elsewhere", [clean(seed) for seed in range(20, 26)], first=100),
    }


@pytest.mark.parametrize(
    ("noisy", "clean", "have", "method", "typed"),
    [
        ("noisy", "clean", "pairs", "care", "train NOISY CLEAN --out MODEL"),
        ("rows", "clean", "pairs", "care", "train NOISY CLEAN --out MODEL"),
        ("noisy", None, "noisy", "n2v", "train NOISY --method n2v --out MODEL"),
        ("rows", None, "noisy", "n2v", "train NOISY --method n2v --out MODEL --struct-mask 1,9"),
        ("clean", None, "clean", "care", "simulate semisynthetic NOISY --out pairs"),
        ("noisy", "others", "unpaired", "n2v", "train NOISY --method n2v --out MODEL"),
        ("noisy", "elsewhere", "unpaired", "n2v", "train NOISY --method n2v --out MODEL"),
    ],
)
def test_what_a_person_has_decides(
    noisy: str, clean: str | None, have: str, method: str, typed: str, sets: dict[str, Path]
) -> None:
    found = advise_method(sets[noisy], None if clean is None else sets[clean])
    assert (found.have, found.method) == (have, method)
    wanted = typed.replace("NOISY", str(sets[noisy])).replace("CLEAN", str(sets.get(clean or "")))
    assert found.commands[0] == f"care-bridge {wanted}"
    assert found.reasons


def test_shared_noise_and_no_pairs_go_to_a_method_that_this_version_has(sets: dict[str, Path]) -> None:
    found = advise_method(sets["rows"], sets["others"])
    assert found.have == "unpaired"
    assert found.method in get_args(Method)
    assert found.method != "n2v"
    assert "other places" in found.reasons[0]
    assert str(sets["others"]) in found.commands[0]


def test_each_line_to_type_is_one_that_the_command_line_takes(sets: dict[str, Path]) -> None:
    def options_of(words: list[str]) -> set[str]:
        said = CliRunner().invoke(app, [words[1], "--help"]).output
        return {word for word in words if word.startswith("--") and word not in said}

    cases = [("noisy", "clean"), ("rows", None), ("clean", None), ("rows", "others")]
    for here, there in cases:
        for line in advise_method(sets[here], sets[there] if there else None).commands:
            words = shlex.split(line)
            assert words[0] == "care-bridge"
            assert not options_of(words), line


def test_what_no_method_mends_is_noted(tmp_path: Path) -> None:
    bright = [np.minimum(clean(seed) + noise(seed), 900) for seed in range(2)]
    found = advise_method(folder(tmp_path / "bright", bright))
    assert any("cut off at the largest value" in note for note in found.cautions)
    offsets = np.random.default_rng(0).normal(0, 60, (160, 1))
    striped = advise_method(folder(tmp_path / "striped", [clean(0) + noise(0) + offsets]))
    assert any("rows or columns are offset" in note for note in striped.cautions)
    pair = advise_method(
        folder(tmp_path / "one", [clean(0) + noise(0)]), folder(tmp_path / "truth", [clean(0)], first=7)
    )
    assert pair.have == "pairs"  # one image a side belongs together whatever it is called
    assert any(note.startswith("1 pair is few") for note in pair.cautions)


def test_the_command_prints_what_the_function_finds(sets: dict[str, Path], tmp_path: Path) -> None:
    runner = CliRunner()
    said = runner.invoke(app, ["advise-method", str(sets["noisy"])])
    assert said.exit_code == 0, said.output
    assert said.output.startswith("method: n2v")
    told = runner.invoke(app, ["advise-method", str(sets["noisy"]), str(sets["clean"]), "--json"])
    found = json.loads(told.output)
    assert found == json.loads(json.dumps(advise_method(sets["noisy"], sets["clean"]).as_dict()))
    assert set(found) == set(MethodAdvice.__dataclass_fields__)
    wrong = runner.invoke(app, ["advise-method", str(tmp_path / "nowhere")])
    assert wrong.exit_code == 2
    with pytest.raises(InputError, match="no noisy images"):
        advise_method(tmp_path / "nowhere")
