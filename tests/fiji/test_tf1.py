"""TensorFlow 1.x really run, in its worker."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from care_bridge.errors import InputError, NotInstalledError, WorkerError
from care_bridge.images import Image
from care_bridge.java import runtimes
from care_bridge.java.tf1 import TensorFlowError, Tf1Network, Tf1Session
from care_bridge.java.worker import Worker
from care_bridge.plugin.emulation import EmulatedPlugin
from care_bridge.plugin.options import PluginOptions
from care_bridge.predictor import Network

pytestmark = [pytest.mark.java, pytest.mark.usefixtures("tf1_ready")]

WriteBundle = Callable[..., Path]

V_1_15 = 134
"""GraphDef version of TensorFlow 1.15.0 (1.12.0: 27), as its own refusals say."""


@pytest.fixture(scope="module")
def tensorflow(tf1_ready: None) -> Iterator[Tf1Session]:
    with Tf1Session("1.15.0") as session:
        yield session


@pytest.fixture(scope="module")
def doubling(tmp_path_factory: pytest.TempPathFactory, write_bundle: WriteBundle) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "doubling.zip")


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).random(shape, dtype=np.float32)


@pytest.mark.parametrize("version", runtimes.TF1_VERSIONS)
def test_every_version_computes(version: str, doubling: Path) -> None:
    lacking = runtimes.missing(f"tf1-{version}")
    if lacking:
        pytest.skip(f"not here: {lacking}; run: care-bridge doctor --install tf1-all")
    with Tf1Network(doubling, version) as network:
        assert isinstance(network, Network)
        assert network.runtime.name == "tf1"
        assert network.runtime.versions["tensorflow"] == version
        assert "java" in network.runtime.versions
        assert network.input_shape == (None, None, None, 1)
        tensor = image(2, 33, 17, 1)
        np.testing.assert_array_equal(network(tensor), 2 * tensor)


def test_from_nothing_to_the_first_prediction_in_two_seconds(doubling: Path) -> None:
    start = time.monotonic()
    with Tf1Network(doubling) as network:
        network(image(1, 8, 8, 1))
        seconds = time.monotonic() - start
    # 0.9 s on two free cores; the rest is for a machine that does other things as well.
    alone = "PYTEST_XDIST_WORKER" not in os.environ and os.getloadavg()[0] < 1.5
    limit = 2.0 if alone else 20.0
    assert seconds < limit


@pytest.mark.parametrize("version", ["1.12.0", "1.15.0"])
def test_a_recorded_network_gives_what_the_plugin_got(shared: Path, version: str) -> None:
    folder = shared / "fiji-recorded"
    case = folder / ("cases" if version == "1.15.0" else "cases-tf1.12.0") / "a02_default_97_real"
    recorded = np.load(case / "output.npy")
    with Tf1Network(folder / "models" / "u2d_k3.zip", version) as network:
        predictor = EmulatedPlugin(network, PluginOptions())
        result = predictor.predict(Image(np.load(case / "input.npy"), "YX"))
    assert predictor.runtime.level == "tf1"
    assert np.abs(result.data - recorded).max() <= 2e-5 * np.ptp(recorded)


def test_one_worker_serves_many_bundles_by_turns(
    tensorflow: Tf1Session, tmp_path: Path, write_bundle: WriteBundle
) -> None:
    add = tensorflow.open(write_bundle(tmp_path / "add.zip", op="Add"))
    multiply = tensorflow.open(write_bundle(tmp_path / "multiply.zip", op="Mul"))
    pid = tensorflow.worker.pid
    tensor = image(1, 20, 20, 1)
    for _ in range(3):
        np.testing.assert_array_equal(add(tensor), 2 * tensor)
        np.testing.assert_array_equal(multiply(tensor), tensor * tensor)
    multiply.close()
    np.testing.assert_array_equal(add(add(tensor)), 4 * tensor)
    assert tensorflow.worker.pid == pid
    assert [file.name for file in tensorflow.worker.folder.iterdir()] == ["log.txt"]


def test_same_worker_and_fresh_worker_agree_to_the_bit(tensorflow: Tf1Session, shared: Path) -> None:
    bundle = shared / "fiji-recorded" / "models" / "u2d_k3.zip"
    network = tensorflow.open(bundle)
    tensor = image(1, 64, 64, 1)
    first = network(tensor)
    np.testing.assert_array_equal(network(tensor), first)
    with Tf1Network(bundle) as fresh:
        np.testing.assert_array_equal(fresh(tensor), first)


def test_the_number_of_threads_can_be_held(doubling: Path, shared: Path) -> None:
    with Tf1Network(shared / "fiji-recorded" / "models" / "u2d_k3.zip", threads=1) as network:
        network(image(1, 256, 256, 1))
        names = [thread.id for thread in psutil.Process(network._session.worker.pid).threads()]
    assert names  # the option is accepted; what it changes is the order of sums
    with pytest.raises(InputError, match="threads=0 is not between 1 and 127"):
        Tf1Session(threads=0)


def test_what_fits_is_asked_of_the_graph_and_not_of_the_signature(
    tensorflow: Tf1Session, shared: Path
) -> None:
    models = shared / "fiji-recorded" / "models"
    # Its batch is fixed to 1 in the signature alone; the plugin fed it five planes and got five
    # (CSBDeep 0.6.0, TensorFlow 1.12.0 and 1.15.0; unlabelled axes ??? with batchSize=5).
    batch_of_one = tensorflow.open(models / "u2d_batch1.zip")
    assert batch_of_one.input_shape[0] == 1
    assert batch_of_one(image(5, 16, 16, 1)).shape == (5, 16, 16, 1)
    with pytest.raises(
        TensorFlowError, match="input depth must be evenly divisible by filter depth: 1 vs 3"
    ) as caught:
        tensorflow.open(models / "u2d_3to1.zip")(image(1, 8, 8, 1))
    assert "(1, 8, 8, 1)" in str(caught.value)


def test_a_crash_of_tensorflow_leaves_no_report_in_the_cache(shared: Path) -> None:
    before = set(runtimes.cache_folder().rglob("hs_err*"))
    # Four planes halved twice leave one; three leave none, and TensorFlow 1.15.0 divides by it. The real plugin takes
    # Fiji with it (a plane into u3d_k3 with blockMultiple=2; CSBDeep 0.6.0).
    with Tf1Network(shared / "fiji-recorded" / "models" / "u3d_k3.zip") as network:
        with pytest.raises(WorkerError, match="killed by SIG"):
            network(image(1, 3, 20, 20, 1))
        assert network(image(1, 4, 20, 20, 1)).shape == (1, 4, 20, 20, 1)
    assert set(runtimes.cache_folder().rglob("hs_err*")) == before


def test_nan_and_infinity_go_through_untouched(tensorflow: Tf1Session, doubling: Path) -> None:
    tensor = image(1, 4, 4, 1)
    tensor[0, 0, 0], tensor[0, 1, 1] = np.nan, np.inf
    np.testing.assert_array_equal(tensorflow.open(doubling)(tensor), 2 * tensor)


def test_strided_and_double_precision_tensors_are_converted(tensorflow: Tf1Session, doubling: Path) -> None:
    tensor = np.asfortranarray(image(1, 40, 30, 1).astype(np.float64))[:, ::2, ::-1]
    result = tensorflow.open(doubling)(tensor)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, 2 * tensor.astype(np.float32))


def test_a_model_that_1_15_accepts_and_1_12_refuses_is_told_with_the_attribute(
    tensorflow: Tf1Session, tmp_path: Path, write_bundle: WriteBundle
) -> None:
    # incompatible_shape_error came to Equal with 1.15.
    path = write_bundle(tmp_path / "new.zip", op="Equal", attribute="incompatible_shape_error")
    tensorflow.open(path)
    with pytest.raises(
        TensorFlowError, match=r"1\.12\.0 refuses .*new\.zip: NodeDef mentions attr"
    ) as caught:
        Tf1Network(path, "1.12.0")
    assert "'incompatible_shape_error' not in Op<name=Equal>; export the model anew" in str(caught.value)
    assert "signature=x:T, y:T -> z:bool" in caught.value.reason
    assert "\n" not in str(caught.value)


def test_a_model_that_1_12_accepts_and_1_15_refuses_is_told(
    tensorflow: Tf1Session, tmp_path: Path, write_bundle: WriteBundle
) -> None:
    # VersionDef: 1 producer, 3 bad_consumers.
    versions = bytes([1 << 3, 27, 3 << 3, V_1_15 & 0x7F | 0x80, V_1_15 >> 7])
    path = write_bundle(tmp_path / "old.zip", versions=versions)
    with Tf1Network(path, "1.12.0") as network:
        network(image(1, 4, 4, 1))
    with pytest.raises(TensorFlowError, match=r"1\.15\.0 refuses .*GraphDef disallows consumer version 134"):
        tensorflow.open(path)
    assert tensorflow.worker.alive


def test_a_bundle_written_by_keras_export_is_refused_with_its_attribute(
    tensorflow: Tf1Session, shared: Path
) -> None:
    with pytest.raises(
        TensorFlowError, match=r"attr 'debug_name' not in Op<name=VarHandleOp>; export the model anew"
    ):
        tensorflow.open(shared / "fiji-recorded" / "unusual-zips" / "keras3_export.zip")


def test_an_output_that_is_no_float_is_told(
    tensorflow: Tf1Session, tmp_path: Path, write_bundle: WriteBundle
) -> None:
    network = tensorflow.open(write_bundle(tmp_path / "equal.zip", op="Equal"))
    with pytest.raises(InputError, match="the network's output is BOOL; the plugin needs FLOAT"):
        network(image(1, 4, 4, 1))


def test_paths_with_blanks_umlauts_and_300_characters_work(
    tensorflow: Tf1Session, tmp_path: Path, write_bundle: WriteBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mit Leerzeichen" / "Grüße µ" / ("x" * 180) / ("y" * 120)
    folder.mkdir(parents=True)
    tensor = image(1, 4, 4, 1)
    np.testing.assert_array_equal(
        tensorflow.open(write_bundle(folder / "Zellkörper.zip"))(tensor), 2 * tensor
    )
    # The cache itself in such a folder, under a locale that knows no umlauts.
    cache = folder / "Zwischenspeicher"
    cache.symlink_to(runtimes.cache_folder())
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(cache))
    monkeypatch.setenv("LC_ALL", "C")
    with Tf1Network(folder / "Zellkörper.zip") as network:
        np.testing.assert_array_equal(network(tensor), 2 * tensor)


def test_after_its_worker_was_killed_the_next_call_starts_another(doubling: Path) -> None:
    with Tf1Session() as session:
        network = session.open(doubling)
        killed = session.worker  # held: asked for after its end, the session would start another
        os.kill(killed.pid, signal.SIGKILL)
        killed._process.wait()
        tensor = image(1, 5, 5, 1)
        np.testing.assert_array_equal(network(tensor), 2 * tensor)
        assert session.worker.pid != killed.pid


def test_a_call_that_takes_too_long_is_ended_and_emulation_does_not_hide_it(doubling: Path) -> None:
    with Tf1Session() as session:
        network = session.open(doubling)
        os.kill(session.worker.pid, signal.SIGSTOP)  # hangs without a word
        session.worker._timeout_s = 0.5
        predictor = EmulatedPlugin(network, PluginOptions(nTiles=1))
        with pytest.raises(WorkerError, match=r"no sign of life for 0\.5 s"):
            predictor.predict(Image(image(8, 8), "YX"))


def test_a_heap_that_does_not_start_is_told(doubling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARE_BRIDGE_HEAP_MB", "999999999")
    with pytest.raises(WorkerError, match=r"heap|memory|reserve"):
        Tf1Network(doubling)


def test_a_java_error_comes_with_its_innermost_cause_and_memory_with_advice() -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parent)}
    with Worker("toy_java_worker", environment=environment) as worker:
        with pytest.raises(WorkerError, match=r"^java.lang.IllegalStateException: the innermost cause$"):
            worker.call("fail")
        with pytest.raises(
            WorkerError, match=r"OutOfMemoryError: .*set CARE_BRIDGE_HEAP_MB higher, or use more"
        ):
            worker.call("fill", mib=64)
        assert worker.call("fill", mib=4).values == {"arrays": 4}  # and it lives on


def test_a_version_that_is_not_fetched_says_the_command(
    doubling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARE_BRIDGE_CACHE", str(tmp_path))
    with pytest.raises(NotInstalledError, match=r"run: care-bridge doctor --install tf1-1\.13\.1"):
        Tf1Network(doubling, "1.13.1")
    with pytest.raises(InputError, match=r"version='2\.0' is none of TensorFlow 1\.12\.0"):
        Tf1Network(doubling, "2.0")


def test_a_large_stack_passes_without_a_second_copy_here(tensorflow: Tf1Session, doubling: Path) -> None:
    network = tensorflow.open(doubling)
    stack = np.ones((64, 1024, 1024, 1), np.float32)  # 256 MiB
    process = psutil.Process()
    before = process.memory_info().rss
    result = network(stack)
    assert process.memory_info().rss - before < 64 << 20
    assert result.shape == stack.shape
    assert result[-1, -1, -1, 0] == 2


def test_tensors_longer_than_a_java_buffer_go_in_pieces(
    tensorflow: Tf1Session, doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from care_bridge.java import tf1_worker

    monkeypatch.setattr(tf1_worker, "_LONGEST_BUFFER_BYTES", 1000)
    tensor = image(7, 10, 10, 1)
    pieces = tf1_worker._pieces(tensor)
    np.testing.assert_array_equal(np.concatenate([tensor[piece] for piece in pieces]), tensor)
    assert all(tensor[piece].nbytes <= 1000 for piece in pieces)
    with pytest.raises(InputError, match="use more tiles"):
        tf1_worker._pieces(image(2, 20, 20, 1))


def test_no_worker_is_left_behind(doubling: Path) -> None:
    pids = []
    for _ in range(3):
        with Tf1Network(doubling) as network:
            pids.append(network._session.worker.pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(pids[-1]).status() == psutil.STATUS_ZOMBIE
    assert not set(pids) & set(psutil.pids())
