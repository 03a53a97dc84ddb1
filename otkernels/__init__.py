"""otkernels: fused optimal-transport ops for PyTorch."""

from . import nn as nn
from ._dispatch import available_impls
from ._version import __version__
from .fit_transport import AdamState, FitTransport, fit_transport
from .l2_argmin import L2Argmin, l2_argmin
from .l2_topk import L2TopK, l2_topk
from .soft_forest import soft_forest

__all__ = [
    "AdamState",
    "FitTransport",
    "L2Argmin",
    "L2TopK",
    "__version__",
    "available_impls",
    "fit_transport",
    "l2_argmin",
    "l2_topk",
    "soft_forest",
]
