"""Make the stacks that fluorescence-isotropic-4x is measured and its rivals are tuned on.

python isotropic.py DATA WORK: DATA holds the stacks that the data sheet and the tests name.

Real stacks are the truths, turned so that their Y plays Z: along Y they are as sharp as a restoration should make them
along Z. Blurred along it by a Gaussian as long as a confocal's of an aperture that trained nothing, sampled at every
fourth plane and counted in photons, they are the sources. Of nuclei that are drawn the whole optics are known.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from care_bridge.images import Image, read_image, write_image
from care_bridge.simulate import degrade, structures
from care_bridge.simulate.isotropic import axial_kernel
from care_bridge.simulate.optics import Optics, psf

FACTOR, PIXEL_UM, PHOTONS = 4, 0.25, 200.0
OPTICS = Optics(na=0.9, immersion_index=1.33, emission_nm=600, excitation_nm=532, microscope="confocal")

TURNED = {
    # name: file, folder, rows that play planes
    "ovule": ("ovule_near_isotropic_zyx.tif", "tests-isotropic-a", slice(0, 128)),
    "pollen": ("pollen_zyx.tif", "tests-isotropic-b", slice(48, 208)),
    "neuron": ("neuron_25pct_zyx.tif", "tests-isotropic-b", slice(28, 188)),
    "nuclei": ("nuclei_37x118x132.tif", "tuning-isotropic", slice(0, 112)),
    "nuclear_envelope": ("nuclear_envelope_drosophila.tif", "tuning-isotropic", slice(56, 168)),
}


def sampled(stack: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Every fourth plane of a blurred stack, first and last included, in photons."""
    where = np.linspace(0, len(stack) - 1, len(stack) // FACTOR)
    places = np.meshgrid(where, *(np.arange(size) for size in stack.shape[1:]), indexing="ij")
    planes = np.maximum(ndimage.map_coordinates(stack, places, order=1), 0)
    return rng.poisson(planes / planes.max() * PHOTONS).astype(np.uint16)


def write(folder: Path, name: str, truth: NDArray[np.float64], source: NDArray[np.uint16]) -> None:
    scaled = np.round(truth / truth.max() * 4000).astype(np.uint16)
    write_image(folder / "truth" / f"{name}.tif", Image(scaled, "ZYX", name=name))
    write_image(folder / "source" / f"{name}.tif", Image(source, "ZYX", name=name))


def along_z(truth: NDArray[np.float64]) -> NDArray[np.float64]:
    line = axial_kernel(OPTICS, pixel_um=PIXEL_UM, mode="gaussian")[:, 0]
    return np.asarray(ndimage.convolve1d(truth, line, axis=0, mode="reflect"))


def found(data: Path, name: str) -> NDArray[np.float64]:
    file = next(iter(sorted(data.rglob(name))))
    return read_image(file, "ZYX").data.astype(np.float64)


def main(data: Path, work: Path) -> None:
    rng = np.random.default_rng(4)
    for name, (file, folder, rows) in TURNED.items():
        truth = found(data, file).transpose(1, 0, 2)[rows]
        truth = np.maximum(truth - np.percentile(truth, 0.5), 0)
        write(work / folder, name, truth, sampled(along_z(truth), rng))
    for seed in (11, 12):
        drawn = structures.nuclei((64, 128, 128), seed=seed, radius_px=(7, 12)).astype(np.float64)
        kernel = psf(OPTICS, pixel_size_um=dict.fromkeys("ZYX", PIXEL_UM), axes="ZYX")
        truth = ndimage.gaussian_filter(drawn, OPTICS.lateral_fwhm_um / 2.355 / PIXEL_UM)
        source = sampled(degrade.convolve(drawn, psf=kernel, axes="ZYX"), rng)
        write(work / "tests-isotropic-drawn", f"nuclei{seed}", truth, source)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
