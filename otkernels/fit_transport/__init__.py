from .cost import TransportCost, transport_cost
from .op import FitTransport, fit_transport
from .state import AdamState

__all__ = ["AdamState", "FitTransport", "TransportCost", "fit_transport", "transport_cost"]
