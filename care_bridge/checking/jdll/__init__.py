"""What deepImageJ's engine (JDLL 0.6) makes of a package: its rules, its normalisation and its tiles in
NumPy.

The rules were seen in about 380 runs of JDLL 0.6.1 and 0.6.3. Formulas per axis (N size, h halo, s step):
tile ``t = floor((N + 2h) / s) * s``, at most three times the image; ``pad0 = max(h, ceil((t - N) / 2))``;
a later tile overwrites an earlier one; outside, the image is mirrored with its edge pixel repeated.
"""

from care_bridge.checking.jdll.processing import process
from care_bridge.checking.jdll.rdf import (
    Axis,
    Description,
    JdllError,
    choose_weights,
    read,
    smallest,
    weights_file,
    without_halo,
)
from care_bridge.checking.jdll.run import predict

__all__ = [
    "Axis",
    "Description",
    "JdllError",
    "choose_weights",
    "predict",
    "process",
    "read",
    "smallest",
    "weights_file",
    "without_halo",
]
