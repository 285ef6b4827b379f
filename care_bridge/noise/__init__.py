"""The noise of an image, measured in that image alone, and whether a model was trained for such noise."""

from care_bridge.noise.measure import measure_channels, measure_noise, measure_some, unlike
from care_bridge.noise.value import CLEAN_DB, CORRELATED, LIGHTER, Noise, NoiseRange

__all__ = [
    "CLEAN_DB",
    "CORRELATED",
    "LIGHTER",
    "Noise",
    "NoiseRange",
    "measure_channels",
    "measure_noise",
    "measure_some",
    "unlike",
]
