"""Argument checks. One message form: ``op: argument must be ..., got ...``."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def require(condition: bool, op: str, message: str) -> None:
    if not condition:
        raise ValueError(f"{op}: {message}")


def floating(op: str, **tensors: Tensor | None) -> None:
    """Every tensor is a torch.Tensor of one of the four float types."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        require(isinstance(tensor, Tensor), op, f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        require(
            tensor.dtype in FLOATS,
            op,
            f"{name} must be float32, float64, float16 or bfloat16, got {tensor.dtype} {shape(tensor)}",
        )


def alike(op: str, **tensors: Tensor | None) -> None:
    """Every tensor has the dtype and the device of the first one."""
    present = [(name, tensor) for name, tensor in tensors.items() if tensor is not None]
    first_name, first = present[0]
    for name, tensor in present[1:]:
        require(
            tensor.dtype == first.dtype,
            op,
            f"{name} must have {first_name}'s dtype {first.dtype}, got {tensor.dtype} {shape(tensor)}",
        )
        require(
            tensor.device == first.device,
            op,
            f"{name} must be on {first_name}'s device {first.device}, got {tensor.device} {shape(tensor)}",
        )


def choice(op: str, name: str, value: str, allowed: tuple[str, ...]) -> None:
    require(value in allowed, op, f"{name} must be one of {', '.join(allowed)}, got {value!r}")
