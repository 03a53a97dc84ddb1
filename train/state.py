"""The structure of a checkpoint: what is there and of which type, before any of it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def check_state(state: Any) -> None:
    """ValueError in one line if a part of a trainer's state is missing or of another type; unknown parts may stay."""
    if not isinstance(state, Mapping):
        raise ValueError("checkpoint: it holds no named parts")
    absent = [name for name in PARTS if name not in state]
    if absent:
        raise ValueError(f"checkpoint: it lacks {', '.join(absent)}")
    wrong = [name for name, fits in PARTS.items() if not fits(state[name])]
    if wrong:
        raise ValueError(f"checkpoint: its {', '.join(wrong)} cannot be what a run saved")


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _random_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() == 1


def _optimizers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(one, Mapping)
        and isinstance(one.get("state"), Mapping)
        and all(isinstance(moments, Mapping) for moments in one["state"].values())
        and isinstance(one.get("param_groups"), list)
        and all(isinstance(group, Mapping) for group in one["param_groups"])
        for one in value.values()
    )


def _average(value: Any) -> bool:
    return value is None or (
        isinstance(value, Mapping) and _count(value.get("updates")) and _tensors(value.get("average"))
    )


PARTS: dict[str, Callable[[Any], bool]] = {
    "step": _count,
    "seconds": lambda value: isinstance(value, int | float) and math.isfinite(value) and value >= 0,
    "device": lambda value: isinstance(value, str),
    "game": _tensors,
    "optimizers": _optimizers,
    "ema": _average,
    "data": lambda value: isinstance(value, Mapping),
    "noise": _random_state,
    "rng": _random_state,
    "cuda_rng": lambda value: value is None or _random_state(value),
}
