"""One zip for a person without Python: unpacked into a Fiji it is what `macros install` puts there."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection
from pathlib import Path

from care_bridge.errors import InputError
from care_bridge.files import atomic_file, scratch_folder
from care_bridge.macros.shipped import install, install_models, install_onnx

NOTE = Path("scripts", "Plugins", "CARE_bridge", "READ-ME.txt")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_TEXT = """\
care_bridge for Fiji

1. Unpack this zip into the folder of your Fiji, the one with the folders jars and plugins (say yes to merging folders).
2. Restart Fiji.
3. Open an image, then Plugins > CARE bridge > Restore, choose a model, OK. Models are .zip files; put yours into
   models/CARE_bridge of the same folder.

Restored intensities are predictions, not measurements: not for intensity-based quantification.

To take it out again delete the folders CARE_bridge in scripts/Plugins, macros, lib and models.
"""


def write_fiji_zip(
    out: str | os.PathLike[str], bundles: Collection[str | os.PathLike[str]] = ()
) -> tuple[Path, list[str]]:
    """Write the scripts, the macros, ONNX Runtime and models as one zip to unpack into a Fiji.

    Parameters
    ----------
    out : path
        Ends in .zip.
    bundles : collection of path
        Models exported for Fiji.

    Returns
    -------
    path : Path
    names : list of str
        Of the entries. Written again they have the same bytes.

    Raises
    ------
    InputError
        If `out` does not end in .zip.
    NotInstalledError
        If ONNX Runtime is not fetched; the message holds the command.
    """
    target = Path(out)
    if target.suffix.lower() != ".zip" or target.is_dir():
        raise InputError(f"{str(target)!r}: name a file that ends in .zip, e.g. care-bridge-fiji.zip")
    with scratch_folder() as name, atomic_file(target) as part:
        fiji = Path(name)
        for folder in ("jars", "plugins"):
            (fiji / folder).mkdir()
        install(fiji)
        install_onnx(fiji)
        if bundles:
            install_models(fiji, bundles)
        (fiji / NOTE).write_text(_TEXT, encoding="ascii", newline="\n")
        files = sorted(file.relative_to(fiji) for file in fiji.rglob("*") if file.is_file())
        with zipfile.ZipFile(part, "w") as archive:
            for file in files:
                entry = zipfile.ZipInfo(file.as_posix(), _EPOCH)
                entry.create_system, entry.external_attr = 3, 0o100644 << 16
                # Jars and models are packed already.
                packed = file.suffix in (".jar", ".zip")
                entry.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
                archive.writestr(entry, (fiji / file).read_bytes())
    return target, [file.as_posix() for file in files]
