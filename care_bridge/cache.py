"""Where files of our own lie that no person asked for: what was fetched, what is remembered, reports of crashes."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder that `CARE_BRIDGE_CACHE` names, else the user's cache folder; not made by this call."""
    named = os.environ.get("CARE_BRIDGE_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    # Without platformdirs' own opinion of a folder "Cache" on Windows: the files of earlier installations lie here.
    return platformdirs.user_cache_path("care_bridge", appauthor=False, opinion=False)
