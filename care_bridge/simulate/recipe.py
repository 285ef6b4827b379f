"""Recipes: what training data are made of, as small closed YAML or TOML files."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.simulate import isotropic, structures
from care_bridge.simulate.steps import (
    AxialBlur,
    Closed,
    FibreBundle,
    NotNegative,
    Positive,
    Share,
    Step,
    draw,
)
from care_bridge.text import MOST_YAML_BYTES, parse

ORDER = ("psf", "poisson", "gaussian", "intensity", "round")
"""Of the steps that degrade, as the semi-synthetic CARE paper has it."""

PixelSize = dict[Literal["Z", "Y", "X"], Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class CleanImages(Closed):
    """Clean images are given, as files or arrays.

    Attributes
    ----------
    pixel_size_um : mapping, optional
        Overrides what the files say; None believes them.
    channel : int, optional
        Which channel to take; None takes all.
    saturated_share, negative_share : float
        Largest share of pixels at the type's largest value, and below 0, that a clean image may have.
    """

    kind: Literal["images"] = "images"
    pixel_size_um: PixelSize | None = None
    channel: int | None = Field(default=None, ge=0)
    saturated_share: float = Field(default=0.01, ge=0, le=1)
    negative_share: float = Field(default=0.0, ge=0, le=1)


class _Drawn(Closed):
    # Every sample has its name in memory before the first is drawn.
    images: int = Field(default=16, ge=1, le=1_000_000)
    shape: tuple[int, ...] = (256, 256)
    pixel_size_um: PixelSize = Field(default={"Z": 0.1, "Y": 0.05, "X": 0.05})
    channels: int = Field(default=1, ge=1, le=8)
    shared: float = Field(default=0.5, ge=0, le=1)

    @field_validator("shape")
    @classmethod
    def _two_or_three(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) not in (2, 3) or min(value) < 1:
            raise ValueError(f"shape is [y, x] or [z, y, x] in pixels; received {list(value)}")
        return value

    def _image(self, data: structures.Image32, index: int, kind: str) -> Image:
        axes = "ZYX"[3 - len(self.shape) :]
        sizes: Mapping[str, float] = {axis: size for axis, size in self.pixel_size_um.items() if axis in axes}
        return Image(data, axes=("C" if data.ndim > len(axes) else "") + axes, pixel_size_um=sizes,
                     name=f"{kind}_{index:04d}")  # fmt: skip


class Tubules(_Drawn):
    """Microtubule-like curves; `structures.tubules`. `count: null` draws as many as fit the area."""

    kind: Literal["tubules"] = "tubules"
    count: int | None = Field(default=None, ge=1)
    persistence_px: Positive = (50.0, 200.0)
    width_px: float = Field(default=0.6, gt=0)

    def make(self, index: int, rng: np.random.Generator) -> Image:
        data = structures.tubules(
            self.shape,
            seed=rng,
            count=self.count,
            persistence_px=draw(self.persistence_px, rng),
            width_px=self.width_px,
            channels=self.channels,
            shared=self.shared,
        )
        return self._image(data, index, self.kind)


class Granules(_Drawn):
    """Point-like vesicles; `structures.granules`. `density` is granules per 100 pixels."""

    kind: Literal["granules"] = "granules"
    density: Positive = (0.5, 4.0)
    sigma_px: Positive = (0.7, 1.2)
    cluster_share: float = Field(default=0.2, ge=0, le=1)

    def make(self, index: int, rng: np.random.Generator) -> Image:
        data = structures.granules(
            self.shape,
            seed=rng,
            density=draw(self.density, rng),
            sigma_px=self.sigma_px,
            cluster_share=self.cluster_share,
            channels=self.channels,
            shared=self.shared,
        )
        return self._image(data, index, self.kind)


class Nuclei(_Drawn):
    """Textured ellipsoids; `structures.nuclei`. `count: null` fills about a fifth of the volume."""

    kind: Literal["nuclei"] = "nuclei"
    count: int | None = Field(default=None, ge=1)
    radius_px: Positive = (8.0, 14.0)

    def make(self, index: int, rng: np.random.Generator) -> Image:
        sizes = self.pixel_size_um
        data = structures.nuclei(
            self.shape,
            seed=rng,
            count=self.count,
            radius_px=self.radius_px,
            voxel_aspect=sizes["Z"] / sizes["X"] if "Z" in sizes and "X" in sizes else 1.0,
            channels=self.channels,
            shared=self.shared,
        )
        return self._image(data, index, self.kind)


class Sarcomeres(_Drawn):
    """Z-discs of heart muscle; `structures.sarcomeres`."""

    kind: Literal["sarcomeres"] = "sarcomeres"
    period_px: Positive = (16.0, 24.0)
    fibril_px: Positive = (8.0, 12.0)
    width_px: float = Field(default=1.0, gt=0)

    def make(self, index: int, rng: np.random.Generator) -> Image:
        data = structures.sarcomeres(
            self.shape,
            seed=rng,
            period_px=draw(self.period_px, rng),
            fibril_px=draw(self.fibril_px, rng),
            width_px=self.width_px,
            channels=self.channels,
            shared=self.shared,
        )
        return self._image(data, index, self.kind)


Clean = Annotated[CleanImages | Tubules | Granules | Nuclei | Sarcomeres, Field(discriminator="kind")]
Drawn = Annotated[Tubules | Granules | Nuclei | Sarcomeres, Field(discriminator="kind")]


def _at_most_1(value: tuple[float, float]) -> tuple[float, float]:
    if value[1] > 1:
        raise ValueError(f"only makes images smaller, so it is at most 1; received {value[1]:g}")
    return value


class Views(Closed):
    """How patches are seen while a network trains on a stream of them: each a new view of a clean image.

    Attributes
    ----------
    zoom : interval
        Factor by which the clean image is made smaller, by averages over areas; below 1 gives sharper structures. A
        small image bounds it.
    plane_step : int
        At most so many planes of a clean stack lie from one plane of a patch to the next, 1 to it alike: stacks of other
        microscopes have coarser steps along Z. A stack of few planes bounds it.
    gamma : interval
        Power of the clean image on its scale of 0 to 1.
    level : interval
        Light everywhere, as a share of the white level.
    blur_px, blur_share
        Standard deviation of a blur of the clean image itself, and how many patches have one.
    inverted_share : float
        Share of the patches that are shown dark on bright, as in transmitted light.
    turns : bool
        Flip and turn.
    choose : str
        `area`: each place of the clean images alike; `image`: each image alike.
    places : int
        Of so many random places the one with most contrast is taken; 1 takes any.
    drawn : sequence of structures
        Samples to draw once, beside the clean images or without any.
    drawn_share : float
        Share of the patches that shows them where there are clean images.
    drawn_blur_px : interval
        Standard deviation of the blur of each drawn sample.
    validation : int
        Patches that validate.
    """

    zoom: Annotated[Positive, AfterValidator(_at_most_1)] = (0.3, 1.0)
    plane_step: int = Field(default=1, ge=1, le=16)
    gamma: Positive = (0.7, 1.4)
    level: NotNegative = (0.0, 0.3)
    blur_px: NotNegative = (0.3, 1.2)
    blur_share: Share = 0.25
    inverted_share: Share = 0.0
    turns: bool = True
    choose: Literal["area", "image"] = "image"
    places: int = Field(default=2, ge=1, le=16)
    drawn: tuple[Drawn, ...] = ()
    drawn_share: Share = 0.25
    drawn_blur_px: NotNegative = (0.6, 2.5)
    validation: int = Field(default=96, ge=1, le=4096)


class Set(Closed):
    """One way of degrading: a name and steps, in the order in which they are applied."""

    name: str
    steps: tuple[Step, ...] = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _in_file_names(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9-]+", value):
            raise ValueError(
                f"a set's name becomes part of file names: letters, digits and -; received {value!r}"
            )
        return value


class Recipe(Closed):
    """Everything that decides what pairs come out, beside the clean images themselves.

    Attributes
    ----------
    name : str
    about : str
        A sentence for people.
    clean : CleanImages or a structure
        Where targets come from.
    prepare : sequence of steps
        Done once to every clean image; the result is the target.
    sets : sequence of Set
        Every clean image goes through each: N images and three sets give 3 N pairs.
    seed : int
    stream : Views, optional
        How `care-bridge train --simulate` sees the clean images; None where the recipe is for whole images only.
    """

    name: str = Field(min_length=1)
    about: str = ""
    clean: Clean = CleanImages()
    prepare: tuple[Step, ...] = ()
    sets: tuple[Set, ...] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    stream: Views | None = None

    @model_validator(mode="after")
    def _different_names(self) -> Recipe:
        names = [each.name for each in self.sets]
        if len(set(names)) < len(names):
            raise ValueError(f"sets need different names; received {', '.join(names)}")
        return self

    def out_of_order(self) -> list[str]:
        """Where steps do not come in the order in which a microscope does them, a sentence a set.

        Returns
        -------
        list of str
            Of sets in which a later of `ORDER` stands before an earlier one; other steps do not count.
        """
        said = []
        for each in self.sets:
            known = [step.step for step in each.steps if step.step in ORDER]
            wrong = [
                f"{first} before {second}"
                for first, second in itertools.pairwise(known)
                if ORDER.index(first) > ORDER.index(second)
            ]
            if wrong:
                said.append(
                    f"set {each.name!r} has {' and '.join(wrong)}; light is blurred, counted and read out in the order "
                    f"{', '.join(ORDER)}, and another one gives another noise"
                )
        return said

    def expected(self) -> list[str]:
        """What is to be expected of restoring stacks along Z by this recipe.

        Returns
        -------
        list of str
            One sentence for each microscope that its `axial_psf` steps play; see `isotropic.expectation`.
        """
        steps = [step for each in self.sets for step in each.steps if isinstance(step, AxialBlur)]
        kinds = {(step.optics, step.beads): step for step in steps}
        return list(dict.fromkeys(isotropic.expectation(step.haze()) for step in kinds.values()))

    @property
    def synthetic(self) -> bool:
        """Whether targets are drawn rather than read."""
        return not isinstance(self.clean, CleanImages)


def builtin_recipes() -> list[str]:
    """Names of the recipes that come with the package.

    Returns
    -------
    list of str
        Sorted; what `load_recipe` takes.
    """
    folder = resources.files("care_bridge.simulate") / "recipes"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load_recipe(recipe: Recipe | str | os.PathLike[str]) -> Recipe:
    """A recipe by its name, or from a YAML or TOML file.

    Parameters
    ----------
    recipe : Recipe, or str or path
        A recipe is given back as it is; a text is a name of `builtin_recipes` or the path of a file.

    Returns
    -------
    Recipe

    Raises
    ------
    InputError
        If there is no such recipe or file, or it holds unknown keys or impossible values; every problem a
        line.
    """
    if isinstance(recipe, Recipe):
        return recipe
    text = os.fspath(recipe)
    if text in builtin_recipes():
        file = resources.files("care_bridge.simulate") / "recipes" / f"{text}.yaml"
        return parse_recipe(file.read_text(encoding="utf-8"), name=f"{text}.yaml")
    path = Path(text)
    if path.suffix.lower() not in (".yaml", ".yml", ".toml"):
        near = difflib.get_close_matches(text, builtin_recipes(), 1)
        raise InputError(
            f"recipe {text!r} is not known{f'; did you mean {near[0]!r}?' if near else ''} (there are "
            f"{', '.join(builtin_recipes())}; or name a .yaml or .toml file)"
        )
    if not path.is_file():
        raise InputError(f"recipe file {text!r} is not there")
    try:
        if path.stat().st_size > MOST_YAML_BYTES:
            raise InputError(
                f"recipe file {text!r} has {path.stat().st_size:,} bytes; recipes have some hundred"
            )
        return parse_recipe(path.read_text(encoding="utf-8-sig"), name=text)
    except UnicodeDecodeError:
        raise InputError(f"recipe file {text!r} is not UTF-8 text") from None


def parse_recipe(text: str, *, name: str) -> Recipe:
    """A recipe from the text of a file; `name` ends in .yaml, .yml or .toml and is said in errors."""
    values = parse(text, "TOML" if name.lower().endswith(".toml") else "YAML", name=f"recipe {name!r}")
    if not isinstance(values, dict):
        raise InputError(f"recipe {name!r} must hold keys and values such as 'name: mito'")
    # Keys that start with "x-" are for YAML anchors only.
    values = {key: value for key, value in values.items() if not str(key).startswith("x-")}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError(f"recipe {name!r}: " + "\n".join(_problems(error))) from None


def with_bundle(
    recipe: Recipe, like: str | os.PathLike[str], flat: str | os.PathLike[str] | None = None
) -> Recipe:
    """A recipe whose fibre bundle is a person's own; `cores.measure_bundle`.

    Parameters
    ----------
    recipe : Recipe
        With one or more steps `fibre`; what is measured is no longer drawn, what is not (crosstalk, light of the
        cladding) stays as the recipe has it.
    like, flat : path
        Images through the bundle.

    Raises
    ------
    InputError
        If the recipe has no step `fibre`.
    """
    image, even = os.fspath(like), None if flat is None else os.fspath(flat)

    def own(step: Step) -> Step:
        if not isinstance(step, FibreBundle):
            return step
        return FibreBundle(
            like=image, flat=even, crosstalk=step.crosstalk, cladding=step.cladding, target=step.target
        )

    sets = tuple(
        each.model_copy(update={"steps": tuple(own(step) for step in each.steps)}) for each in recipe.sets
    )
    if not any(isinstance(step, FibreBundle) for each in recipe.sets for step in each.steps):
        raise InputError(
            f"--like is for recipes that look through a fibre bundle; {recipe.name!r} has no step `fibre`, take the "
            "recipe fibre"
        )
    return recipe.model_copy(update={"sets": sets})


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML that `parse_recipe` reads back."""
    import yaml

    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    return text


