"""Work handed to workers of dask.distributed: the same results, nothing lost, and clear words where it cannot be."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("distributed")

from care_bridge import cluster as clusters
from care_bridge.cli import app
from care_bridge.cluster import Cluster, held, open_cluster, versions
from care_bridge.errors import InputError, WorkerError
from care_bridge.images import Image, read_image, write_image
from care_bridge.inference.files import predict_files
from care_bridge.inference.large import predict_volume

pytestmark = pytest.mark.filterwarnings("ignore")  # of dask's own sockets and loops, and of what they import

_spec = importlib.util.spec_from_file_location(
    "piecewise_network", Path(__file__).with_name("piecewise_network.py")
)
assert _spec is not None
assert _spec.loader is not None
network = importlib.util.module_from_spec(_spec)
sys.modules["piecewise_network"] = network
_spec.loader.exec_module(network)

TILES = {"Z": 2, "Y": 4, "X": 3}


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    """Two workers, which find this folder's module."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    try:
        with open_cluster("local:2") as found:
            yield found
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    data = np.random.default_rng(0).gamma(2.0, 300.0, (12, 60, 50)).astype(np.uint16)
    write_image(tmp_path / "in.ome.zarr", Image(data, "ZYX", {"Y": 0.1, "X": 0.1}))
    return tmp_path / "in.ome.zarr"


def expected(source: Path) -> np.ndarray:
    return network.predictor(TILES).predict(read_image(source)).data


def pid_after(seconds: float, _item: int) -> int:
    time.sleep(seconds)
    return os.getpid()


def fails(_item: int) -> None:
    raise InputError("'a.tif' is no image")


def what_is_held(item: int) -> tuple[int, float]:
    return os.getpid(), held("test:one", time.perf_counter)


class Opener:
    """What a worker opens by; its `repr` tells it from others."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> Any:
        from piecewise_network import predictor

        return predictor({"Z": 2, "Y": 4, "X": 3}, seconds=self.seconds), None

    def __repr__(self) -> str:
        return f"Opener({self.seconds})"


@pytest.fixture(autouse=True)
def by_value() -> None:
    """Classes of this module are sent whole: workers cannot import a test."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.tif"])
def test_workers_give_the_bits_of_memory(two: Cluster, volume: Path, name: str) -> None:
    out = volume.with_name(name)
    said = []
    predict_volume(
        network.predictor(TILES),
        volume,
        out,
        cluster=two,
        opener=Opener(),
        progress=lambda *told: said.append(told),
    )
    assert np.array_equal(read_image(out).data, expected(volume))
    assert (24, 24, "restoring: pieces") in said


def test_work_is_shared_among_workers_and_what_is_dear_is_made_once_in_each(two: Cluster) -> None:
    pids = {pid for _, pid in two.each(pid_after, range(8), 0.1)}
    assert len(pids) == two.n_workers == 2
    kept = {told for _, told in two.each(what_is_held, range(20))}
    assert len(kept) == len({pid for pid, _ in kept})


def test_a_mistake_in_a_worker_is_the_same_sentence_here(two: Cluster) -> None:
    with pytest.raises(InputError, match=r"'a\.tif' is no image"):
        list(two.each(fails, range(3)))


def test_a_killed_worker_loses_no_shard(two: Cluster, volume: Path) -> None:
    killed = []

    def kill(done: int, total: int, what: str) -> None:
        # Each time another: dask starts a new one in its place.
        if what.startswith("restoring") and done in (3, 9, 15):
            pid = next(iter(two.submit(os.getpid).result() for _ in range(1)))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    out = volume.with_name("out.ome.zarr")
    predict_volume(network.predictor(TILES), volume, out, cluster=two, opener=Opener(0.05), progress=kill)
    assert len(killed) == 3
    assert np.array_equal(read_image(out).data, expected(volume))


