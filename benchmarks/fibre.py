r"""Do networks take the honeycomb off real fibre bundles, and better than interpolation between the cores?

    python benchmarks/fibre.py --data ../shared/data/second/clean/fibre_bundle --tuning PAIRS --out fibre \
        --models "any bundle=MODEL" "like this bundle=OWN"

Twelve frames of one target, moved between them, were taken through one bundle (class A: Michael Hughes, PyFibreBundle,
MIT). Each core sees another place of the target in each frame, so eleven frames together sample it 3.3 times as densely
along Y and X as the twelfth: they are its reference, and no pixel of it is in that. Cores are those of the flat field, each
frame's core values are divided by the flat field's, frames are registered (`evaluate.registration`, refined against the
fusion of the others), and all samples are averaged by a Gaussian of 1 px.

Each frame is restored raw, and after its cores were made even by the flat field (`simulate.cores.even_cores`), by a
Gaussian filter, by interpolation between the cores and by networks. Filters are tuned on simulated pairs (--tuning, a
folder that `care-bridge simulate fibre --like` wrote), and, where "best" is said, by the references themselves, which
nobody has. Scores are those of `evaluate`; the honeycomb's power is that in the ring of its frequency, on the scale of the
reference. Of bundles without reference only that is measured, on the scale of the raw image.

The network of docs/simulate.md came from bundles of any pitch (benchmarks/bundles.yaml):

    care-bridge train --simulate benchmarks/bundles.yaml CLEAN --out MODEL --architecture fast --features 24 \
        --patch-size 64,64 --batch-size 8 --learning-rate 1.6e-3 --schedule cosine --set train_average=0.995 \
        --set train_loss=mse --epochs 15 --steps 100 --seed 1

with as CLEAN the images of the data sheet of fluorescence-denoise-2d but the HeLa cells. The other went on from it, like the
bundle's flat field alone, with half of the patches dark on bright (inverted_share: 0.5) and half of 8 bits
(bits_8_share: 0.5, white_8: [20, 80]) written into own.yaml:

    care-bridge simulate fibre --like super_res_background.tif --flat super_res_background.tif --show > own.yaml
    care-bridge train --simulate own.yaml CLEAN --out OWN --start MODEL --architecture fast --features 24 \
        --patch-size 64,64 --batch-size 8 --learning-rate 1e-3 --schedule cosine --set train_average=0.99 \
        --set train_loss=mse --epochs 9 --steps 100 --seed 1

Writes scores.csv, honeycomb.csv, fibre.png; and in raw/, even/ and references/ the pairs, for `zoo card`.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from care_bridge import open_predictor
from care_bridge.evaluate.baselines import BETWEEN_CORES, FILTERS, Baseline, tune
from care_bridge.evaluate.registration import shift_between
from care_bridge.evaluate.scores import score
from care_bridge.images import Image, read_image, write_image
from care_bridge.simulate import cores
from care_bridge.simulate.fibre import lattice_power

Plane = NDArray[np.float32]
EDGE = 32
"""The frames lie up to 35 px apart: near the edges few of them say anything."""

OTHERS = ("bundle1_fujikura.tif", "bundle2_thin.tif", "tissue_paper.tif")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/second/clean/fibre_bundle"))
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME=MODEL")
    parser.add_argument("--tuning", type=Path, help="Folder of simulated pairs that filters are tuned on.")
    parser.add_argument("--frames", type=int, nargs="*", default=list(range(12)))
    parser.add_argument("--out", type=Path, default=Path("fibre"))
    options = parser.parse_args()
    for side in ("raw", "even", "references"):
        (options.out / side).mkdir(parents=True, exist_ok=True)
    frames = read_image(options.data / "super_res_12shifts_tyx.tif").data.astype(np.float32)
    flat = read_image(options.data / "super_res_background.tif").data.astype(np.float32)
    bundle = Fusion(frames, flat)
    methods = restorers(options, bundle)
    rows = []
    for number in options.frames:
        reference = bundle.reference(number)
        given = {"raw": frames[number], "even": cores.even_cores(frames[number], flat)}
        for side, image in {**given, "references": reference}.items():
            write_image(options.out / side / f"{number:02d}.tif", Image(image, "YX"))
        found = {(how, "input"): image for how, image in given.items()}
        for how, image in given.items():
            for name, method in methods.items():
                found[how, name] = method(image)
            candidates = [
                method(image, **setting) for method, settings in [FILTERS["Gaussian"]] for setting in settings
            ]
            found[how, "Gaussian, best for each reference"] = best(candidates, reference)
            between = [bundle.between(number, even=how == "even")]
            between += [ndimage.gaussian_filter(between[0], sigma) for sigma in (0.6, 1.0, 1.6, 2.5)]
            found[how, "between the flat field's cores"] = between[0]
            found[how, "between the flat field's cores, smoothed best"] = best(between, reference)
        for (how, name), image in found.items():
            rows.append([number, how, name, *measured(image, frames[number], reference, bundle.pitch_px)])
        if number == options.frames[len(options.frames) // 2]:
            draw(options.out / "fibre.png", found, reference, bundle.pitch_px)
    write(
        options.out / "scores.csv", ["frame", "given", "method", "psnr_db", "ssim", "honeycomb_down_db"], rows
    )
    for how, name in dict.fromkeys((row[1], row[2]) for row in rows):
        mean = np.mean([row[3:] for row in rows if row[1:3] == [how, name]], axis=0)
        sys.stdout.write(
            f"{how:5} {name:46} {mean[0]:6.2f} dB  SSIM {mean[1]:.3f}  honeycomb down {mean[2]:5.1f} dB\n"
        )
    others(options, methods)
    return 0


class Fusion:
    """References from frames of one target that moved behind one bundle."""

    def __init__(self, frames: Plane, flat: Plane) -> None:
        self.pitch_px = cores.measured_pitch(flat)
        self.centres, _ = cores.find_cores(flat, pitch_px=self.pitch_px, fill=False)
        whole = cores.core_values(flat, self.centres, pitch_px=self.pitch_px)
        self.raw = [cores.core_values(frame, self.centres, pitch_px=self.pitch_px) for frame in frames]
        self.even = [values / whole for values in self.raw]
        self.shape = frames.shape[1:]
        pictures = [self.between(number, even=True) for number in range(len(frames))]
        self.shifts = np.array([shift_between(pictures[0], picture).zyx_px for picture in pictures])
        for _ in range(2):
            # Against the fusion of the others a frame's own cores do not pull it towards itself.
            moved = np.array(
                [shift_between(self.reference(k), pictures[k]).zyx_px for k in range(len(frames))]
            )
            self.shifts = self.shifts + moved
            sys.stdout.write(f"registration: largest correction {np.abs(moved).max():.2f} px\n")

    def between(self, number: int, *, even: bool) -> Plane:
        values = (self.even if even else self.raw)[number]
        return cores.between_cores(np.zeros(self.shape, np.float32), centres_px=self.centres, values=values)

    def reference(self, number: int) -> Plane:
        """The target as frame `number` sees it, from all other frames."""
        light, weight = np.zeros(self.shape), np.zeros(self.shape)
        for other, values in enumerate(self.even):
            if other != number:
                points = self.centres - (self.shifts[other] - self.shifts[number])
                inside = np.all((points >= 0) & (points < np.array(self.shape) - 1), axis=1)
                for share, place in corners(points[inside]):
                    np.add.at(light, place, share * values[inside])
                    np.add.at(weight, place, share)
        smooth = [ndimage.gaussian_filter(one, 1.0) for one in (light, weight)]
        return np.asarray(smooth[0] / np.maximum(smooth[1], 1e-6), np.float32)


def corners(points: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], tuple[NDArray[np.int64], ...]]]:
    low = np.floor(points).astype(np.int64)
    part = points - low
    return [
        (np.prod(np.where(step, part, 1 - part), axis=1), tuple((low + step).T))
        for step in (np.array(pair) for pair in ((0, 0), (0, 1), (1, 0), (1, 1)))
    ]


def restorers(options: argparse.Namespace, bundle: Fusion) -> dict[str, Callable[[Plane], Plane]]:
    methods: dict[str, Callable[[Plane], Plane]] = {}
    filters = [Baseline(BETWEEN_CORES, {"sigma_px": 0.0})]
    if options.tuning is not None:
        names = sorted(path.name for path in (options.tuning / "source").glob("*.tif"))
        pairs = [
            tuple(read_image(options.tuning / side / name) for side in ("source", "target")) for name in names
        ]
        filters += tune(pairs, tuned_on="simulated pairs", names=["Gaussian", BETWEEN_CORES])  # type: ignore[arg-type]
    for each in filters:
        sys.stdout.write(f"{each.name}: {each.settings} {each.tuned_on}\n")
        label = "tuned" if each.tuned_on else "plain"
        methods[f"{each.name}, {label}"] = lambda image, each=each: each.predict(Image(image, "YX")).data
    for given in options.models:
        name, _, path = given.partition("=")
        predictor = open_predictor(path, runtime="keras")
        methods[f"network {name}"] = lambda image, predictor=predictor: np.asarray(
            predictor.predict(Image(image, "YX")).data, np.float32
        )
    return methods


def inner(image: Plane) -> Plane:
    return image[EDGE:-EDGE, EDGE:-EDGE]


def best(candidates: list[Plane], reference: Plane) -> Plane:
    return max(candidates, key=lambda image: score(inner(image), inner(reference)).psnr)


def on_scale(image: Plane, like: Plane, pitch: float) -> NDArray[np.float64]:
    """An image on the scale of another one by what both show without a honeycomb: darker is not cleaner."""
    smooth, wanted = (ndimage.gaussian_filter(inner(one), pitch)[::4, ::4].ravel() for one in (image, like))
    return np.asarray(np.polyval(np.polyfit(smooth, wanted, 1), image))


def power(image: Plane, like: Plane, pitch: float) -> float:
    """In the honeycomb's ring, on the scale of another image."""
    data = inner(on_scale(image, like, pitch))
    return lattice_power(data, pitch_px=pitch) * float(np.var(data))


