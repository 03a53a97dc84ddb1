"""otkernels: fused optimal-transport ops for PyTorch."""

from ._dispatch import available_impls
from ._version import __version__
from .l2_argmin import L2Argmin, l2_argmin
from .soft_forest import soft_forest

__all__ = ["L2Argmin", "__version__", "available_impls", "l2_argmin", "soft_forest"]
