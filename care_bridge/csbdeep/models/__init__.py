"""csbdeep.models: settings and networks."""

from care_bridge.csbdeep.models.care import CARE
from care_bridge.csbdeep.models.config import Config, ProjectionConfig
from care_bridge.csbdeep.models.probability import ProbabilisticPrediction
from care_bridge.csbdeep.models.stacks import IsotropicCARE, ProjectionCARE, UpsamplingCARE

__all__ = [
    "CARE",
    "Config",
    "IsotropicCARE",
    "ProbabilisticPrediction",
    "ProjectionCARE",
    "ProjectionConfig",
    "UpsamplingCARE",
]
