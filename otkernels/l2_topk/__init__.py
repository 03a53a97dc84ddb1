from .op import L2TopK, l2_topk

__all__ = ["L2TopK", "l2_topk"]