def measured(image: Plane, raw: Plane, reference: Plane, pitch: float) -> list[float]:
    image, raw, reference = (np.asarray(one, np.float64) for one in (image, raw, reference))
    found = score(inner(image), inner(reference))
    down = 10 * np.log10(power(raw, reference, pitch) / max(power(image, reference, pitch), 1e-300))
    return [round(float(value), 4) for value in (found.psnr, found.ssim, down)]


def others(options: argparse.Namespace, methods: dict[str, Callable[[Plane], Plane]]) -> None:
    rows = []
    for file in OTHERS:
        image = read_image(options.data / file).data.astype(np.float32)
        pitch = cores.measured_pitch(image)
        middle = tuple(slice(side // 2 - 220, side // 2 + 220) for side in image.shape)
        before = power(image[middle], image[middle], pitch)
        for name, method in methods.items():
            after = power(
                np.asarray(method(image[middle]), np.float64), image[middle].astype(np.float64), pitch
            )
            rows.append(
                [file, round(pitch, 2), name, round(float(10 * np.log10(before / max(after, 1e-300))), 2)]
            )
            sys.stdout.write(
                f"{file:24} pitch {pitch:5.2f} px  {name:30} honeycomb down {rows[-1][3]:5.1f} dB\n"
            )
    write(options.out / "honeycomb.csv", ["image", "pitch_px", "method", "honeycomb_down_db"], rows)


def write(path: Path, head: list[str], rows: list[list[object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def draw(path: Path, found: dict[tuple[str, str], Plane], reference: Plane, pitch_px: float) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cut = (slice(120, 320), slice(245, 425))
    shown = [(f"{name}\n({how})", image) for (how, name), image in found.items() if "best" not in name]
    shown.append(("reference:\neleven other frames", reference))
    columns = -(-len(shown) // 2)
    figure = Figure(figsize=(2.1 * columns, 5.4), dpi=100, layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, image) in zip(axes, shown, strict=False):
        data = on_scale(np.asarray(image, np.float64), reference, pitch_px)
        axis.imshow(data[cut], cmap="gray", vmin=0.0, vmax=1.2, interpolation="nearest")
        axis.set_title(title, fontsize=7)
    FigureCanvasAgg(figure).print_png(str(path))


if __name__ == "__main__":
    sys.exit(main())
