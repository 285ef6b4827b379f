"""Holds our Noise2Void against the package n2v, which needs a Python of its own: folders of ours opened there, and steps.

    python3.11 -m venv v && v/bin/pip install n2v==0.3.3 tensorflow-cpu==2.13.1 "csbdeep<0.8" "numpy<1.25"
    python benchmarks/n2v_beside.py --n2v v/bin/python [--turns 3] [--steps 8] [--only folders steps image]
        [--data DIR] [--epochs 8]

folders: networks of each layout that n2v builds, with random weights, written by us and restored with in both; the largest
difference as a share of the range. steps: one training step of the same network (32 features, depth 2, kernel 3, batch
normalisation, batch 16, patches of 64 x 64, 64 blind spots each), drawing of patches included, by turns in a process each;
median wall and processor time. On a busy machine the ratio of processor times is the one to quote.
image: both packages learn, by the same lines, from the upper 384 rows of BPAE_R (DIR/pairs_fmd) in three random orders, 16
features and 50 steps an epoch; PSNR of the whole frame as benchmarks/n2v.py measures it, before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

# n2v's Python runs this file too, so nothing of care_bridge is imported up here.
LAYOUTS: dict[str, dict[str, Any]] = {
    "as n2v": {"unet_batch_norm": True, "unet_narrow_up": True},
    "residual, structN2V": {"unet_narrow_up": True, "unet_residual": True, "n2v_structmask": ((1, 1, 1),)},
    "N2V2": {"unet_batch_norm": True, "unet_blurpool": "n2v", "unet_top_skip": False},
    "one level": {"unet_n_depth": 1},
    "stack": {"axes": "ZYX", "unet_batch_norm": True, "unet_narrow_up": True},
    "three channels": {
        "n_channel_in": 3,
        "n_channel_out": 3,
        "means": (1.0, 2.0, 3.0),
        "stds": (1.0, 2.0, 3.0),
        "unet_batch_norm": True,
        "unet_narrow_up": True,
    },
}
BATCH, PATCH, PERCENT = 16, (64, 64), 1.6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("folders", "steps", "image")
    parser.add_argument("--n2v", help="a Python that has n2v")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        return work(*given.work)
    if not given.n2v:
        parser.error("give --n2v PYTHON")
    if "folders" in given.only:
        folders(given.n2v)
    if "steps" in given.only:
        steps(given.n2v, given.turns, given.steps)
    if "image" in given.only:
        image(given.n2v, given.data / "pairs_fmd", given.epochs)
    return 0


def folders(python: str) -> None:
    from care_bridge.config import CareConfig
    from care_bridge.images import Image
    from care_bridge.opening import open_predictor
    from care_bridge.training.folder import save_model
    from care_bridge.training.unet import build

    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        for number, more in enumerate(LAYOUTS.values()):
            usual = {"method": "n2v", "unet_n_first": 4, "means": (100.0,), "stds": (20.0,)}
            config = CareConfig(**{**usual, **more})
            network = build(config)
            for weight in network.weights:
                if "blur" not in weight.path:  # n2v's kernel is always the same
                    weight.assign(weight + abs(random.normal(0, 0.05, weight.shape)))
            folder = Path(place) / str(number)
            save_model(folder, config, network)
            axes = config.axes if config.n_channel_in > 1 else config.axes[:-1]
            sizes = {"Z": 8, "Y": 21, "X": 26, "C": config.n_channel_in}
            image = random.normal(100, 20, [sizes[letter] for letter in axes]).astype(np.float32)
            with open_predictor(folder, runtime="keras") as predictor:
                restored = predictor.predict(Image(image, axes)).data
            np.savez(folder / "io.npz", image=image, axes=axes, restored=restored)
        done = subprocess.run(
            [python, __file__, "--work", place], capture_output=True, text=True, check=False
        )
    found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    for number, name in enumerate(LAYOUTS):
        print(f"{name:<22} {found.get(str(number), float('nan')):.1e}")
    if not found:
        print(done.stderr[-2000:])


def steps(python: str, turns: int, count: int) -> None:
    workers = {
        name: subprocess.Popen(
            [which, __file__, "--work", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name, which in (("ours", sys.executable), ("ours, bfloat16", sys.executable), ("n2v", python))
    }
    took: dict[str, list[list[float]]] = {name: [] for name in workers}
    for turn in range(turns + 1):
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            print(count, file=worker.stdin, flush=True)
            line = next(line for line in worker.stdout if line.startswith("["))
            if turn:  # the first is translated for the machine
                took[name].append(json.loads(line))
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()
    medians = {
        name: [statistics.median(one[at] for one in found) / count for at in (0, 1)]
        for name, found in took.items()
    }
    for name, (wall, processor) in medians.items():
        ratios = [one / other for one, other in zip((wall, processor), medians["n2v"], strict=True)]
        print(
            f"{name:<14} {wall:6.3f} s a step ({ratios[0]:.2f}), {processor:6.3f} s of processor ({ratios[1]:.2f})"
        )


def image(python: str, pairs: Path, epochs: int) -> None:
    from care_bridge.images import read_image
    from care_bridge.metrics import psnr

    truth = read_image(pairs / "BPAE_R_gt_avg50.tif").data
    noisy = (pairs / "BPAE_R_noisy.tif").resolve()
    print(f"noisy frame: {psnr(read_image(noisy).data, truth):.2f} dB")
    for name, which in (("ours", sys.executable), ("n2v", python)):
        found = []
        for seed in range(3):
            with tempfile.TemporaryDirectory() as place:
                words = [which, __file__, "--work", name, str(noisy), place, str(seed), str(epochs)]
                subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                found.append(psnr(np.load(Path(place) / "restored.npy"), truth))
        shown = ", ".join(f"{one:.2f}" for one in found)
        print(
            f"{name}: {statistics.mean(found):.2f} dB, deviation {statistics.stdev(found):.2f} ({shown})",
            flush=True,
        )


# --- in a process of its own


def work(what: str, *more: str) -> int:
    """In n2v's Python: restore with all folders; in either: steps, as many as each line says."""
    # Beside this file lies an n2v.py, which is not n2v.
    sys.path[:] = [
        place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent
    ]
    if more:
        return _restore(what, Path(more[0]), Path(more[1]), seed=int(more[2]), epochs=int(more[3]))
    if what not in ("ours", "ours, bfloat16", "n2v"):
        from n2v.models import N2V

        found = {}
        for folder in Path(what).iterdir():
            told = np.load(folder / "io.npz")
            restored = N2V(None, folder.name, basedir=what).predict(told["image"], str(told["axes"]))
            found[folder.name] = float(np.abs(restored - told["restored"]).max() / np.ptp(told["restored"]))
        print(json.dumps(found))
        return 0
    noisy = np.random.default_rng(0).normal(100, 20, (64, 96, 96, 1)).astype(np.float32)
    run = _theirs(noisy) if what == "n2v" else _ours(noisy, "bfloat16" if "," in what else "float32")
    for line in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        run(int(line))
        print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]), flush=True)
    return 0


