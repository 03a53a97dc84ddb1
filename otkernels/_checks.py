"""Argument checks and autocast. One message form: ``op: argument must be ..., got ...``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

HALVES = (torch.float16, torch.bfloat16)
FLOATS = (torch.float32, torch.float64, *HALVES)


def shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def named(lead: torch.Size, last: str) -> str:
    """A shape with known leading dimensions, such as [3, M, D]."""
    return "[" + "".join(f"{size}, " for size in lead) + last + "]"


def autocast(*tensors: Any) -> tuple[Any, ...]:
    """Under autocast half precisions become float32, where mixed dtypes meet; otherwise the tensors as they are."""
    device = tensors[0].device.type if isinstance(tensors[0], Tensor) else "cpu"
    if device == "meta" or not torch.is_autocast_enabled(device):  # torch knows no autocast for meta tensors
        return tensors
    return tuple(t.float() if isinstance(t, Tensor) and t.dtype in HALVES else t for t in tensors)


def alike(op: str, **tensors: Tensor) -> None:
    """Every tensor is a dense torch.Tensor of one of the four float types, with the first one's dtype and device."""
    first_name, first = "", None
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{op}: {name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise ValueError(f"{op}: {name} must be a dense tensor, got {tensor.layout} {shape(tensor)}")
        if tensor.dtype not in FLOATS:
            raise ValueError(
                f"{op}: {name} must be float32, float64, float16 or bfloat16, got {tensor.dtype} {shape(tensor)}"
            )
        if first is None:
            first_name, first = name, tensor
        elif tensor.dtype != first.dtype:
            raise ValueError(
                f"{op}: {name} must have {first_name}'s dtype {first.dtype}, got {tensor.dtype} {shape(tensor)}"
            )
        elif tensor.device != first.device:
            raise ValueError(
                f"{op}: {name} must be on {first_name}'s device {first.device}, got {tensor.device} {shape(tensor)}"
            )
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors.values()):
        # torch.library would drop the tangent and report a derivative of zero.
        raise NotImplementedError(
            f"{op}: forward-mode derivatives (torch.func.jvp) are not supported; use reverse mode"
        )
