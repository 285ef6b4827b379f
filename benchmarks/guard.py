"""Does the guard notice what a network was not trained on? ROC curves over familiar and foreign images.

    python benchmarks/guard.py OUT [--shared ../shared/data] [--trained mitochondria tubules] [--images 24]
    python benchmarks/guard.py OUT --shared ../shared/data --zoo fluorescence-denoise-2d

Small networks are trained on simulated mitochondria, and on tubules (24 images of 256 x 256, 64 x 64 patches). Unseen images
of the same kind, and of each foreign set, are held against them; the score of an image is the largest ratio of its
`Likeness`, 1 the limit. Writes OUT/scores.csv (every image), OUT/guard.csv (a row a set: area under the ROC curve, share
caught, by what), OUT/roc.csv and OUT/roc.png, and prints the rows. With --shared, real images of data/second (other
instruments) are foreign too. Models that are in OUT already are taken as they are. With --zoo shipped models are held
against the real images that they never saw: OUT/guard_zoo.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.images import Image, only_channel, read_image, write_image
from care_bridge.simulate import degrade, structures
from care_bridge.simulate.optics import Optics, psf

SIDE = 256
WHITE = 2000.0
ALLOWED = 0.05

Rng = np.random.Generator
Picture = NDArray[Any]


def sample(kind: str, rng: Rng) -> Picture:
    """A clean drawing, brightest pixel 1."""
    shape = (SIDE, SIDE)
    if kind == "mitochondria":  # short, thick and bent
        how = {
            "count": int(rng.integers(12, 40)),
            "persistence_px": rng.uniform(12, 40),
            "width_px": rng.uniform(1.8, 2.6),
        }
        return structures.tubules(shape, seed=rng, **how)
    if kind == "tubules":
        return structures.tubules(shape, seed=rng, persistence_px=rng.uniform(50, 200))
    if kind == "granules":
        return structures.granules(shape, seed=rng)
    if kind == "nuclei":
        return structures.nuclei(shape, seed=rng, radius_px=(14.0, 22.0))
    if kind == "z-discs":
        return structures.sarcomeres(
            shape, seed=rng, period_px=rng.uniform(16, 24), fibril_px=rng.uniform(8, 12)
        )
    if kind == "actin":  # many, straight
        how = {
            "count": int(rng.integers(60, 120)),
            "persistence_px": rng.uniform(400, 900),
            "width_px": rng.uniform(0.8, 1.2),
        }
        return structures.tubules(shape, seed=rng, **how)
    raise KeyError(kind)


KINDS = ("mitochondria", "tubules", "granules", "nuclei", "z-discs", "actin")


def seen(
    clean: Picture,
    rng: Rng,
    *,
    na: float = 1.2,
    pixel_um: float = 0.1,
    photons: tuple[float, float] = (40, 160),
    read: tuple[float, float] = (0.01, 0.02),
    offset: tuple[float, float] = (90, 110),
    shared_px: float = 0.0,
) -> Image:
    """A clean image under the microscope."""
    kernel = psf(
        Optics(na=na, immersion_index=1.33, emission_nm=600),
        pixel_size_um={"Y": pixel_um, "X": pixel_um},
        axes="YX",
    )
    blurred = degrade.convolve(clean, psf=kernel, axes="YX")
    light = degrade.poisson(blurred, photons=rng.uniform(*photons), reference=float(clean.max()), rng=rng)
    noise = light - blurred + rng.uniform(*read) * rng.standard_normal(light.shape)
    if shared_px:
        from scipy.ndimage import gaussian_filter

        smooth = gaussian_filter(noise, shared_px)
        noise = smooth * noise.std() / smooth.std()
    grey = np.rint(rng.uniform(*offset) + WHITE * (blurred + noise))
    return Image(np.clip(grey, 0, 65535).astype(np.uint16), "YX")


def zoomed(kind: str, rng: Rng, factor: float) -> Picture:
    """The same structure seen by pixels of another size."""
    from scipy.ndimage import zoom

    found = zoom(sample(kind, rng), factor, order=1)
    return (found if factor > 1 else np.tile(found, (2, 2)))[:SIDE, :SIDE].astype(np.float32)


def sets_of(kind: str) -> dict[str, Callable[[Rng], Image]]:
    """The foreign sets of a model that was trained on a kind; the familiar one first."""

    def other(name: str, rng: Rng) -> Image:
        return seen(sample(name, rng), rng)

    def same(rng: Rng, **how: Any) -> Image:
        return seen(sample(kind, rng), rng, **how)

    found: dict[str, Callable[[Rng], Image]] = {"familiar": same}
    found |= {f"structure: {name}": partial(other, name) for name in KINDS if name != kind}
    return found | {
        "PSF: NA 0.9": partial(same, na=0.9),
        "PSF: NA 0.6": partial(same, na=0.6),
        "PSF: NA 0.3": partial(same, na=0.3),
        "noise: a sixth of the photons": partial(same, photons=(8, 20)),
        "noise: nearly none": partial(same, photons=(2000, 6000), read=(0.001, 0.002)),
        "noise: neighbours share it": partial(same, shared_px=0.7),
        "pixels: half the size": lambda rng: seen(zoomed(kind, rng, 2.0), rng, pixel_um=0.05),
        "pixels: twice the size": lambda rng: seen(zoomed(kind, rng, 0.5), rng, pixel_um=0.2),
        "offset: 2000 grey levels": partial(same, offset=(2000, 2200)),
    }


def real_images(shared: Path, most: int) -> list[Image]:
    """Crops of real images of other instruments."""
    found = []
    for file in sorted((shared / "second").rglob("*.tif")):
        if "fibre" in str(file):
            continue
        image = read_image(file)
        data = only_channel(image, 0).data if "C" in image.axes else image.data
        data = data.reshape(-1, *data.shape[-2:])
        plane = data[len(data) // 2][:SIDE, :SIDE]
        if min(plane.shape) >= 128 and np.ptp(plane) > 0:
            found.append(Image(plane, "YX", name=file.name))
    return found[:: max(1, len(found) // most)][:most]


def measure_zoo(name: str, shared: Path) -> list[dict[str, Any]]:
    """A row a real image that a shipped model never saw: one plane, at most 512 x 512 pixels."""
    from care_bridge.evaluate.pairs import files_trained_on
    from care_bridge.files import sha256
    from care_bridge.model_names import model_path
    from care_bridge.noise import measure_noise
    from care_bridge.opening import open_guard

    seen_files = set(files_trained_on(model_path(name)))
    guard = open_guard(name)
    rows = []
    for file in sorted(shared.rglob("*.tif")):
        if sha256(file) in seen_files:
            continue
        image = read_image(file)
        data = only_channel(image, 0).data if "C" in image.axes else image.data
        data = data.reshape(-1, *data.shape[-2:])
        plane = Image(data[len(data) // 2][:512, :512], "YX")
        if np.ptp(plane.data) == 0:
            continue
        noise = measure_noise(plane)
        found = guard.look(plane, [noise])
        if found.foreign is None:
            continue
        kind = "clean" if noise.clean else "between"
        if "noisy" in str(file.relative_to(shared)):
            kind = "noisy"
        kind = "fibre bundles" if "fibre" in str(file) else "label mask" if "mask" in file.name else kind
        ratios = {key: found.ratios.get(key, float("nan")) for key in ("structure", "spectrum")}
        rows.append(
            {
                "model": name,
                "set": kind,
                "file": file.name,
                "dB": noise.decibel,
                **ratios,
                "foreign": found.foreign,
            }
        )
    return rows


def trained(kind: str, out: Path, *, epochs: int, steps: int) -> Path:
    """A model folder, trained where it is not there."""
    model = out / kind / "model"
    if (model / "guard.npz").is_file():
        return model
    from care_bridge.training.from_files import train_from_files

    for number in range(24):
        rng = np.random.default_rng([1, number])
        clean = sample(kind, rng)
        write_image(out / kind / "source" / f"{number:02}.tif", seen(clean, rng))
        target = Image(np.rint(100 + WHITE * clean).astype(np.uint16), "YX")
        write_image(out / kind / "target" / f"{number:02}.tif", target)
    settings = {
        "unet_n_first": 16,
        "unet_kern_size": 3,
        "train_epochs": epochs,
        "train_steps_per_epoch": steps,
    }
    train_from_files(
        out / kind / "source",
        out / kind / "target",
        out=model,
        patch_size=(64, 64),
        n_patches_per_image=24,
        settings={**settings, "train_batch_size": 8},
        overwrite=True,
        say=print,
    )
    return model


def area(familiar: Sequence[float], foreign: Sequence[float]) -> float:
    """Under the ROC curve: how often a foreign image lies further than a familiar one."""
    a, b = np.asarray(familiar)[None], np.asarray(foreign)[:, None]
    return float(np.mean((b > a) + 0.5 * (b == a)))


def curve(familiar: Sequence[float], foreign: Sequence[float]) -> list[tuple[float, float]]:
    """False alarms and what is caught, by falling limits."""
    limits = [np.inf, *sorted({*familiar, *foreign}, reverse=True)]
    return [
        (float(np.mean(np.asarray(familiar) >= at)), float(np.mean(np.asarray(foreign) >= at)))
        for at in limits
    ]


def measure(
    kind: str, out: Path, shared: Path | None, images: int, how: Mapping[str, int]
) -> list[dict[str, Any]]:
    """A row an image."""
    from care_bridge.opening import open_guard

    guard = open_guard(trained(kind, out, **how))
    rows = []
    for number, (name, make) in enumerate(sets_of(kind).items()):
        many = 2 * images if name == "familiar" else images
        some = [make(np.random.default_rng([2, number, k])) for k in range(many)]
        rows += [_row(kind, name, guard.look(one)) for one in some]
    for one in real_images(shared, 2 * images) if shared else ():
        rows.append(_row(kind, "other instruments (real)", guard.look(one)))
    return rows


def _row(kind: str, name: str, found: Any) -> dict[str, Any]:
    score = max(found.ratios.values(), default=float("nan"))
    return {"trained on": kind, "set": name, "score": score, **found.ratios, "noise": len(found.noise)}


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a set."""
    made = []
    for kind in dict.fromkeys(row["trained on"] for row in rows):
        own = [row for row in rows if row["trained on"] == kind]
        familiar = [row for row in own if row["set"] == "familiar"]
        for name in dict.fromkeys(row["set"] for row in own):
            some = [row for row in own if row["set"] == name]
            each = {
                f"AUC {part}": area([row[part] for row in familiar], [row[part] for row in some])
                for part in ("score", "structure", "spectrum")
            }
            said = float(np.mean([row["score"] > 1 for row in some]))
            noise = float(np.mean([row["noise"] > 0 for row in some]))
            made.append(
                {
                    "trained on": kind,
                    "set": name,
                    "images": len(some),
                    **each,
                    "foreign": said,
                    "noise said": noise,
                }
            )
    return made


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {key: f"{v:.4g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows
        )


