"""csbdeep.models: settings and networks."""

from care_bridge.csbdeep.models.care import CARE, IsotropicCARE, ProjectionCARE, UpsamplingCARE
from care_bridge.csbdeep.models.config import Config, ProjectionConfig
from care_bridge.csbdeep.models.probability import ProbabilisticPrediction

__all__ = [
    "CARE",
    "Config",
    "IsotropicCARE",
    "ProbabilisticPrediction",
    "ProjectionCARE",
    "ProjectionConfig",
    "UpsamplingCARE",
]
