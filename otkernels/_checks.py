"""Argument checks. One message form: ``op: argument must be ..., got ...``."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def alike(op: str, **tensors: Tensor | None) -> None:
    """Every tensor is a torch.Tensor of one of the four float types, with the dtype and the device of the first one."""
    first_name, first = "", None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{op}: {name} must be a torch.Tensor, got {type(tensor).__name__}")
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