def _ours(noisy: np.ndarray, precision: str) -> Callable[[int], None]:
    from care_bridge.n2v.models import N2VConfig
    from care_bridge.n2v.models.model import _blind_spots, _validation
    from care_bridge.training import fit
    from care_bridge.training.batches import batches
    from care_bridge.training.checkpoint import State

    config = N2VConfig(
        noisy,
        unet_kern_size=3,
        train_loss="mse",
        n2v_perc_pix=PERCENT,
        n2v_patch_shape=PATCH,
        train_precision=precision,
    ).settings()
    source = _blind_spots(noisy, config)
    run = fit._Run(config, source, _validation(noisy[:1, :64, :64], config), State(settings={}, data=""))

    def steps(count: int) -> None:
        for one in batches(source, config, start=0, stop=count):
            run.step(one)

    return steps


def _theirs(noisy: np.ndarray) -> Callable[[int], None]:
    from n2v.internals.N2V_DataWrapper import N2V_DataWrapper
    from n2v.models import N2V, N2VConfig
    from n2v.utils.n2v_utils import pm_uniform_withCP

    config = N2VConfig(
        noisy,
        unet_kern_size=3,
        train_loss="mse",
        n2v_perc_pix=PERCENT,
        n2v_patch_shape=PATCH,
        train_tensorboard=False,
    )
    model = N2V(config, "model", basedir=tempfile.mkdtemp())
    model.prepare_for_training()
    pixels = (noisy - noisy.mean()) / noisy.std()
    both = np.concatenate([pixels, np.zeros_like(pixels)], axis=-1)

    def steps(count: int) -> None:
        # As N2V.train calls it, for one epoch and without its validation and callbacks.
        wrapper = N2V_DataWrapper(
            pixels,
            both,
            BATCH,
            length=count,
            perc_pix=PERCENT,
            shape=PATCH,
            value_manipulation=pm_uniform_withCP(5),
        )
        model.keras_model.fit(iter(wrapper), epochs=1, steps_per_epoch=count, verbose=0)

    return steps


def _restore(what: str, path: Path, place: Path, *, seed: int, epochs: int) -> int:
    import tifffile

    if what == "n2v":
        from n2v.internals.N2V_DataGenerator import N2V_DataGenerator
        from n2v.models import N2V, N2VConfig
    else:
        from care_bridge.n2v.internals.N2V_DataGenerator import N2V_DataGenerator
        from care_bridge.n2v.models import N2V, N2VConfig
    noisy = tifffile.imread(path).astype(np.float32)
    np.random.seed(seed)
    datagen = N2V_DataGenerator()
    patches, held_out = (
        datagen.generate_patches_from_list([rows[None, ..., None]], shape=PATCH, augment=turned)
        for rows, turned in ((noisy[:384], True), (noisy[384:], False))
    )
    config = N2VConfig(
        patches,
        unet_kern_size=3,
        unet_n_first=16,
        train_steps_per_epoch=50,
        train_epochs=epochs,
        train_loss="mse",
        train_batch_size=BATCH,
        n2v_perc_pix=PERCENT,
        n2v_patch_shape=PATCH,
        train_tensorboard=False,
        **({} if what == "n2v" else {"seed": seed}),
    )
    model = N2V(config, "model", basedir=str(place))
    model.train(patches, held_out)
    np.save(place / "restored.npy", model.predict(noisy, "YX"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
