from .op import soft_forest

__all__ = ["soft_forest"]
