from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from care_bridge.errors import InputError
from care_bridge.simulate.recipe import builtin_recipes, dump_recipe, load_recipe, parse_recipe

STEPS = "name: r\nsets:\n  - name: a\n    steps:\n"


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_recipe_of_the_package_printed_in_full_reads_back_the_same(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    assert parse_recipe(dump_recipe(recipe), name="again.yaml") == recipe


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    yaml, toml = tmp_path / "r.yaml", tmp_path / "r.toml"
    yaml.write_text(STEPS + "      - {step: poisson, photons: [20, 50]}\n")
    toml.write_text(
        'name = "r"\n[[sets]]\nname = "a"\n[[sets.steps]]\nstep = "poisson"\nphotons = [20, 50]\n'
    )
    assert load_recipe(yaml) == load_recipe(toml)


def test_the_presets_have_three_sets_with_shifted_intervals() -> None:
    for name in ("mito", "cardio", "semisynthetic"):
        recipe = load_recipe(name)
        assert len(recipe.sets) == 3
        rows = [{step.step: step for step in each.steps} for each in recipe.sets]
        for first, second in itertools.pairwise(rows):
            assert first["poisson"].photons > second["poisson"].photons
            assert first["gaussian"].sigma < second["gaussian"].sigma
            assert first["gaussian"].intensity < second["gaussian"].intensity
            assert first["intensity"].factor > second["intensity"].factor
        assert list(rows[0]) == ["psf", "poisson", "gaussian", "intensity", "round"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STEPS + "      - {step: poisson, photns: 3}", r"photns: unknown key; did you mean 'photons'\?"),
        ("nam: r\nsets: []", r"nam: unknown key; did you mean 'name'\?"),
        (STEPS + "      - {step: poison}", "sets.0.steps.0: .*poison"),
        (STEPS + "      - {step: poisson, photons: 0}", "must be above 0; received 0"),
        (STEPS + "      - {step: gaussian, sigma: [3, 1]}", r"an interval is \[low, high\]; received \[3"),
        (STEPS + "      - {step: gaussian, sigma: .nan}", "finite number"),
        (STEPS + "      - {step: gaussian, sigma: wide}", "sigma"),
        (STEPS + "      - {step: subsample, factor: 11}", "less than or equal to 10"),
        (
            STEPS + "      - {step: round, dtype: uint8, offset: 255}",
            "below 255, the largest uint8; received 255",
        ),
        (STEPS + "      - {step: minimum}", "give either radius_px or radius_um"),
        (STEPS + "      - {step: psf}", "give one of optics, measured and beads"),
        (STEPS + "      - {step: thin, fraction: 2}", "fraction is at most 1"),
        (
            STEPS + "      - {step: psf, optics: {na: 1.5, immersion_index: 1.33, emission_nm: 600}}",
            "na=1.5 is not below immersion_index=1.33",
        ),
        (STEPS + "      - {step: psf, optics: {na: 1.2, immersion_index: 1.33, emission_nm: 0.6}}", "100"),
        ("name: r\nsets:\n- {name: a, steps: []}", "at least 1"),
        ("name: r\nclean: {kind: worms}\nsets: []", "worms"),
        ("name: r\nclean: {kind: tubules, shape: [5]}\nsets: []", "shape is"),
        ("- a\n- b", "must hold keys and values"),
        ("name: [", "cannot be read"),
    ],
)
def test_a_wrong_recipe_says_where_and_what_would_do(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_recipe(text, name="r.yaml")
    assert "r.yaml" in str(caught.value)
    assert "function-after" not in str(caught.value)


def test_all_problems_of_a_recipe_are_said_at_once() -> None:
    text = STEPS + "      - {step: poisson, photns: 3}\n      - {step: gaussian, sigma: -1}\n"
    with pytest.raises(InputError) as caught:
        parse_recipe(text, name="r.yaml")
    assert len(str(caught.value).splitlines()) == 2


def test_steps_in_another_order_than_a_microscopes_are_said() -> None:
    # Paper 000: convolution, Poisson, Gaussian, then the intensity.
    right = "name: r\nsets:\n- {name: a, steps: [{step: poisson}, {step: fibre}, {step: gaussian}, {step: round}]}"
    assert parse_recipe(right, name="r.yaml").out_of_order() == []
    wrong = right.replace("[{step: poisson}", "[{step: gaussian}, {step: poisson}")
    (said,) = parse_recipe(wrong, name="r.yaml").out_of_order()
    assert said.startswith("set 'a' has gaussian before poisson")
    assert not any(load_recipe(name).out_of_order() for name in builtin_recipes())


def test_two_sets_of_one_name_are_refused() -> None:
    one = "  - {name: a, steps: [{step: poisson}]}\n"
    with pytest.raises(InputError, match="sets need different names"):
        parse_recipe("name: r\nsets:\n" + one + one, name="r.yaml")


def test_recipes_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean 'mito'\?"):
        load_recipe("mto")
    with pytest.raises(InputError, match="is not there"):
        load_recipe(tmp_path / "none.yaml")
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load_recipe(binary)
