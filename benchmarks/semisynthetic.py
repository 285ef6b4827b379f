"""Do networks trained on simulated pairs restore images that were never simulated?

    python benchmarks/semisynthetic.py --data ../shared/data --out semisynthetic [--only mitochondria fibre ...]

Asked, with small networks and a minute or two of training each:

- mitochondria: trained on degraded HeLa and BPAE cells, tested on a real noisy frame and the mean of 50 frames of
  another microscope (BPAE_R of FMD); against the noisy frame and a Gaussian filter tuned on the training pairs;
- tubules: at which distance are two parallel lines seen apart, before and after;
- fibre: how far the power at the honeycomb's frequencies falls on an image that was not trained on;
- isotropic: SSIM of xz planes of synthetic nuclei against linear interpolation, factors 2, 4 and 10;
- photons: PSNR gained at 1/2 ... 1/60 of the photons.

Writes results.csv. Exit code 1 when an answer is not what is hoped for; the figures are printed either way.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from scipy import ndimage

from care_bridge.config import CareConfig
from care_bridge.evaluate.baselines import tune
from care_bridge.evaluate.scores import score_image
from care_bridge.images import Image, read_image
from care_bridge.inference.keras import KerasPredictor
from care_bridge.inference.volumes import IsotropicPredictor, upsample_z
from care_bridge.patches import Foreground, pairs_from_arrays, sample_patches
from care_bridge.simulate import degrade, fibre, structures
from care_bridge.simulate.dataset import make_pairs, pair_stream
from care_bridge.simulate.isotropic import usable_factor
from care_bridge.simulate.optics import Optics, psf
from care_bridge.simulate.pair import Pair
from care_bridge.simulate.recipe import Recipe, load_recipe, parse_recipe
from care_bridge.training.fit import train

PIXEL_UM = {"Y": 0.1, "X": 0.1}
Row = tuple[str, str, str, float]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("semisynthetic"))
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="Multiplies the training steps.")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    good = True
    for name in options.only:
        start = time.perf_counter()
        found, passed = PARTS[name](options)
        good &= passed
        for what, measure, value in found:
            rows.append((name, what, measure, value))
            sys.stdout.write(f"{name:13} {what:34} {measure:12} {value:9.3f}\n")
        sys.stdout.write(
            f"{name:13} {'as hoped' if passed else 'NOT as hoped'}, {time.perf_counter() - start:.0f} s\n"
        )
        sys.stdout.flush()
    with open(options.out / "results.csv", "a", newline="") as file:
        csv.writer(file).writerows(rows)
    return int(not good)


Found = tuple[list[tuple[str, str, float]], bool]


def fit(
    pairs: Sequence[Pair],
    options: argparse.Namespace,
    name: str,
    *,
    steps: int,
    patch: int = 64,
    foreground: Foreground | None = Foreground(),  # noqa: B008 - frozen values
    **more: object,
) -> KerasPredictor:
    """A network of 16 features, trained on patches of pairs; the last clean image validates."""
    held = pairs[-1].image
    sources = {True: [], False: []}
    targets = {True: [], False: []}
    for pair in pairs:
        sources[pair.image == held].append(pair.source.data)
        targets[pair.image == held].append(pair.target.data)
    both = []
    for validates in (False, True):
        images = pairs_from_arrays(sources[validates], targets[validates], axes=pairs[0].source.axes)
        each = max(1, (150 if validates else 2500) // len(images))
        both.append(
            sample_patches(
                images,
                patch_size=(patch, patch),
                n_patches_per_image=each,
                seed=1,
                axes="YX",
                foreground=foreground,
            ).load()
        )
    epochs = 6
    settings: dict[str, object] = {
        "unet_n_first": 16, "unet_kern_size": 3, "train_batch_size": 8, "train_epochs": epochs,
        "train_steps_per_epoch": max(1, round(steps * options.scale / epochs)), "train_learning_rate": 1e-3,
        "train_reduce_lr": {"factor": 0.5, "patience": 2, "min_delta": 0}, "train_augment": ("flips", "rot90"),
    }  # fmt: skip
    config = CareConfig(**(settings | more))
    result = train(config, both[0], both[1], options.out / name, overwrite=True)
    return KerasPredictor(result.model)


def crops(image: np.ndarray, name: str, size: int) -> list[Image]:
    """Squares of an image that hold structure."""
    found = []
    for y, x in itertools.product(
        range(0, image.shape[0] - size + 1, size), range(0, image.shape[1] - size + 1, size)
    ):
        piece = image[y : y + size, x : x + size]
        if np.percentile(piece, 99) > 0.25 * np.percentile(image, 99.9):
            found.append(Image(piece, "YX", pixel_size_um=PIXEL_UM, name=f"{name}-{y}-{x}"))
    return found


def mitochondria_images(data: Path, *, bin_px: tuple[int, int] = (1, 1), size: int = 224) -> list[Image]:
    """Squares of the HeLa and the BPAE cell, averaged over blocks of pixels: coarser pixels, less noise."""
    hela = read_image(data / "hela" / "hela_lyso_mito_nuc_cyx_uint16.tif").data[1, :470]
    bpae = read_image(data / "hela" / "bpae_mito_uint16.tif").data
    found = []
    for name, image, block in (("hela", hela, bin_px[0]), ("bpae", bpae, bin_px[1])):
        height, width = (length // block * block for length in image.shape)
        blocks = image[:height, :width].reshape(height // block, block, width // block, block)
        found += crops(blocks.mean(axis=(1, 3)).astype(np.float32), name, size)
    return found


def mitochondria(options: argparse.Namespace) -> Found:
    # Fitted to the test microscope by what its noisy frame alone tells. Its pixels are two and three times
    # coarser; local variance over mean is 5.6 grey values a photon, so that bright mitochondria (80 grey values)
    # have 14 photons; there is little noise where it is dark. Source and target of the real pair share their
    # optics: no blur.
    values = load_recipe("semisynthetic").model_dump()
    values["prepare"] = [{"step": "contrast"}]
    values["sets"] = [
        {
            "name": name,
            "steps": [
                {"step": "poisson", "photons": photons},
                {"step": "gaussian", "sigma": (0.005, 0.02)},
                {"step": "intensity", "factor": (0.4, 1.2), "white": None},
            ],
        }
        for name, photons in (("mild", (20, 40)), ("medium", (12, 24)), ("strong", (7, 14)))
    ]
    images = mitochondria_images(options.data, bin_px=(2, 3), size=112)
    recipe = Recipe.model_validate(values)
    pairs = list(itertools.islice(pair_stream(recipe, images), 4 * 3 * len(images)))
    network = fit(pairs, options, "mitochondria", steps=900, foreground=None)
    (gaussian,) = tune(
        [(pair.source, pair.target) for pair in pairs[:36]], tuned_on="training pairs", names=["Gaussian"]
    )
    noisy, truth = (
        Image(read_image(options.data / "pairs_fmd" / f"BPAE_R_{kind}.tif").data.astype(np.float32), "YX")
        for kind in ("noisy", "gt_avg50")
    )
    found, scores = [], {}
    for what, image in (
        ("input", noisy),
        (f"Gaussian, {gaussian.settings}", gaussian.predict(noisy)),
        ("restored", network.predict(noisy)),
    ):
        score = scores[what.split(",")[0]] = score_image(image, truth)
        found += [(what, "PSNR dB", score.psnr), (what, "SSIM", score.ssim)]
    best = (
        max(scores["input"].psnr, scores["Gaussian"].psnr),
        max(scores["input"].ssim, scores["Gaussian"].ssim),
    )
    return found, scores["restored"].psnr > best[0] and scores["restored"].ssim > best[1]


def tubules(options: argparse.Namespace) -> Found:
    recipe = load_recipe("tubules")
    pairs = list(itertools.islice(pair_stream(recipe, seed=1), 24))
    network = fit(pairs, options, "tubules", steps=700)
    steps = {step.step: step for step in recipe.sets[0].steps}
    kernel = psf(steps["psf"].optics[0], pixel_size_um=recipe.clean.pixel_size_um)

    def contrast_dip(profile: np.ndarray, distance: float) -> float:
        """Depth of the dip between two lines, as a share of the lower one's height."""
        middle = len(profile) // 2
        reach = distance / 2
        left = profile[int(middle - reach - 1) : int(middle - reach + 2)].max()
        right = profile[int(middle + reach - 1) : int(middle + reach + 2)].max()
        low = np.percentile(profile, 5)
        lower = min(left, right) - low
        return float(1 - (profile[middle] - low) / lower) if lower > 0 else 0.0

    smallest = {}
    distances = np.arange(2.0, 9.01, 0.5)
    for what in ("input", "restored"):
        resolved = []
        for distance in distances:
            dips = []
            for seed in range(4):
                y = np.arange(0, 128, 0.5)
                points = np.concatenate(
                    [np.stack([y, np.full_like(y, 64 + sign * distance / 2)], 1) for sign in (-1, 1)]
                )
                clean = structures.splat((128, 129), points, weights=np.ones(len(points)), sigma_px=0.6)
                rng = np.random.default_rng(seed)
                image = degrade.convolve(clean / clean.max(), psf=kernel)
                image = degrade.poisson(image, photons=100, rng=rng)
                image = degrade.gaussian(image, sigma=0.01, rng=rng).astype(np.float32)
                if what == "restored":
                    image = network.predict(Image(image, "YX")).data
                dips.append(contrast_dip(image[20:108].mean(axis=0), distance))
            resolved.append(np.mean(dips) > 0.26)
        # The smallest distance from which on all are resolved.
        last_fail = max((i for i, ok in enumerate(resolved) if not ok), default=-1)
        smallest[what] = float(distances[last_fail + 1]) if last_fail + 1 < len(distances) else float("inf")
    found = [(what, "distance px", value) for what, value in smallest.items()]
    test = list(itertools.islice(pair_stream(recipe, seed=99), 4))
    for what in ("input", "restored"):
        ssim = [
            score_image(p.source if what == "input" else network.predict(p.source), p.target).ssim
            for p in test
        ]
        found.append((f"{what}, held-out tubules", "SSIM", float(np.mean(ssim))))
    return found, smallest["restored"] < smallest["input"]


