"""A Fiji folder judged by its files: layouts of 2020 to 2026 made of empty jars."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from care_bridge.errors import InputError, NotInstalledError
from care_bridge.java import runtimes
from care_bridge.java.installation import FijiFolder, class_file_java, find_fiji, java_major
from care_bridge.java.pyimagej import FijiSession
from care_bridge.java.pyimagej_worker import reasons

CORE = (
    "jars/ij-1.54p.jar",
    "jars/imagej-common-2.1.1.jar",
    "jars/imagej-legacy-2.0.3.jar",
    "jars/imagej-tensorflow-1.1.9.jar",
    "jars/imglib2-imglyb-1.1.0.jar",
    "jars/imglib2-unsafe-1.0.0.jar",
    "jars/libtensorflow-1.15.0.jar",
    "jars/libtensorflow_jni-1.15.0.jar",
    "jars/protobuf-java-3.5.1.jar",
    "jars/scijava-common-2.99.2.jar",
    "plugins/csbdeep-0.6.0.jar",
)

MakeFiji = Callable[..., FijiFolder]


def jar(path: Path, *, java: int = 8, holding: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/versions/21/a/B.class", struct.pack(">IHH", 0xCAFEBABE, 0, 65))
        archive.writestr("module-info.class", struct.pack(">IHH", 0xCAFEBABE, 0, 69))
        archive.writestr("a/B.class", struct.pack(">IHH", 0xCAFEBABE, 0, java + 44))
        if holding:
            archive.writestr(holding, b"")


def java_home(folder: Path, version: str) -> Path:
    library = folder / "lib" / "server" / "libjvm.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    library.touch()
    (folder / "release").write_text(f'IMPLEMENTOR="Somebody"\nJAVA_VERSION="{version}"\n')
    return folder


@pytest.fixture
def make_fiji(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeFiji:
    """A function that makes a complete Fiji without some jars and with others, and nothing else that is Java."""
    monkeypatch.delenv("CARE_BRIDGE_JAVA_HOME", raising=False)
    monkeypatch.delenv("CARE_BRIDGE_FIJI", raising=False)
    monkeypatch.setattr(runtimes, "installed_java", lambda: [java_home(tmp_path / "wheel", "25.0.2")])

    def make(*, without: tuple[str, ...] = (), adding: tuple[str, ...] = (), java: int = 8) -> FijiFolder:
        kept = [name for name in CORE if not name.split("/")[1].startswith(without)]
        for name in (*kept, *adding):
            jar(tmp_path / "Fiji.app" / name, java=java if "imagej-legacy" in name else 8)
        (tmp_path / "Fiji.app" / "jars").mkdir(exist_ok=True)
        (tmp_path / "Fiji.app" / "plugins").mkdir(exist_ok=True)
        found = find_fiji(tmp_path)
        assert found is not None
        return found

    return make


def test_a_complete_fiji_has_no_problems(make_fiji: MakeFiji, tmp_path: Path) -> None:
    fiji = make_fiji()
    assert fiji.path == tmp_path / "Fiji.app"
    assert fiji.problems() == []
    assert (fiji.version("csbdeep"), fiji.version("ij"), fiji.tensorflow) == ("0.6.0", "1.54p", "1.15.0")


@pytest.mark.parametrize(
    ("without", "adding", "words"),
    [
        (("csbdeep",), (), "the CSBDeep plugin is not in it: in Fiji, Help > Update"),
        (("libtensorflow",), (), "it has no TensorFlow, and the plugin cannot run a network without it"),
        (("imagej-tensorflow",), (), "tick TensorFlow, apply and restart"),
        (("imglib2-unsafe",), (), r"pyimagej needs imglib2-unsafe-1\.0\.0\.jar in .*jars: put them there"),
        (("imglib2-imglyb", "imglib2-unsafe"), (), "imglib2-imglyb-1.1.0.jar and imglib2-unsafe-1.0.0.jar"),
        (("imagej-legacy",), (), "no complete Fiji"),
        (
            ("protobuf",),
            ("jars/protobuf-java-4.28.3.jar",),
            r"protobuf-java 4\.28\.3 is too new for TensorFlow 1",
        ),
        (
            ("imagej-tensorflow",),
            ("jars/imagej-tensorflow-1.1.8.jar",),
            r"1\.1\.8 fails on every Java from 9 on",
        ),
        (
            (),
            ("plugins/csbdeep-0.5.0.jar",),
            r"holds csbdeep more than once, .*keep csbdeep-0\.6\.0\.jar, and move the other out of jars and plugins",
        ),
        ((), ("lib/linux64/.crashed",), r"disabled since: delete .*\.crashed"),
    ],
    ids=[
        "no plugin",
        "no tensorflow",
        "no bridge",
        "no unsafe",
        "no imglyb",
        "no legacy",
        "protobuf",
        "java 8",
        "two plugins",
        "crashed",
    ],
)
def test_each_problem_is_one_sentence_with_its_cure(
    make_fiji: MakeFiji, without: tuple[str, ...], adding: tuple[str, ...], words: str
) -> None:
    fiji = make_fiji(without=without, adding=adding)
    (problem,) = fiji.problems()
    assert "\n" not in problem
    with pytest.raises(NotInstalledError, match=words):
        FijiSession(fiji.path)


@pytest.mark.parametrize(
    ("adding", "what", "kept"),
    [
        # Seen in a Fiji: makeExtensionsImmutable is missing wherever Java meets version 4 first.
        ("protobuf-java-4.28.3.jar", "protobuf-java more than once", "keep protobuf-java-3.5.1.jar"),
        ("libtensorflow-1.12.0.jar", "libtensorflow more than once", "keep libtensorflow-1.15.0.jar"),
        (
            "libtensorflow_jni-1.12.0.jar",
            "libtensorflow_jni more than once",
            "keep libtensorflow_jni-1.15.0.jar",
        ),
        (
            "imagej-tensorflow-1.1.4.jar",
            "imagej-tensorflow more than once",
            "keep imagej-tensorflow-1.1.9.jar",
        ),
        ("imglib2-unsafe-0.4.1.jar", "imglib2-unsafe more than once", "keep imglib2-unsafe-1.0.0.jar"),
    ],
)
def test_two_jars_of_one_thing_are_a_problem_that_says_which_to_keep(
    make_fiji: MakeFiji, adding: str, what: str, kept: str
) -> None:
    (problem,) = make_fiji(adding=(f"jars/{adding}",)).problems()
    assert what in problem
    assert kept in problem


@pytest.mark.parametrize(
    ("holding", "what"),
    [
        ("com/google/protobuf/Message.class", "protobuf-java"),
        ("org/tensorflow/TensorFlow.class", "libtensorflow"),
        ("org/tensorflow/native/linux-x86_64/libtensorflow_jni.so", "libtensorflow_jni"),
    ],
)
def test_a_jar_that_brings_the_same_classes_under_another_name_is_a_problem(
    make_fiji: MakeFiji, holding: str, what: str
) -> None:
    fiji = make_fiji()
    jar(fiji.path / "plugins" / "All_In_One-1.0.0.jar", holding=holding)
    (problem,) = FijiFolder(fiji.path).problems()
    assert problem.startswith(f"it holds {what} more than once")
    assert "All_In_One-1.0.0.jar keep" in problem or "All_In_One-1.0.0.jar and" in problem
    assert f"keep {what}-" in problem


@pytest.mark.parametrize(
    ("library", "native", "runs"), [("1.12.0", "1.15.0", False), ("1.15.0", "1.12.0", True)]
)
def test_a_tensorflow_older_than_its_native_library_is_a_problem(
    make_fiji: MakeFiji, library: str, native: str, runs: bool
) -> None:
    # Tried in a Fiji, both ways round.
    fiji = make_fiji(without=("libtensorflow",), adding=(f"jars/libtensorflow-{library}.jar",))
    gpu = fiji.path / "jars" / f"libtensorflow_jni_gpu-{native}.jar"
    jar(gpu, holding="org/tensorflow/native/linux-x86_64/libtensorflow_jni.so")
    said = f"its libtensorflow-{library}.jar does not load the newer {gpu.name}: "
    assert [problem.startswith(said) for problem in FijiFolder(fiji.path).problems()] == [True] * (not runs)


def test_where_the_jars_for_numpy_are_found_is_said(make_fiji: MakeFiji) -> None:
    (problem,) = make_fiji(without=("imglib2-imglyb", "imglib2-unsafe")).problems()
    for words in ("net.imglib2:imglib2-imglyb:1.1.0", "net.imglib2:imglib2-unsafe:1.0.0", "SciJava's Maven"):
        assert words in problem


def test_everything_that_is_missing_is_told_at_once(make_fiji: MakeFiji) -> None:
    fiji = make_fiji(without=("csbdeep", "libtensorflow", "imglib2-imglyb"))
    with pytest.raises(NotInstalledError) as caught:
        FijiSession(fiji.path)
    assert str(caught.value).count("\n") == 2


def test_java_must_be_as_new_as_the_class_files(
    make_fiji: MakeFiji, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fiji = make_fiji(java=21)
    assert fiji.java_needed == (21, "imagej-legacy-2.0.3.jar")
    monkeypatch.setenv("CARE_BRIDGE_JAVA_HOME", str(java_home(tmp_path / "jdk-17", "17.0.15")))
    (problem,) = fiji.problems()
    assert (
        "needs Java 21 or newer (imagej-legacy-2.0.3.jar holds classes for Java 21); found Java 17 at"
        in problem
    )


@pytest.mark.parametrize(
    "layout", ["linux64/jdk-21", "linux-amd64/zulu21/jre", "linux64/zulu21-ca-jdk21.0.9-linux_x64"]
)
def test_the_java_inside_fiji_comes_first_where_it_is_new_enough(
    make_fiji: MakeFiji, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("care_bridge.java.installation.sys.platform", "linux")
    monkeypatch.setattr(runtimes, "native_platform", lambda: "linux-x86_64")
    fiji = make_fiji()
    home = java_home(fiji.path / "java" / layout, "21.0.9")
    java_home(fiji.path / "java" / "macosx" / "jdk", "25.0.1")
    java_home(fiji.path / "java" / "linux-arm64" / "jdk", "25.0.1")
    assert fiji.own_java == home
    assert fiji.java() == home


def test_the_java_8_of_an_old_fiji_is_passed_over(
    make_fiji: MakeFiji, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("care_bridge.java.installation.sys.platform", "linux")
    fiji = make_fiji()
    old = java_home(fiji.path / "java" / "linux-amd64" / "jdk1.8.0_172" / "jre", "1.8.0_172")
    assert java_major(old) == 8
    assert fiji.java() == tmp_path / "wheel"


def test_a_java_newer_than_fijis_own_is_the_last_choice(
    make_fiji: MakeFiji, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fiji = make_fiji()
    homes = [java_home(tmp_path / "wheel", "25.0.2"), java_home(tmp_path / "system", "17.0.15")]
    monkeypatch.setattr(runtimes, "installed_java", lambda: homes)
    assert fiji.java() == tmp_path / "system"


def test_no_java_at_all_is_told(make_fiji: MakeFiji, monkeypatch: pytest.MonkeyPatch) -> None:
    fiji = make_fiji()
    monkeypatch.setattr(runtimes, "installed_java", list)
    with pytest.raises(
        NotInstalledError, match=r"needs Java 11 or newer \(pyimagej needs it\); found no Java: pip install"
    ):
        fiji.java()


def test_a_folder_that_is_no_fiji_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has no folders jars and plugins; give the folder of Fiji"):
        find_fiji(tmp_path)
    monkeypatch.setenv("CARE_BRIDGE_FIJI", str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"CARE_BRIDGE_FIJI=.*absent is no folder"):
        find_fiji()
    monkeypatch.delenv("CARE_BRIDGE_FIJI")
    assert find_fiji() is None
    with pytest.raises(NotInstalledError, match="no Fiji is named: set CARE_BRIDGE_FIJI"):
        FijiSession()


def test_a_jar_that_cannot_be_read_counts_as_old(tmp_path: Path) -> None:
    (tmp_path / "broken.jar").write_text("no jar")
    assert class_file_java(tmp_path / "broken.jar") == 8
    jar(tmp_path / "new.jar", java=17)
    assert class_file_java(tmp_path / "new.jar") == 17


def test_the_reasons_are_found_in_what_java_prints() -> None:
    # Shortened from what CSBDeep 0.6.0 printed; see fiji-recorded/cases/b04 and b08 beside a developer's checkout.
    printed = """
[INFO] Loading TensorFlow model GenericNetwork_1 from source file
java.util.concurrent.ExecutionException: java.lang.IllegalArgumentException: input depth must be evenly divisible
\tat java.base/java.util.concurrent.FutureTask.report(FutureTask.java:122)
Caused by: java.lang.IllegalArgumentException: input depth must be evenly divisible
\t... 5 more
[ERROR] net.imagej.DefaultDataset: Input axis of type Channel should have size 1 but has size 3
"""
    assert reasons(printed) == [
        "java.util.concurrent.ExecutionException: java.lang.IllegalArgumentException: input depth must be evenly divisible",
        "java.lang.IllegalArgumentException: input depth must be evenly divisible",
        "Input axis of type Channel should have size 1 but has size 3",
    ]
