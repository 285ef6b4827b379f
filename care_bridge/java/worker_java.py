"""A JVM inside a worker process. Imported by worker modules only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from care_bridge.errors import NotInstalledError, WorkerError
from care_bridge.java import runtimes


def start_jvm(
    *, classpath: Sequence[str | os.PathLike[str]], heap_mb: int, java: str = "", options: Sequence[str] = ()
) -> str:
    """Start the JVM of this process, without a window.

    Parameters
    ----------
    classpath : sequence of path
        Jars and folders, first wins.
    heap_mb : int
        Largest heap, in MiB.
    java : str
        Java home; "" takes the one that `runtimes.find_java` finds.
    options : sequence of str
        Further JVM options.

    Returns
    -------
    str
        Version of Java, e.g. ``"25.0.2"``.

    Raises
    ------
    NotInstalledError
        If there is no Java.
    WorkerError
        If it does not start.
    """
    import jpype

    home = Path(java) if java else runtimes.java_home()
    library = runtimes.jvm_library(home)
    if library is None:
        raise NotInstalledError(f"no Java runtime at {home} (no libjvm under lib/server)")
    version = runtimes.java_version(home)
    everywhere = [
        f"-Xmx{heap_mb}m",
        "-Djava.awt.headless=true",
        "-XX:+UseParallelGC",  # the default collector is slow with arrays of many MiB
        "-XX:-UsePerfData",
        "-Dfile.encoding=UTF-8",
    ]
    if _major(version) >= 24:
        everywhere.append("--enable-native-access=ALL-UNNAMED")
    try:
        jpype.startJVM(
            *everywhere,
            *options,
            jvmpath=str(library),
            classpath=[os.fspath(entry) for entry in classpath],
            convertStrings=False,
        )
    except (OSError, RuntimeError) as error:
        raise WorkerError(f"Java at {home} did not start with a heap of {heap_mb} MiB: {error}") from error
    return str(jpype.JClass("java.lang.System").getProperty("java.version"))


def direct_buffer(array: Any) -> Any:
    """Memory of a C-contiguous NumPy array as a Java ByteBuffer in native byte order, without a copy."""
    import jpype
    import numpy as np

    buffer = jpype.nio.convertToDirectBuffer(array.reshape(-1).view(np.uint8))
    return buffer.order(jpype.JClass("java.nio.ByteOrder").nativeOrder())


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isdigit() else 0
