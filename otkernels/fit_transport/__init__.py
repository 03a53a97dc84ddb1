from .op import FitTransport, fit_transport

__all__ = ["FitTransport", "fit_transport"]
