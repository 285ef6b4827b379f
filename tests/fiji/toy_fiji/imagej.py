"""Stands in for pyimagej: a Fiji whose TensorFlow is being loaded for as long as nobody ends it."""

import os
import time
from pathlib import Path

import scyjava

__version__ = "0"


def init(_folder: str, *, mode: str) -> None:
    """Do with the base directory what imagej-tensorflow does before it loads its library."""
    assert mode == "headless"
    base = next(option.split("=", 1)[1] for option in scyjava.options if option.startswith("-Dimagej.dir="))
    platform = Path(base) / "lib" / "linux64"
    platform.mkdir(parents=True, exist_ok=True)
    (platform / ".crashed").touch(exist_ok=False)
    seen = [(Path(base) / name).exists() for name in ("scripts/Plugins/mine.groovy", "jars", "plugins")]
    Path(os.environ["TOY_FIJI_LOADING"], str(os.getpid())).write_text(f"{base} {all(seen)}")
    time.sleep(60)
