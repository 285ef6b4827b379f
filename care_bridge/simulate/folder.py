"""A data set on disk: pairs, the whole recipe, a manifest of every drawn value, and a sheet for the eye.

::

    OUT/
      recipe.yaml         everything that decided the pairs, defaults included
      source/ target/     NAME_SET.tif, equal names (or pairs.npz, or pairs.zarr)
      manifest.csv        a row a pair: names, set, seed, SHA-256 of the clean image, every drawn value, SNR
      psf/SET.tif         point spread functions that blurred, on the first image's pixels
      contact_sheet.png   some targets beside their sources
      unfinished.jsonl    only while a run is not finished: what is done, for --resume
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from care_bridge.axes import SPACE
from care_bridge.cluster import Cluster, computing
from care_bridge.errors import InputError
from care_bridge.files import atomic_file, sha256, writable_folder, write_text
from care_bridge.images import Image, is_zarr, list_images, read_image, write_image
from care_bridge.pools import pool
from care_bridge.progress import Progress, silent
from care_bridge.simulate.dataset import check_clean, draw_clean, make_sets, stem
from care_bridge.simulate.pair import Pair
from care_bridge.simulate.recipe import CleanImages, Recipe, dump_recipe, load_recipe
from care_bridge.simulate.steps import AxialBlur, Blur, Surface

Format = Literal["tiff", "npz", "zarr"]
FORMATS: tuple[Format, ...] = ("tiff", "npz", "zarr")

RECIPE, MANIFEST, SHEET, UNFINISHED = "recipe.yaml", "manifest.csv", "contact_sheet.png", "unfinished.jsonl"
_FIRST_COLUMNS = ("name", "image", "set", "seed", "image_sha256", "snr_db")
_SHEET_IMAGES = 6


@dataclass(frozen=True)
class Summary:
    """What a run made.

    Attributes
    ----------
    folder : Path
    pairs : int
        In the folder now.
    made : int
        By this run; fewer when it continued another.
    snr_db : mapping of str to float
        Median signal-to-noise ratio of each set.
    clipped : mapping of str to float
        Mean share of the source's pixels that were clipped, 0-1, of each set that rounds to whole grey levels.
    """

    folder: Path
    pairs: int
    made: int
    snr_db: dict[str, float]
    clipped: dict[str, float]


def find_images(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """TIFF files, given as files or folders, in the order of their names; refuses what is not there or empty."""
    found: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir() and not is_zarr(path):
            inside = list_images(path)
            if not inside:
                raise InputError(f"folder {str(path)!r} holds no .tif, .tiff or .zarr image")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"image {str(path)!r} is not there")
    names = Counter(stem(path.name) for path in found)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise InputError(
            f"several images are called {twice[0]!r}; results are named after them, so rename one"
        )
    return found


def write_pairs(
    recipe: Recipe | str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]] = (),
    *,
    out: str | os.PathLike[str],
    seed: int | None = None,
    file_format: Format = "tiff",
    jobs: int = 1,
    cluster: Cluster | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Summary:
    """Make a whole data set.

    Parameters
    ----------
    recipe : Recipe, or str or path
    images : sequence of path
        Clean TIFF files or folders of them; none for recipes that draw their samples.
    out : path
        Folder for the result; empty or new unless `resume`.
    seed : int, optional
        Instead of the recipe's.
    file_format : str
        `tiff`: two folders of files of equal names; `npz`: one file in csbdeep's layout (arrays X and Y, axes
        "SC" and those of the images); `zarr`: the same arrays, a pair a chunk.
    jobs : int
        Processes. The result does not depend on it.
    cluster : Cluster, optional
        Whose workers make the pairs, an image a task, instead of processes here; the result does not depend on it.
    resume : bool
        Continue an interrupted run of the same recipe, images, seed and format.
    progress : Progress

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        If an image cannot be used (all of them are looked at before anything is written; a line each), axes
        differ, `out` holds something else, or `resume` meets another recipe, image, seed or format.
    """
    recipe = load_recipe(recipe)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    if file_format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}; received {file_format!r}")
    if jobs < 1:
        raise InputError(f"jobs must be at least 1; received {jobs}")
    items = _items(recipe, images, file_format, progress)
    # What one image cannot do, none can: a missing pixel size should not leave a folder behind.
    for pair in _pairs_of(recipe, items[0]):
        if file_format != "tiff" and pair.source.axes != pair.target.axes:
            raise InputError(
                f"set {pair.set!r} makes sources of axes {pair.source.axes} and targets of {pair.target.axes}, for which "
                f"{file_format} has no room; write tiff"
            )
    folder = Path(out)
    done = _begin(folder, recipe, items, file_format, resume=resume)
    if file_format == "npz":
        done = {}  # one file, written at the end: nothing of it can be kept
    todo = [item for item in items if any(name not in done for name in item.names(recipe))]
    rows = dict(done)
    order = [name for item in items for name in item.names(recipe)]
    arrays: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    total, finished = len(items), len(items) - len(todo)
    progress(finished, total, "degrading")
    with open(folder / UNFINISHED, "a", encoding="utf-8", newline="\n") as log:
        for result in _work(recipe, todo, folder, file_format, jobs, cluster):
            for row, pixels in result:
                rows[row["name"]] = row
                if pixels is not None and file_format == "zarr":
                    place = order.index(row["name"])
                    _write_zarr(folder / "pairs.zarr", place, len(order), pixels, row["axes"])
                elif pixels is not None:
                    arrays[row["name"]] = pixels
                log.write(json.dumps(row) + "\n")
            log.flush()
            finished += 1
            progress(finished, total, "degrading")
    order = [name for item in items for name in item.names(recipe)]
    ordered = [rows[name] for name in order]
    if file_format == "npz":
        _write_npz(folder / "pairs.npz", [arrays[name] for name in order], ordered[0]["axes"])
    _write_manifest(folder / MANIFEST, ordered)
    _write_kernels(folder, recipe, items[0])
    _write_sheet(folder, recipe, items)
    (folder / UNFINISHED).unlink()
    snr = {
        each.name: float(np.median([row["snr_db"] for row in ordered if row["set"] == each.name]))
        for each in recipe.sets
    }
    clipped = {
        each.name: float(np.mean(shares)) for each in recipe.sets if (shares := _clipped(ordered, each.name))
    }
    return Summary(folder, len(ordered), len(todo) * len(recipe.sets), snr, clipped)


def _clipped(rows: Sequence[Mapping[str, Any]], of: str) -> list[float]:
    """For each pair of a set, the share of pixels that its steps clipped, where they say; a pixel counts a step."""
    found = []
    for row in rows:
        shares = [float(value) for key, value in row.items() if key.endswith((".clipped", ".overexposed"))]
        if row["set"] == of and shares:
            found.append(min(1.0, sum(shares)))
    return found


@dataclass(frozen=True)
class _Item:
    """One clean image: a file, or the number of a sample to draw."""

    name: str
    index: int
    path: str | None
    sha256: str
    axes: str
    shape: tuple[int, ...]

    def names(self, recipe: Recipe) -> list[str]:
        return [f"{self.name}_{each.name}" for each in recipe.sets]


def _items(
    recipe: Recipe, images: Sequence[str | os.PathLike[str]], file_format: Format, progress: Progress
) -> list[_Item]:
    if not isinstance(recipe.clean, CleanImages):
        if images:
            raise InputError(f"recipe {recipe.name!r} draws its samples itself; leave the images out")
        axes = ("C" if recipe.clean.channels > 1 else "") + "ZYX"[3 - len(recipe.clean.shape) :]
        shape = ((recipe.clean.channels,) if recipe.clean.channels > 1 else ()) + recipe.clean.shape
        kind = recipe.clean.kind
        return [_Item(f"{kind}_{k:04d}", k, None, "", axes, shape) for k in range(recipe.clean.images)]
    if not images:
        raise InputError(f"recipe {recipe.name!r} degrades clean images; name some files or folders")
    paths = find_images(images)
    items, problems = [], []
    for index, path in enumerate(paths):
        progress(index, len(paths), "checking images")
        try:
            image, _ = check_clean(recipe, read_image(path))
        except InputError as error:
            problems.append(str(error))
            continue
        items.append(_Item(stem(path.name), index, str(path), sha256(path), image.axes, image.shape))
    progress(len(paths), len(paths), "checking images")
    if problems:
        raise InputError("\n".join(problems))
    for item in items[1:]:
        if item.axes != items[0].axes:
            raise InputError(
                f"images have different axes: {items[0].name!r} {items[0].axes!r}, {item.name!r} {item.axes!r}; "
                "make one data set of each kind"
            )
        if file_format != "tiff" and item.shape != items[0].shape:
            raise InputError(
                f"images have different shapes: {items[0].name!r} {items[0].shape}, {item.name!r} {item.shape}; "
                f"{file_format} needs equal ones, tiff does not"
            )
    return items


def _begin(
    folder: Path, recipe: Recipe, items: Sequence[_Item], file_format: Format, *, resume: bool
) -> dict[str, dict[str, Any]]:
    """Prepare the folder; give the rows of what is there already."""
    writable_folder(folder)
    text = dump_recipe(recipe)
    inputs = hashlib.sha256("".join(f"{item.name} {item.sha256}\n" for item in items).encode()).hexdigest()
    header = {"recipe": hashlib.sha256(text.encode()).hexdigest(), "images": inputs, "format": file_format}
    there = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".part-"))
    log = folder / UNFINISHED
    if there and not resume:
        state = "an unfinished run" if log.exists() else "files already"
        hint = "; continue it with --resume, or" if log.exists() else ";"
        raise InputError(
            f"folder {str(folder)!r} holds {state} ({', '.join(there[:3])}){hint} choose another --out"
        )
    if not there:
        # First, so that a run which is ended here can be resumed.
        write_text(log, json.dumps(header) + "\n")
        write_text(folder / RECIPE, text)
        return {}
    if not log.exists():
        reason = "a finished run; there is nothing to resume" if (folder / MANIFEST).exists() else "no run"
        raise InputError(f"folder {str(folder)!r} holds {reason}; choose another --out")
    lines = list(_whole_lines(log))
    if not lines or lines[0] != header:
        before = lines[0] if lines else {}
        words = {"recipe": "another recipe or seed", "images": "other images", "format": "another format"}
        other = " and ".join(words[key] for key in header if before.get(key) != header[key])
        raise InputError(
            f"folder {str(folder)!r} holds a run with {other}; resume with what it was begun with "
            f"({RECIPE} lies there), or choose another --out"
        )
    if not (folder / RECIPE).exists():
        write_text(folder / RECIPE, text)
    # A line cut short by a crash would swallow the next one: write the whole ones again.
    write_text(log, "".join(json.dumps(line) + "\n" for line in lines))
    return {row["name"]: row for row in lines[1:]}


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            return
        yield value


Result = list[tuple[dict[str, Any], tuple[NDArray[Any], NDArray[Any]] | None]]


def _work(
    recipe: Recipe,
    items: Sequence[_Item],
    folder: Path,
    file_format: Format,
    jobs: int,
    cluster: Cluster | None,
) -> Iterator[Result]:
    if cluster is not None:
        # Workers of other machines stand in other folders.
        there = [
            item if item.path is None else replace(item, path=str(Path(item.path).absolute()))
            for item in items
        ]
        for _, made in cluster.each(_make_there, there, recipe, folder.absolute(), file_format):
            yield made
        return
    if jobs == 1 or len(items) < 2:
        for item in items:
            yield _make_item(recipe, item, folder, file_format)
        return
    with pool(min(jobs, len(items))) as children:
        futures = [children.submit(_make_item, recipe, item, folder, file_format) for item in items]
        for future in as_completed(futures):
            yield future.result()


def _make_there(recipe: Recipe, folder: Path, file_format: Format, item: _Item) -> Result:
    with computing:
        return _make_item(recipe, item, folder, file_format)


def _make_item(recipe: Recipe, item: _Item, folder: Path, file_format: Format) -> Result:
    made: Result = []
    for pair in _pairs_of(recipe, item):
        row = {
            "name": pair.name,
            "image": pair.image,
            "set": pair.set,
            "seed": recipe.seed,
            "image_sha256": item.sha256,
            "axes": pair.source.axes,
            **pair.parameters,
        }
        if file_format == "tiff":
            write_image(folder / "source" / f"{pair.name}.tif", pair.source)
            write_image(folder / "target" / f"{pair.name}.tif", pair.target)
            made.append((row, None))
        else:
            made.append((row, (pair.source.data, pair.target.data)))
    return made


def _clean_of(recipe: Recipe, item: _Item) -> Image:
    if item.path is None:
        return draw_clean(recipe, item.index, seed=recipe.seed)
    return read_image(item.path).replace(name=item.name)


def _pairs_of(recipe: Recipe, item: _Item) -> Iterator[Pair]:
    yield from make_sets(recipe, _clean_of(recipe, item), seed=recipe.seed)


def _channel_second(data: NDArray[Any], axes: str) -> NDArray[np.float32]:
    if "C" in axes:
        return np.moveaxis(data, axes.index("C"), 0).astype(np.float32)
    return data[np.newaxis].astype(np.float32)


def _write_npz(path: Path, pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], axes: str) -> None:
    shapes = {target.shape for _, target in pairs}
    if len(shapes) > 1:
        raise InputError(f"sets of this recipe give different shapes, {sorted(shapes)}; npz needs equal ones")
    with atomic_file(path) as part, open(part, "wb") as file:
        np.savez(
            file,
            X=np.stack([_channel_second(source, axes) for source, _ in pairs]),
            Y=np.stack([_channel_second(target, axes) for _, target in pairs]),
            axes=np.array("SC" + axes.replace("C", "")),
        )


def _write_zarr(
    path: Path, position: int, count: int, pair: tuple[NDArray[Any], NDArray[Any]], axes: str
) -> None:
    import zarr

    for name, pixels in zip(("source", "target"), pair, strict=True):
        data = _channel_second(pixels, axes)
        place = path / name
        if not (place / "zarr.json").exists():
            zarr.create_array(
                store=str(place),
                shape=(count, *data.shape),
                chunks=(1, *data.shape),
                dtype="float32",
                attributes={"axes": "SC" + axes.replace("C", "")},
            )
        array: Any = zarr.open_array(store=str(place), mode="r+")
        if tuple(array.shape[1:]) != data.shape:
            raise InputError(
                f"sets of this recipe give different shapes, {tuple(array.shape[1:])} and {data.shape}; "
                "zarr needs equal ones"
            )
        array[position] = data


def _write_manifest(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(_FIRST_COLUMNS)
    columns += [key for row in rows for key in row if key not in columns]
    columns = list(dict.fromkeys(columns))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _write_kernels(folder: Path, recipe: Recipe, item: _Item) -> None:
    clean, _ = check_clean(recipe, _clean_of(recipe, item))
    for each in recipe.sets:
        like = clean
        for step in each.steps:
            if isinstance(step, Surface):
                like = step.stack(like)
            if isinstance(step, Blur | AxialBlur):
                kernel = step.kernel(like)
                space = "".join(letter for letter in like.axes if letter in SPACE)
                axes = "YX" if isinstance(step, AxialBlur) else ("C" + space)[-kernel.ndim :]
                sizes = {axis: size for axis, size in like.pixel_size_um.items() if axis in axes}
                image = Image(kernel.astype(np.float32), axes, pixel_size_um=sizes)
                write_image(folder / "psf" / f"{each.name}.tif", image)


def _write_sheet(folder: Path, recipe: Recipe, items: Sequence[_Item]) -> None:
    """Some clean images beside what the sets made of them; 2-D sections at equal contrast."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = [items[k] for k in sorted(set(np.linspace(0, len(items) - 1, _SHEET_IMAGES).astype(int)))]
    columns = 1 + len(recipe.sets)
    figure = Figure(figsize=(2.4 * columns, 2.55 * len(chosen)), dpi=100, layout="constrained")
    axes = figure.subplots(len(chosen), columns, squeeze=False)
    for line, item in zip(axes, chosen, strict=True):
        pairs = list(_pairs_of(recipe, item))
        shown = [("target", pairs[0].target)]
        shown += [(f"{pair.set}, {pair.parameters['snr_db']:.1f} dB", pair.source) for pair in pairs]
        for axis, (title, image) in zip(line, shown, strict=True):
            section = _section(image)
            low, high = np.percentile(section, [0.5, 99.8])
            axis.imshow(section, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")
            axis.set_title(title, fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(item.name[:24], fontsize=7)
    FigureCanvasAgg(figure)
    with atomic_file(folder / SHEET) as part:
        figure.savefig(part, format="png")


def _section(image: Image) -> NDArray[Any]:
    data = image.data
    for position in range(data.ndim - 1, -1, -1):
        if image.axes[position] not in "YX":
            data = np.take(
                data, data.shape[position] // 2 if image.axes[position] == "Z" else 0, axis=position
            )
    # The middle, so that single pixels can be seen.
    top, left = ((size - min(size, 256)) // 2 for size in data.shape)
    return data[top : top + 256, left : left + 256]
