from .op import L2Argmin, l2_argmin

__all__ = ["L2Argmin", "l2_argmin"]
