"""What the CSBDeep plugin makes of a zip: which files reach its cache folder, and what it says at the
first run and later.

The plugin unpacks once, into a folder named after the zip's content, and never again while that folder
exists. It makes a folder only for an entry that is one, so a file whose folder has no entry of its own
ends the unpacking: what stood before it in the zip stays, and decides whether later runs find a model.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from care_bridge.errors import InputError
from care_bridge.fiji.bundle import SAVED_MODEL, SIGNATURE, TAG, read_bundle

NO_MODEL = "org.tensorflow.TensorFlowException: Could not find SavedModel .pb or .pbtxt at supplied export directory path"
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Unpacked:
    """What an unpacking leaves behind.

    Attributes
    ----------
    files : tuple of str
        Names that lie in the cache folder afterwards.
    reason : str
        The exception that ended it early; "" for none.
    """

    files: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class ZipVerdict:
    """Whether the plugin gets a network out of a zip, TensorFlow's own opinion on the graph aside.

    Attributes
    ----------
    first, later : str
        Why the first run, and any later one with the same zip, gives nothing; "" where it works.
    advice : str
        What to do about it.
    """

    first: str
    later: str
    advice: str = ""

    @property
    def loads(self) -> bool:
        """Whether the very first run works."""
        return not self.first


def unpack(path: str | os.PathLike[str]) -> Unpacked:
    """Which files of a zip the plugin gets into its cache folder.

    Parameters
    ----------
    path : path
        Any file; one that is no zip gives no files and no exception, as with Java's ZipInputStream.

    Raises
    ------
    InputError
        If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not there; give the bundle (.zip) that Fiji is to open")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    except (zipfile.BadZipFile, OSError):
        return Unpacked(())
    folders = {PurePosixPath()}
    files: list[str] = []
    for entry in entries:
        place = PurePosixPath(entry.filename)
        if ".." in place.parts or place.is_absolute():
            return Unpacked(tuple(files), "java.lang.RuntimeException: Bad zip entry")
        if entry.flag_bits & _ENCRYPTED:
            return Unpacked(tuple(files), "java.util.zip.ZipException: encrypted ZIP entry not supported")
        if entry.is_dir():
            folders.update([place, *place.parents])
            continue
        if place.parent not in folders:
            return Unpacked(
                tuple(files),
                f"java.io.FileNotFoundException: <model cache>/{entry.filename} (No such file or directory)",
            )
        if entry.compress_type not in _READABLE:
            return Unpacked(tuple(files), "java.util.zip.ZipException: invalid compression method")
        files.append(entry.filename)
    return Unpacked(tuple(files))


def zip_verdict(path: str | os.PathLike[str]) -> ZipVerdict:
    """Whether the plugin finds a model, its graph and its signature in a zip.

    Parameters
    ----------
    path : path

    Returns
    -------
    ZipVerdict
        Whether TensorFlow 1.x then takes the graph is another question, for `fiji.tf1` or the tables of
        operations.

    Raises
    ------
    InputError
        If there is no such file.
    """
    found = unpack(path)
    has_model = SAVED_MODEL in found.files or f"{SAVED_MODEL}txt" in found.files
    if found.reason:
        advice = "write an entry for every folder, before the files in it"
        return ZipVerdict(found.reason, "" if has_model else NO_MODEL, advice)
    if not has_model:
        advice = f"{SAVED_MODEL} must lie at the root of the zip: zip the files, not the folder around them"
        return ZipVerdict(NO_MODEL, NO_MODEL, advice)
    if SAVED_MODEL not in found.files:
        return ZipVerdict("", "")
    try:
        graphs = read_bundle(path).graphs
    except InputError as error:
        return ZipVerdict(
            f"org.tensorflow.TensorFlowException: {error}", f"org.tensorflow.TensorFlowException: {error}"
        )
    served = [graph for graph in graphs if TAG in graph.tags]
    if not served:
        reason = (
            "org.tensorflow.TensorFlowException: Could not find meta graph def matching supplied tags: "
            f"{{ {TAG} }}"
        )
        return ZipVerdict(reason, reason, f"export with the tag {TAG!r}")
    if SIGNATURE not in served[0].signatures:
        reason = f"java.lang.IllegalArgumentException: {SIGNATURE}"
        return ZipVerdict(reason, reason, f"export with the signature {SIGNATURE!r}")
    return ZipVerdict("", "")