def test_a_stopped_run_on_workers_is_gone_on_with_here(two: Cluster, volume: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("restoring") and done == 7:
            raise StoppedError

    out = volume.with_name("out.ome.zarr")
    more: dict[str, Any] = {"source": volume, "out": out}
    with pytest.raises(StoppedError):
        predict_volume(network.predictor(TILES), cluster=two, opener=Opener(), progress=stop, **more)
    assert not out.exists()
    predict_volume(network.predictor(TILES), resume=True, **more)
    assert np.array_equal(read_image(out).data, expected(volume))


def test_a_folder_is_restored_file_by_file_and_problems_keep_their_names(
    two: Cluster, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    for name in ("a.tif", "b.ome.tif", "c.ome.zarr"):
        write_image(tmp_path / "in" / name, Image(random.integers(0, 999, (6, 30, 20)).astype("u2"), "ZYX"))
    (tmp_path / "in" / "bad.tif").write_bytes(b"no image")
    files = sorted((tmp_path / "in").iterdir())
    problems: dict[str, str] = {}
    results = {}
    for where, more in (("there", {"cluster": two, "opener": Opener()}), ("here", {})):
        done = predict_files(
            network.predictor(TILES),
            files,
            target=lambda file, where=where: tmp_path / where / file.name,  # type: ignore[misc]
            problem=lambda file, why: problems.__setitem__(file.name, why),
            **more,  # type: ignore[arg-type]
        )
        results[where] = [each.source.name for each in done]
        assert list(problems) == ["bad.tif"]
        assert "is not a TIFF" in problems.pop("bad.tif")
    assert results["there"] == results["here"] == ["a.tif", "b.ome.tif", "c.ome.zarr"]
    for name in results["here"]:
        assert np.array_equal(
            read_image(tmp_path / "there" / name).data, read_image(tmp_path / "here" / name).data
        )


def test_pairs_made_by_workers_are_those_made_here(two: Cluster, tmp_path: Path) -> None:
    from care_bridge.simulate.folder import write_pairs

    random = np.random.default_rng(0)
    for number in range(3):
        clean = random.uniform(0, 900, (40, 40)).astype(np.float32)
        write_image(tmp_path / "clean" / f"{number}.ome.zarr", Image(clean, "YX", {"Y": 0.1, "X": 0.1}))
    for where, more in (("there", {"cluster": two}), ("here", {})):
        write_pairs("semisynthetic", [tmp_path / "clean"], out=tmp_path / where, seed=3, **more)
    names = [file.relative_to(tmp_path / "here") for file in sorted((tmp_path / "here").rglob("*.tif"))]
    assert len(names) >= 6
    for name in names:
        assert np.array_equal(
            read_image(tmp_path / "there" / name).data, read_image(tmp_path / "here" / name).data
        )
    for name in ("manifest.csv", "recipe.yaml"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


# --- what cannot be


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("local:0", "give local:N with N from 1"),
        ("local:two", "give local:N with N from 1"),
        ("nowhere.json", "is no address and no file"),
        ("tcp://127.0.0.1:9", "does not answer within 1 s"),
        ("smoke://signals", "does not answer within 1 s"),
    ],
)
def test_an_address_that_is_none_or_does_not_answer_is_one_sentence(address: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught, open_cluster(address, answer_s=1):
        pass
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Any]:
    """A scheduler with one worker that others started, in this process; its address, and its file."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as found:
        yield found


def test_workers_of_another_version_are_refused_by_name(
    scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = versions() | {"tensorflow": "2.18.0", "care_bridge": "0.0.9 (code 12345678)"}
    monkeypatch.setattr(clusters, "versions", lambda: ours)
    with (
        pytest.raises(InputError, match="of other versions would give other pixels") as caught,
        open_cluster(scheduler.scheduler_address),
    ):
        pass
    assert "(here 0.0.9 (code 12345678))" in str(caught.value)
    assert "(here 2.18.0)" in str(caught.value)
    assert "inproc://" in str(caught.value)  # which worker it is


def test_a_scheduler_without_workers_is_one_sentence() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as empty,
        pytest.raises(InputError, match="has no worker after 1 s"),
        open_cluster(empty.scheduler_address, answer_s=1),
    ):
        pass


def test_a_scheduler_s_file_leads_to_it(scheduler: Any, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps(scheduler.scheduler.identity()))
    with open_cluster(str(file)) as found:
        assert found.n_workers == 1
        assert list(found.each(pid_after, [1], 0.0)) == [(1, os.getpid())]


@pytest.mark.tf
def test_the_command_restores_on_workers(tmp_path: Path) -> None:
    from care_bridge.config import CareConfig
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    config = CareConfig(axes="ZYX", unet_n_first=2, unet_n_depth=1, unet_kern_size=3)
    save_model(tmp_path / "model", config, build(config))
    data = np.random.default_rng(0).integers(0, 999, (9, 30, 31)).astype("u2")
    write_image(tmp_path / "in.tif", Image(data, "ZYX"))
    words = ["predict", str(tmp_path / "model"), str(tmp_path / "in.tif"), "--n-tiles", "1,2,2", "--out"]
    for more in ([str(tmp_path / "a.ome.zarr"), "--cluster", "local:1"], [str(tmp_path / "b.ome.zarr")]):
        result = CliRunner().invoke(app, [*words, *more])
        assert result.exit_code == 0, result.output
    assert np.array_equal(read_image(tmp_path / "a.ome.zarr").data, read_image(tmp_path / "b.ome.zarr").data)


def test_deaths_again_and_again_end_in_one_sentence() -> None:
    from concurrent.futures import Future

    class KilledWorker(Exception):  # noqa: N818 - distributed's name
        pass

    future: Future[int] = Future()
    future.set_exception(KilledWorker("x"))
    with pytest.raises(WorkerError, match="workers died on one piece of work"):
        clusters._result(future)
