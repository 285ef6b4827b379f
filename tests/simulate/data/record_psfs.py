"""Record point spread functions of psfmodels, an independent library, for tests/simulate/test_optics.py.

psfmodels is GPL-3: it is never imported by the package or the tests, only its numbers are kept. To record again:

    python -m venv oracle && oracle/bin/pip install psfmodels==0.3.3 numpy scipy
    oracle/bin/python tests/simulate/data/record_psfs.py
"""

from pathlib import Path

import numpy as np
import psfmodels

SIZE, LATERAL_UM, AXIAL_UM = 33, 0.05, 0.1
OIL = {"NA": 1.4, "ns": 1.518, "ni": 1.518, "ni0": 1.518, "ng": 1.518, "ng0": 1.518}
WATER = {"NA": 1.2, "ns": 1.33, "ni": 1.33, "ni0": 1.33, "ng": 1.518, "ng0": 1.518}
GRID = {"dxy": LATERAL_UM, "dz": AXIAL_UM}


def sections(volume: np.ndarray) -> np.ndarray:
    """Axial and lateral section through the middle, half of each: the other half is its mirror image."""
    middle = SIZE // 2
    peak = volume / volume.max()
    return np.stack([peak[:, middle, middle:], peak[middle, :, middle:]]).astype(np.float32)


def mismatched() -> np.ndarray:
    """2 um deep in water under oil, centred on the brightest point of the axis."""
    settings = {**OIL, "ns": 1.33}
    focus = np.arange(2.0, 3.0, 0.001)
    on_axis = psfmodels.scalar_psf(focus, 1, dxy=0.001, pz=2.0, wvl=0.58, params=settings)[:, 0, 0]
    z = (np.arange(SIZE) - SIZE // 2) * AXIAL_UM + focus[on_axis.argmax()]
    return psfmodels.scalar_psf(z, SIZE, dxy=LATERAL_UM, pz=2.0, wvl=0.58, params=settings)


np.savez_compressed(
    Path(__file__).with_name("psfs.npz"),
    vectorial_oil=sections(psfmodels.make_psf(SIZE, SIZE, wvl=0.58, model="vectorial", **GRID, **OIL)),
    vectorial_water=sections(psfmodels.make_psf(SIZE, SIZE, wvl=0.60, model="vectorial", **GRID, **WATER)),
    gibson_lanni=sections(psfmodels.make_psf(SIZE, SIZE, wvl=0.58, model="scalar", **GRID, **OIL)),
    gibson_lanni_deep=sections(mismatched()),
    gaussian=sections(psfmodels.make_psf(SIZE, SIZE, wvl=0.58, model="gaussian", **GRID, **OIL)),
    confocal=sections(
        psfmodels.confocal_psf(
            SIZE, SIZE, ex_wvl=0.534, em_wvl=0.58, pinhole_au=1.0, model="vectorial", **GRID, **OIL
        )
    ),
)