def fibre_part(options: argparse.Namespace) -> Found:
    recipe = load_recipe("fibre")
    images = mitochondria_images(options.data)
    trained = [image for image in images if image.name.startswith("bpae")]
    test = [image for image in images if image.name.startswith("hela")]
    pairs = list(itertools.islice(pair_stream(recipe, trained, seed=1), 3 * len(trained)))
    network = fit(pairs, options, "fibre", steps=700)
    pitch = recipe.sets[0].steps[0].pitch_px[0]
    falls, gains = [], []
    for pair in make_pairs(recipe, test, seed=2):
        restored = network.predict(pair.source)
        # Absolute power, on the scale of the truth: a darker image must not count as a cleaner one.
        power = []
        for image in (pair.source, restored):
            scale = np.polyfit(image.data.ravel(), pair.target.data.ravel(), 1)
            data = np.polyval(scale, image.data)
            power.append(fibre.lattice_power(data, pitch_px=pitch) * float(np.var(data)))
        falls.append(10 * np.log10(power[0] / power[1]))
        gains.append(score_image(restored, pair.target).psnr - score_image(pair.source, pair.target).psnr)
    found = [("lattice power falls by, least", "dB", float(min(falls))), ("lattice power falls by, mean",
    "dB", float(np.mean(falls))),
             ("PSNR gain, mean", "dB", float(np.mean(gains)))]  # fmt: skip
    return found, min(falls) >= 10


