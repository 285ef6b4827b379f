"""n2v.models: settings and networks."""

from care_bridge.n2v.models.config import N2VConfig
from care_bridge.n2v.models.model import N2V

__all__ = ["N2V", "N2VConfig"]
