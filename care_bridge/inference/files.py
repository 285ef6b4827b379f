"""Restoring image files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from care_bridge.cluster import Cluster, computing, held
from care_bridge.defaults import MEMORY_GIB, OME_ZARR, RESULT_NAME
from care_bridge.errors import InputError
from care_bridge.guard import Likeness
from care_bridge.images import (
    PATTERN,
    TIFF,
    ZARR,
    Image,
    WriteReport,
    check_levels,
    is_zarr,
    kept_dtype,
    list_images,
    only_channel,
    open_volume,
    read_header,
    read_image,
    write_image,
)
from care_bridge.inference.large import Opener, fits_memory, middle, predict_volume, restores_piecewise
from care_bridge.noise import Noise, NoiseRange, measure_channels, unlike
from care_bridge.predictor import (
    ImagesOnly,
    Predictor,
    Runtime,
    apply_repeatedly,
    mean_channels,
    not_again,
    on_network_scale,
    scale_channels,
)
from care_bridge.progress import Progress, silent


@dataclass(frozen=True)
class Restored:
    """One file and what became of it.

    Attributes
    ----------
    source : Path
    written : tuple of WriteReport
        One an application, one more each for scales; empty where nothing was to be saved.
    shape : tuple of int
        Of the last result.
    likeness : Likeness, optional
        Whether the image is like what the model was trained on; None where nobody asked.
    """

    source: Path
    written: tuple[WriteReport, ...]
    shape: tuple[int, ...]
    likeness: Likeness | None = None

    def __str__(self) -> str:
        return "\n".join(map(str, self.written)) or f"{self.source}: {self.shape}, not saved"


@dataclass(frozen=True)
class Piecewise:
    """How images are restored that memory cannot hold.

    Attributes
    ----------
    always : bool
        All of them, whatever their size.
    resume, memory_gib, ome_zarr, model
        See `large.predict_volume`.
    """

    always: bool = False
    resume: bool = False
    memory_gib: float = MEMORY_GIB
    ome_zarr: str = OME_ZARR
    model: str = ""


def find_images(paths: Sequence[str | os.PathLike[str]], *, pattern: str = PATTERN) -> list[Path]:
    """Image files in the order of their names; a folder stands for the files in it that match.

    Parameters
    ----------
    paths : sequence of path
        Files and folders.
    pattern : str
        Which files of a folder; ``**/*.tif`` those of its folders too.

    Returns
    -------
    list of Path
        Of each folder sorted; paths in the order in which they were given.

    Raises
    ------
    InputError
        If a path is not there, is no TIFF, a folder holds none, or the pattern is none.
    """
    found: list[Path] = []
    problems = []
    for path in map(Path, paths):
        if is_zarr(path):
            found.append(path)
        elif path.is_dir():
            inside = list_images(path, pattern)
            found += inside
            if not inside:
                problems.append(f"no images {pattern!r} in {str(path)!r}; name a folder with TIFFs")
        elif not path.exists():
            problems.append(f"no image at {str(path)!r}")
        elif path.suffix.lower() not in TIFF:
            problems.append(f"{str(path)!r} is no TIFF by its name; save it as .tif in Fiji")
        else:
            found.append(path)
    if problems:
        raise InputError("\n".join(problems))
    return found


def result_name(
    file: str | os.PathLike[str],
    pattern: str = RESULT_NAME,
    *,
    model: str | os.PathLike[str],
    weights: str | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Path:
    """Where in a folder of results a file's result goes, by csbdeep's way of naming.

    Parameters
    ----------
    file : path
    pattern : str
        Knows ``{file_path}``, the file's folder below `root`, ``{file_name}``, ``{file_ext}``, ``{model_name}`` and
        ``{model_weights}``.
    model : path
    weights : str, optional
        File name of the weights.
    root : path, optional
        Folder that was searched; a file outside of it has no ``{file_path}``.

    Raises
    ------
    InputError
        If the pattern knows another word, or gives no TIFF's name or one outside of the folder of results.
    """
    file, inside = Path(file), Path()
    if root is not None and Path(root).resolve() in file.resolve().parents:
        inside = file.resolve().relative_to(Path(root).resolve()).parent
    try:
        filled = pattern.format(
            file_path=inside,
            file_name=file.stem,
            file_ext=file.suffix,
            model_name=Path(model).stem,
            model_weights=Path(weights).stem if weights else None,
        )
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(
            f"--output-name {pattern!r} is not understood ({error}); it knows {{file_path}}, {{file_name}}, "
            "{file_ext}, {model_name} and {model_weights}"
        ) from None
    result = Path(filled)
    if result.is_absolute() or ".." in result.parts or result.suffix.lower() not in (*TIFF, ZARR):
        raise InputError(
            f"--output-name {pattern!r} gives {filled!r} for {file.name}; give a name within --out that ends "
            "in .tif, .tiff or .zarr"
        )
    return result


def predict_files(
    predictor: Predictor,
    files: Sequence[str | os.PathLike[str]],
    *,
    target: Callable[[Path], Path],
    axes: str | None = None,
    channel: int | None = None,
    series: int | None = None,
    applications: int = 1,
    dtype: DTypeLike | None = np.float32,
    scales: bool = False,
    fill: bool = False,
    save: bool = True,
    piecewise: Piecewise | None = None,
    provenance: str = "",
    trained: NoiseRange | None = None,
    note: Callable[[Path, str], object] | None = None,
    guard: Callable[[Image, Sequence[Noise] | None], Likeness] | None = None,
    measured: Mapping[Path, Sequence[Noise]] | None = None,
    cluster: Cluster | None = None,
    opener: Opener | None = None,
    problem: Callable[[Path, str], object] | None = None,
    progress: Progress = silent,
) -> list[Restored]:
    """Restore files one after another and write each result, whole or not at all.

    Parameters
    ----------
    predictor : Predictor
    files : sequence of path
        TIFFs.
    target : callable
        Path of a file's result; with several applications ``_1``, ``_2``, ... is put before its suffix.
    axes : str, optional
        Axes of the files, where they do not say or say it wrongly.
    channel : int, optional
        The only channel of each image to restore, from 0 (`images.only_channel`).
    series : int, optional
        Which of several images in a file.
    applications : int
        How many times in a row; every result is written.
    dtype : dtype, optional
        Type in the file; integers are rounded and clipped. None takes the image's own, see `images.kept_dtype`.
    scales : bool
        Write the widths of a probabilistic network as well, ``_scale`` before the suffix.
    fill : bool
        Map each result's least and greatest value to the ends of an integer `dtype`, see `scale` of `write_image`;
        widths keep the scale of the values.
    save : bool
        False predicts without writing.
    piecewise : Piecewise, optional
        How images are restored that memory cannot hold; None as they are by default.
    provenance : str
        Kept in the files.
    trained : NoiseRange, optional
        The noise that the model was trained with; None measures no image's.
    note : callable, optional
        Told the file and, in one sentence, what of its noise lies outside of `trained`.
    guard : callable, optional
        Says of an image, and its noise where that was measured, whether it is like what the model was trained on
        (`opening.open_guard(model).look`).
    measured : mapping of Path to sequence of Noise, optional
        The noise of files that was measured already, one a channel; what is missing is measured where it is asked for.
    cluster, opener
        See `large.predict_volume`: workers restore the files, each as a whole, and of volumes the pieces.
    problem : callable, optional
        Told the file and why, where one of several cannot be restored; the others are. None stops at the first.
    progress : Progress

    Returns
    -------
    list of Restored
        One a file, in the order of `files`.

    Raises
    ------
    InputError
        Before anything is computed, if two results have one name or a result would replace its source, if the network
        cannot be applied so often, or if whole numbers are wanted of results that lie between 0 and 1. For all files
        together, if none could be restored.
    """
    sources = [Path(file) for file in files]
    targets = [target(source) for source in sources]
    _check_targets(sources, targets)
    if applications > 1 and (reason := not_again(predictor)):
        raise InputError(f"--applications {applications}: {reason}; give 1")
    if dtype is not None and not fill:
        _check_scale(predictor, np.dtype(dtype))
    work = _Work(
        predictor,
        axes,
        channel,
        series,
        applications,
        dtype,
        scales,
        fill,
        save,
        piecewise or Piecewise(),
        provenance,
        trained,
        note,
        guard,
        measured or {},
        cluster,
        opener,
    )
    if cluster is not None and any(
        not _goes_piecewise(*each, work) for each in zip(sources, targets, strict=True)
    ):
        return _restore_there(work, list(zip(sources, targets, strict=True)), problem, progress)
    done: list[Restored] = []
    problems: list[str] = []
    for number, (source, place) in enumerate(zip(sources, targets, strict=True)):
        before = number * applications

        def tell(application: int, before: int = before) -> None:
            progress(before + application, len(sources) * applications, "restoring")

        try:
            done.append(_restore(source, place, work, tell, progress))
        except (InputError, PermissionError, MemoryError) as error:
            if problem is None or len(sources) == 1:
                raise
            text = _reason(source, error)
            problems.append(text)
            problem(source, text)
    if problems and not done:
        raise InputError(f"none of {len(sources)} images could be restored:\n  " + "\n  ".join(problems))
    return done


@dataclass(frozen=True, eq=False)
class _Work:
    """What is done with every file."""

    predictor: Predictor
    axes: str | None
    channel: int | None
    series: int | None
    applications: int
    dtype: DTypeLike | None
    scales: bool
    fill: bool
    save: bool
    piecewise: Piecewise
    provenance: str
    trained: NoiseRange | None
    note: Callable[[Path, str], object] | None
    guard: Callable[[Image, Sequence[Noise] | None], Likeness] | None
    measured: Mapping[Path, Sequence[Noise]]
    cluster: Cluster | None = None
    opener: Opener | None = None


def _restore(
    source: Path, place: Path, work: _Work, tell: Callable[[int], None], progress: Progress
) -> Restored:
    if work.save and _goes_piecewise(source, place, work):
        return _restore_piecewise(source, place, work, tell, progress)
    image = only_channel(read_image(source, work.axes, series=work.series), work.channel)
    kind = kept_dtype(image) if work.dtype is None else np.dtype(work.dtype)
    if work.save and not work.fill:
        # Known before the network runs, not after.
        _check_scale(work.predictor, kind)
        check_levels(image, kind)
    # Measured once, for what is said of the noise and for the guard.
    measured = work.measured.get(source)
    if work.note is not None and work.trained not in (None, NoiseRange()):
        measured = measured or measure_channels(image)
        if said := unlike(image, work.trained, measured=measured):
            work.note(source, said)
    likeness = None if work.guard is None else work.guard(image, measured)
    written: list[WriteReport] = []
    result = image
    again = apply_repeatedly(work.predictor, image, applications=work.applications)
    for application, result in enumerate(again, start=1):
        if work.save:
            suffix = f"_{application}" if work.applications > 1 else ""
            mean = mean_channels(result, like=image)
            written.append(
                write_image(
                    _named(place, suffix),
                    mean,
                    kind,
                    provenance=work.provenance,
                    scale=work.fill,
                    ome_zarr=work.piecewise.ome_zarr,
                )
            )
            scale = scale_channels(result, like=image) if work.scales else None
            if scale is not None:
                path = _named(place, f"{suffix}_scale")
                written.append(
                    write_image(
                        path,
                        scale,
                        np.float32,
                        provenance=work.provenance,
                        ome_zarr=work.piecewise.ome_zarr,
                    )
                )
        tell(application)
    return Restored(source, tuple(written), result.shape, likeness)


def _restore_there(
    work: _Work,
    each: Sequence[tuple[Path, Path]],
    problem: Callable[[Path, str], object] | None,
    progress: Progress,
) -> list[Restored]:
    """Let workers restore files, one a task; what they say of them is said here, in the order of the files."""
    if work.opener is None or work.cluster is None:
        raise TypeError("a cluster's workers need an opener")
    sent = replace(work, predictor=_Unsent(), note=None, guard=None, cluster=None)
    asks = (work.note is not None, work.guard is not None)
    absolute = [(source.absolute(), place.absolute()) for source, place in each]
    told = dict(
        work.cluster.each(
            _file_there, absolute, sent, asks, total=len(each), what="restoring", progress=progress
        )
    )
    done: list[Restored] = []
    problems: list[str] = []
    for (source, _), key in zip(each, absolute, strict=True):
        restored, notes, why = told[key]
        for note in notes:
            if work.note is not None:
                work.note(source, note)
        if restored is not None:
            done.append(replace(restored, source=source))
            continue
        if problem is None or len(each) == 1:
            raise InputError(why)
        problems.append(why)
        problem(source, why)
    if problems and not done:
        raise InputError(f"none of {len(each)} images could be restored:\n  " + "\n  ".join(problems))
    return done


class _Unsent(ImagesOnly):
    """In the place of the predictor of a worker, which opens its own."""

    runtime = Runtime("unsent")

    def predict(self, image: Image) -> Image:
        """Never called."""
        raise NotImplementedError


def _file_there(
    work: _Work, asks: tuple[bool, bool], place: tuple[Path, Path]
) -> tuple[Restored | None, list[str], str]:
    """Restore a file in a worker; what became of it, what is to be said of it, and why it could not be."""
    assert work.opener is not None
    predictor, look = held(f"model:{work.opener!r}", work.opener)
    notes: list[str] = []
    own = replace(
        work,
        predictor=predictor,
        note=(lambda _, said: notes.append(said)) if asks[0] else None,
        guard=look if asks[1] else None,
    )
    with computing, warnings.catch_warnings(record=True) as caught:
        try:
            warnings.simplefilter("always")
            restored: Restored | None = _restore(*place, own, lambda _: None, silent)
            why = ""
        except (InputError, PermissionError, MemoryError) as error:
            restored, why = None, _reason(place[0], error)
    said = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
    return restored, [*dict.fromkeys(said), *notes], why


def _goes_piecewise(source: Path, place: Path, work: _Work) -> bool:
    wanted = work.piecewise.always
    if not wanted and not fits_memory(read_header(source, work.axes, series=work.series).shape):
        wanted = restores_piecewise(work.predictor)
    if wanted and (work.applications > 1 or work.fill):
        option = "--applications" if work.applications > 1 else "--scale-when-converting"
        raise InputError(f"{option} needs {source.name} in memory, and it is to be restored piece by piece")
    return wanted


def _restore_piecewise(
    source: Path, place: Path, work: _Work, tell: Callable[[int], None], progress: Progress
) -> Restored:
    volume = open_volume(source, work.axes, series=work.series).only_channel(work.channel)
    looked: Image | None = None
    measured = work.measured.get(source)
    if work.note is not None and work.trained not in (None, NoiseRange()):
        looked = middle(volume)
        measured = measured or measure_channels(looked)
        if said := unlike(looked, work.trained, measured=measured):
            work.note(source, said)
    likeness = None if work.guard is None else work.guard(looked or middle(volume), measured)
    written = predict_volume(
        work.predictor,
        source,
        place,
        axes=work.axes,
        channel=work.channel,
        series=work.series,
        dtype=work.dtype,
        scales=work.scales,
        resume=work.piecewise.resume,
        memory_gib=work.piecewise.memory_gib,
        ome_zarr=work.piecewise.ome_zarr,
        model=work.piecewise.model,
        provenance=work.provenance,
        cluster=work.cluster,
        opener=work.opener,
        progress=progress,
    )
    tell(1)
    return Restored(source, tuple(written), read_header(written[0].path).shape, likeness)


def _check_scale(predictor: Predictor, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "ui" or not on_network_scale(predictor):
        return
    undone = getattr(predictor.options, "denormalize", None)
    more = ", or undo the normalisation (--norm-undo)" if undone is False else ""
    raise InputError(
        f"--dtype {dtype}: the results stay normalised, in the range of about 0 to 1, which is next to no grey levels "
        f"as whole numbers; write float32 (--dtype float32){more}"
    )


def _reason(source: Path, error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if source.name in text else f"{source}: {text}"


def _named(path: Path, suffix: str) -> Path:
    # The whole of ".ome.tif" is a suffix here: it decides the format.
    name = path.name
    ending = name[len(name.split(".ome.")[0]) :] if ".ome." in name.lower() else path.suffix
    return path.with_name(name.removesuffix(ending) + suffix + ending)


def _check_targets(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    taken: dict[Path, Path] = {}
    problems = []
    originals = {source.resolve() for source in sources}
    for source, place in zip(sources, targets, strict=True):
        where = place.resolve()
        if where in taken:
            problems.append(
                f"{source} and {taken[where]} would both become {place}; give a pattern that differs"
            )
        if where in originals:
            problems.append(f"{place} would replace an image to be restored; write to another folder")
        taken.setdefault(where, source)
    if problems:
        raise InputError("\n".join(problems))
