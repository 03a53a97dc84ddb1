"""otkernels: fused optimal-transport ops for PyTorch."""

from . import coupling as coupling
from . import distributed as distributed
from . import nn as nn
from ._dispatch import available_impls
from ._version import __version__
from .assign import Assignment, Verification, assign, verify
from .balanced import balanced
from .fit_transport import AdamState, FitTransport, TransportCost, fit_transport, transport_cost
from .l2_argmin import L2Argmin, l2_argmin
from .l2_topk import L2TopK, l2_topk
from .semidiscrete import Semidiscrete, semidiscrete
from .soft_forest import soft_forest

__all__ = [
    "AdamState",
    "Assignment",
    "FitTransport",
    "L2Argmin",
    "L2TopK",
    "Semidiscrete",
    "TransportCost",
    "Verification",
    "__version__",
    "assign",
    "available_impls",
    "balanced",
    "fit_transport",
    "l2_argmin",
    "l2_topk",
    "semidiscrete",
    "soft_forest",
    "transport_cost",
    "verify",
]
