"""Whether fetched files are still what was pinned, asked before each time that they are loaded.

Hashing two libraries takes half a second, so what was found is remembered with the file's size, times and number; a
file whose folder others can write to is hashed each time, for they could change what is remembered too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from care_bridge.cache import cache_folder
from care_bridge.errors import InputError
from care_bridge.files import sha256, write_text

MEMORY = "verified.json"

_JUST_NOW_NS = 2_000_000_000
"""A file so young may change again within one tick of its file system's clock."""

_LIBRARIES = (".so", ".dylib", ".dll", ".jnilib")

Hash = Callable[[Path], str]


def wrong(known: Mapping[Path, str], *, how: Hash = sha256) -> list[Path]:
    """Which files have another content than the pinned one, or are not there.

    Parameters
    ----------
    known : mapping of Path to str
        What `how` gives of each file as it should be.
    how : callable
    """
    memory_file = cache_folder() / MEMORY
    memory = _remembered(memory_file)
    found, learned = [], {}
    for path, pinned in known.items():
        try:
            stamp = _stamp(path)
            if memory.get(str(path)) == [*stamp, pinned] and _is_ours_alone(path):
                continue
            right = how(path) == pinned and _stamp(path) == stamp
        except OSError:
            right = False
        if not right:
            found.append(path)
        elif time.time_ns() - max(stamp[1:3]) > _JUST_NOW_NS and _is_ours_alone(path):
            learned[str(path)] = [*stamp, pinned]
    if learned:
        # A cache that is read-only is hashed each time.
        with contextlib.suppress(InputError, OSError):
            write_text(memory_file, json.dumps({**memory, **learned}, indent=1) + "\n")
    return found


def strangers(folder: Path, names: set[str]) -> list[Path]:
    """Libraries in a folder that do not belong there, which the system's linker might load."""
    with contextlib.suppress(OSError):
        return sorted(
            path
            for path in folder.iterdir()
            if path.name not in names and any(part in _LIBRARIES for part in path.suffixes)
        )
    return []


def content_sha256(path: Path) -> str:
    """SHA-256 of names and contents of a zip, whenever it was written."""
    found = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                found.update(name.encode() + b"\0" + hashlib.sha256(archive.read(name)).digest())
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError):
        return ""
    return found.hexdigest()


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _remembered(path: Path) -> dict[str, list[object]]:
    try:
        if not _is_ours_alone(path):
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_ours_alone(path: Path) -> bool:
    """Whether nobody but this person and the system's own can change a file of the cache, or put another there."""
    if sys.platform == "win32":
        return True  # a person's profile, by its access lists
    top = cache_folder()
    inside = [path, *path.parents]
    for place in inside[: inside.index(top) + 1] if top in inside else [path, path.parent]:
        status = place.stat()
        if status.st_mode & 0o022 or status.st_uid not in (0, os.getuid()):
            return False
    return True
