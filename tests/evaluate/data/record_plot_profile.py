"""Record ImageJ's Plot Profile along some lines: python record_plot_profile.py > plot_profile.json

Needs the fetched Java side (`care-bridge doctor --install`); run again only to try another ImageJ.
"""

import json
import sys

import jpype
import numpy as np

from care_bridge.java import runtimes

LINES = [
    (5, 5, 45, 5), (7, 3, 7, 37), (2, 2, 33, 33), (3, 30, 44, 4), (45, 35, 4, 9), (10, 20, 13, 22), (0, 0, 49, 39),
    (0, 39, 49, 39), (49, 0, 49, 39), (8, 8, 8, 8), (5.5, 6.25, 40.75, 30.5), (1, 17, 48, 20),
]  # fmt: skip

jpype.startJVM(
    str(runtimes.jvm_library(runtimes.java_home())), "-Djava.awt.headless=true",
    classpath=[str(jar) for jar in runtimes.imagej_jars()],
)  # fmt: skip
y, x = np.mgrid[0:40, 0:50]
pixels = ((x * 37 + y * 91 + x * y * 5) % 3001).astype(np.uint16)
processor = jpype.JClass("ij.process.ShortProcessor")(50, 40)
for (row, column), value in np.ndenumerate(pixels):
    processor.set(column, row, int(value))
image = jpype.JClass("ij.ImagePlus")("recorded", processor)
cases = []
for line in LINES:
    image.setRoi(jpype.JClass("ij.gui.Line")(*(jpype.JDouble(v) for v in line)))
    profile = jpype.JClass("ij.gui.ProfilePlot")(image).getProfile()
    cases.append({"line": line, "values": [round(float(v), 5) for v in profile]})
version = str(jpype.JClass("ij.IJ").getFullVersion())
lines = ",\n".join(json.dumps(case) for case in cases)
sys.stdout.write(f'{{"imagej": "{version}", "cases": [\n{lines}\n]}}\n')
