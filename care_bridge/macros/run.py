"""Our macros and scripts, run unchanged in headless ImageJ, and how they say they ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from care_bridge.files import scratch_folder
from care_bridge.images.whole import check_whole
from care_bridge.java.imagej import MacroResult
from care_bridge.macros.shipped import find_shipped
from care_bridge.plugin.quoting import imagej_argument


@dataclass(frozen=True)
class Ending:
    """What a macro or script of ours says of itself at its end, in its sentinel file.

    Attributes
    ----------
    status : str
        `done`, `done with failures`, `different` (of Compare_With_Python), `failed`; `stopped` where it did not
        come to its end.
    done, skipped, failed : int
    message : str
    """

    status: str
    done: int
    skipped: int
    failed: int
    message: str


def run(
    name: str,
    settings: Mapping[str, str],
    *,
    image: Path | None = None,
    timeout_s: float | None = None,
) -> tuple[MacroResult, Ending]:
    """Run one of our macros or scripts, unchanged, in headless ImageJ with TensorFlow 1.x behind the plugin's command.

    Parameters
    ----------
    name : str
    settings : mapping of str to str
        Of a macro its argument, of a script its parameters.
    image : Path, optional
        Image that is in front when a script starts.
    timeout_s : float, optional
        Seconds without a sign of life.

    Returns
    -------
    result : MacroResult
        How it ended for ImageJ.
    ending : Ending
        What it said of itself at its end.

    Raises
    ------
    InputError, NotInstalledError, WorkerError
    """
    from care_bridge.java import runtimes
    from care_bridge.java.imagej import ImageJ

    entry = find_shipped(name)
    for file in (image, Path(settings["input"]) if settings.get("input") else None):
        if file is not None and file.suffix.lower() in (".tif", ".tiff") and file.is_file():
            check_whole(file)  # ImageJ follows directories in a circle for ever
    script = entry.kind == "script"
    with scratch_folder() as folder:
        sentinel = Path(settings.get("sentinel") or Path(folder, "sentinel.json"))
        given = {**settings, "sentinel": sentinel.as_posix()}
        sentinel.unlink(missing_ok=True)
        with ImageJ(groovy=script or not runtimes.missing("groovy"), timeout_s=timeout_s) as imagej:
            if script:
                result = imagej.run_script(entry.path, given, image=image)
            else:
                result = imagej.run_macro(entry.path, imagej_argument(given))
        return result, _ending(sentinel, result)


def _ending(sentinel: Path, result: MacroResult) -> Ending:
    if sentinel.is_file():
        said = json.loads(sentinel.read_text(encoding="utf-8"))
        return Ending(said["status"], said["done"], said["skipped"], said["failed"], said["message"])
    own = [line for line in result.log.splitlines() if line.startswith("CARE bridge: ")]
    if own:
        return Ending("failed", 0, 0, 1, own[-1].removeprefix("CARE bridge: "))
    return Ending("stopped", 0, 0, 0, result.error or "it did not come to its end")