def isotropic(options: argparse.Namespace) -> Found:
    # A confocal: its planes are free of haze, but three to five times longer along Z than across.
    optics = Optics(na=0.8, immersion_index=1.33, emission_nm=600, excitation_nm=532, microscope="confocal")
    lens = optics.model_dump_json(exclude_defaults=True)
    voxel = {"Z": 0.25, "Y": 0.25, "X": 0.25}
    kernel = psf(optics, pixel_size_um=voxel, axes="ZYX")
    truth = {seed: structures.nuclei((80, 96, 96), seed=seed, radius_px=(7, 12)) for seed in (1, 2)}
    # What a microscope as sharp along Z as across would show.
    sharp_px = optics.lateral_fwhm_um / 2.355 / voxel["X"]
    wanted = ndimage.gaussian_filter(truth[2], sharp_px)
    blurred = {seed: degrade.convolve(volume, psf=kernel, axes="ZYX") for seed, volume in truth.items()}
    found, good = [], True
    for factor in (2, 4, 10):
        size = usable_factor(80, factor)[1]
        stacks = {
            seed: np.maximum(ndimage.zoom(volume[:size], (1 / factor, 1, 1), order=0), 0).astype(np.float32)
            for seed, volume in blurred.items()
        }
        text = "name: iso\nsets:\n" + "".join(
            f"  - name: along-{axis.lower()}\n    steps:\n"
            f"      - {{step: axial_psf, optics: {lens}, axis: {axis}}}\n"
            f"      - {{step: subsample, factor: {factor}, axis: {axis}}}\n"
            for axis in "YX"
        )
        planes = [
            Image(plane, "YX", pixel_size_um={"Y": 0.25, "X": 0.25}, name=f"plane{index}")
            for index, plane in enumerate(blurred[1][::4].astype(np.float32))
        ]
        pairs = []
        for pair in make_pairs(parse_recipe(text, name="iso.yaml"), planes):
            pairs.append(pair)
        network = fit(pairs, options, f"isotropic-{factor}", steps=400, patch=48, train_augment=("flips",))
        stack = Image(stacks[2], "ZYX")
        restored = IsotropicPredictor(network, factor=factor).predict(stack).data
        linear = upsample_z(stack.data, axis=0, factor=factor)
        values = {}
        for what, data in (("linear", linear), ("restored", restored)):
            each = [
                score_image(Image(data[:, y].copy(), "YX"), Image(wanted[:size, y].copy(), "YX")).ssim
                for y in range(8, 96, 8)
            ]
            values[what] = float(np.mean(each))
            found.append((f"factor {factor}, {what}", "SSIM xz", values[what]))
        good &= values["restored"] > values["linear"]
    return found, good


def photons(options: argparse.Namespace) -> Found:
    recipe = load_recipe("photons")
    images = mitochondria_images(options.data)
    trained = [image for image in images if image.name.startswith("bpae")]
    test = [image for image in images if image.name.startswith("hela")]
    network = fit(list(make_pairs(recipe, trained)), options, "photons", steps=700)
    gains: dict[str, list[float]] = {}
    for pair in make_pairs(recipe, test, seed=5):
        before, after = (
            score_image(image, pair.target).psnr for image in (pair.source, network.predict(pair.source))
        )
        gains.setdefault(pair.set, []).append(after - before)
    found = [
        (f"1/{name[1:]} of the photons", "PSNR gain dB", float(np.mean(each))) for name, each in gains.items()
    ]
    return found, all(value > 0 for _, _, value in found)


PARTS: dict[str, Callable[[argparse.Namespace], Found]] = {
    "mitochondria": mitochondria,
    "tubules": tubules,
    "fibre": fibre_part,
    "isotropic": isotropic,
    "photons": photons,
}

if __name__ == "__main__":
    sys.exit(main())