def draw(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """The curves, as numbers and as a picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(row["trained on"] for row in rows))
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(6 * len(kinds), 5.5), squeeze=False)
    points = []
    for panel, kind in zip(panels[0], kinds, strict=True):
        panel.set_prop_cycle(color=mpl.colormaps["tab20"].colors)  # more sets than the usual ten colours
        own = [row for row in rows if row["trained on"] == kind]
        familiar = [row["score"] for row in own if row["set"] == "familiar"]
        for name in dict.fromkeys(row["set"] for row in own if row["set"] != "familiar"):
            line = curve(familiar, [row["score"] for row in own if row["set"] == name])
            points += [{"trained on": kind, "set": name, "false alarms": x, "caught": y} for x, y in line]
            panel.plot(*zip(*line, strict=True), label=name, drawstyle="steps-post", alpha=0.8)
        panel.set(
            title=f"trained on {kind}",
            xlabel="false alarms",
            ylabel="caught",
            xlim=(-0.02, 1),
            ylim=(0, 1.02),
        )
        panel.axvline(ALLOWED, color="grey", linewidth=0.5)
        panel.legend(fontsize=6, loc="lower right")
    figure.tight_layout()
    figure.savefig(out / "roc.png", dpi=120)
    write_csv(out / "roc.csv", points)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--trained", nargs="+", default=["mitochondria", "tubules"], choices=KINDS)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument(
        "--zoo", nargs="*", help="names of shipped models, held against the real images of --shared"
    )
    given = parser.parse_args()
    if given.zoo is not None:
        if given.shared is None:
            parser.error("--zoo holds shipped models against real images: name their folder, --shared")
        given.out.mkdir(parents=True, exist_ok=True)
        found = [row for name in given.zoo for row in measure_zoo(name, given.shared)]
        write_csv(given.out / "guard_zoo.csv", found)
        for model, kind in dict.fromkeys((row["model"], row["set"]) for row in found):
            some = [row["foreign"] for row in found if (row["model"], row["set"]) == (model, kind)]
            print(model, kind, f"{sum(some)} of {len(some)} foreign")
        return
    rows: list[dict[str, Any]] = []
    for kind in given.trained:
        rows += measure(
            kind, given.out, given.shared, given.images, {"epochs": given.epochs, "steps": given.steps}
        )
    write_csv(given.out / "scores.csv", rows)
    found = summary(rows)
    write_csv(given.out / "guard.csv", found)
    for row in found:
        print("  ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    draw(rows, given.out)


if __name__ == "__main__":
    main()
