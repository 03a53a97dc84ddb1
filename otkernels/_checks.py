"""Argument checks and autocast. One message form: ``op: argument must be ..., got ...``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

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


def widen(tensor: Tensor) -> Tensor:
    """Half precisions are computed, and what comes of them is returned, in float32."""
    return tensor.float() if tensor.dtype in HALVES else tensor


def widened(dtype: torch.dtype) -> torch.dtype:
    """What widen makes of it."""
    return torch.float32 if dtype in HALVES else dtype


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


def choice(op: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(choices)}, got {value!r}")


def count(op: str, name: str, value: Any) -> int:
    """`value` as an int of at least 1; a float, a bool or a tensor is none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{op}: {name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def number(op: str, name: str, value: Any, below: float = math.inf, must: str = "a finite number >= 0") -> float:
    """`value` as a float in [0, below); NaN, a bool, a string or a tensor is none."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not 0 <= value < below:
        raise ValueError(f"{op}: {name} must be {must}, got {value!r}")
    return float(value)


def apart(op: str, written: dict[str, Tensor], read: dict[str, Tensor]) -> None:
    """No tensor that is written shares memory with another one."""
    spans = {name: _span(tensor) for name, tensor in (*written.items(), *read.items()) if tensor.numel()}
    names = list(spans)
    for k, name in enumerate(names):
        if name not in written:
            break
        for other in names[k + 1 :]:
            if spans[name][0] < spans[other][1] and spans[other][0] < spans[name][1]:
                raise ValueError(f"{op}: {other} must not share memory with {name}, which is updated in place")


def _span(tensor: Tensor) -> tuple[int, int]:
    """First and last address, plus one, of a tensor's elements."""
    start = tensor.data_ptr()
    if tensor.is_contiguous():
        return start, start + tensor.numel() * tensor.element_size()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.element_size()
