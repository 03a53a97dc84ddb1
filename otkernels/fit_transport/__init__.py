from .op import FitTransport, fit_transport
from .state import AdamState

__all__ = ["AdamState", "FitTransport", "fit_transport"]
