"""The mover's cost c(x, y) in 3P-WGAN: l2, lp, or a function of the user's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Cost = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class L2Cost:
    """|x - y|_2 over the last dimension D; scale "mean": divided by sqrt(D)."""

    scale: Literal["sum", "mean"] = "sum"

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x - y, dim=-1) / (x.shape[-1] ** 0.5 if self.scale == "mean" else 1)


@dataclass(frozen=True)
class LpCost:
    """|x - y|_p^p over the last dimension D; scale "mean": divided by D."""

    p: float = 2.0
    scale: Literal["sum", "mean"] = "sum"

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        powers = (x - y).abs().pow(self.p)
        return powers.mean(-1) if self.scale == "mean" else powers.sum(-1)


class OwnCost:
    """The function MODULE:FUNCTION, which takes two tensors [..., D] and returns a floating tensor [...].

    It is imported when an OwnCost is made: ValueError if that fails. A call raises RuntimeError in one line, with the
    function's name, if the function raises or returns something else. Pickled by name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        module, _, function = name.partition(":")
        try:
            self.function: Any = getattr(importlib.import_module(module), function)
            if not callable(self.function):
                raise TypeError(f"{function} is no function")
        except (Exception, SystemExit) as error:  # whatever the user's module raises
            raise ValueError(
                f"ThreePlayerWgan: cost must be l2, lp or MODULE:FUNCTION, got {name!r}: {_line(error)}"
            ) from error

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        try:
            value = self.function(x, y)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as error:  # whatever the user's function raises
            raise RuntimeError(f"ThreePlayerWgan: cost {self.name} raised {_line(error)}") from error
        if not isinstance(value, Tensor) or value.shape != x.shape[:-1] or not value.is_floating_point():
            got = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise RuntimeError(
                f"ThreePlayerWgan: cost {self.name} must return a floating tensor {list(x.shape[:-1])} for two tensors "
                f"{list(x.shape)}, got {got}"
            )
        return value

    def __reduce__(self) -> tuple[type[OwnCost], tuple[str]]:
        return OwnCost, (self.name,)


def make_cost(name: str, p: float, scale: Literal["sum", "mean"]) -> Cost:
    """l2: |x - y|_2; lp: |x - y|_p^p; MODULE:FUNCTION: that function. scale "mean": the sum over D becomes a mean."""
    if name == "l2":
        return L2Cost(scale)
    return LpCost(p, scale) if name == "lp" else OwnCost(name)


def try_cost(cost: Cost, name: str, dim: int) -> None:
    """Call ``cost`` on a few points [2, D] and on runs of them [3, 2, D], D = ``dim``, as the training will.

    ValueError, saying what a cost must be, unless it returns floating, finite values [2] and [3, 2] with a finite
    gradient.
    """
    rule = (
        f"ThreePlayerWgan: cost {name} must be a function of two tensors [..., D] that returns a floating, finite and "
        f"differentiable tensor [...]"
    )
    points = torch.linspace(-1, 1, 6 * dim).view(3, 2, dim)
    for moved, still in ((points[0], points[1]), (points, points.flip(0) + 0.25)):
        x = moved.clone().requires_grad_()
        with torch.enable_grad():
            try:
                value = cost(x, still)
            except RuntimeError as error:
                raise ValueError(f"{rule}; {str(error).removeprefix('ThreePlayerWgan: ')}") from error
            if not value.requires_grad:
                raise ValueError(f"{rule}, got one without a gradient for {list(x.shape)}")
            try:
                (gradient,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
            except RuntimeError as error:
                raise ValueError(f"{rule}; its gradient raised {_line(error)}") from error
        if gradient is None or not value.isfinite().all() or not gradient.isfinite().all():
            raise ValueError(f"{rule}, got values or gradients that are missing, NaN or infinite for {list(x.shape)}")


def _line(error: BaseException) -> str:
    """An error in one line of at most 200 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else text[:197] + "..."