def _problems(error: ValidationError) -> list[str]:
    """A line a problem: where it is, what is wrong, what came."""
    problems = error.errors()
    places = [problem["loc"] for problem in problems]
    lines: dict[str, list[str]] = {}
    for problem in problems:
        # A list with a bad entry is also called too short: say the entry only.
        inner = any(place[: len(problem["loc"])] == problem["loc"] != place for place in places)
        if problem["type"] == "too_short" and inner:
            continue
        # pydantic also names the functions and alternatives that it went through; people know only keys.
        keys = [str(part) for part in problem["loc"] if not re.search(r"[\[(]", str(part))]
        where = ".".join(keys) or "recipe"
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(keys[-1], _all_keys(), 1)
            lines.setdefault(where, []).append(f"unknown key{f'; did you mean {near[0]!r}?' if near else ''}")
            continue
        if problem["type"] == "union_tag_invalid":
            came, known = problem["ctx"]["tag"], problem["ctx"]["expected_tags"].replace("'", "")
            near = difflib.get_close_matches(came, known.split(", "), 1)
            lines.setdefault(where, []).append(
                f"{came!r} is not known{f'; did you mean {near[0]!r}?' if near else f'; there are {known}'}"
            )
            continue
        message = problem["msg"].removeprefix("Value error, ")
        shown = repr(problem["input"])
        received = "" if "received" in message or len(shown) > 60 else f"; received {shown}"
        lines.setdefault(where, []).append(message + received)
    return [f"{where}: {'; or '.join(dict.fromkeys(each))}" for where, each in lines.items()]


def _all_keys() -> set[str]:
    keys: set[str] = set()

    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            keys.update(schema.get("properties", {}))
            for value in schema.values():
                walk(value)
        elif isinstance(schema, list):
            for value in schema:
                walk(value)

    walk(Recipe.model_json_schema())
    return keys
