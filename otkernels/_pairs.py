"""What the ops on pairs of points, of costs |x_i - y_j|^2 - potential_j, share: checks, batches, derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._checks import widen


def check(op: str, x: Tensor, y: Tensor, potential: Tensor | None) -> None:
    """x [..., N, D], y [..., M, D] with M >= 1 and potential [..., M] or None, of one dtype and device."""
    if potential is None:
        _checks.alike(op, x=x, y=y)
    else:
        _checks.alike(op, x=x, y=y, potential=potential)
    if x.dim() < 2 or x.shape[-1] < 1:
        raise ValueError(f"{op}: x must be [..., N, D] with D >= 1, got {_checks.shape(x)}")
    lead, d = x.shape[:-2], x.shape[-1]
    if y.dim() != x.dim() or y.shape[:-2] != lead or y.shape[-1] != d:
        raise ValueError(f"{op}: y must be {_checks.named(lead, 'M, D')} with D={d}, got {_checks.shape(y)}")
    m = y.shape[-2]
    if m < 1:
        raise ValueError(f"{op}: y must hold at least one point (M >= 1), got {_checks.shape(y)}")
    if potential is not None and potential.shape != y.shape[:-1]:
        raise ValueError(
            f"{op}: potential must be {_checks.named(lead, 'M')} with M={m}, got {_checks.shape(potential)}"
        )


def one_batch(x: Tensor, y: Tensor, potential: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The same points with one leading dimension B: x [B, N, D], y [B, M, D], potential [B, M]."""
    leading = x.dim() - 2
    if leading == 0:
        return x[None], y[None], None if potential is None else potential[None]
    if leading == 1:
        return x, y, potential
    return x.flatten(0, -3), y.flatten(0, -3), None if potential is None else potential.flatten(0, -2)


def mapped(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, y: Tensor, potential: Tensor | None
) -> tuple[torch.Size, tuple[Tensor, Tensor, Tensor | None]]:
    """The sizes of what vmap maps over and of B, and the points with both as one leading dimension."""

    def front(tensor: Tensor, dim: int | None) -> Tensor:
        return tensor.movedim(dim, 0) if dim is not None else tensor.expand(info.batch_size, *tensor.shape)

    x, y = front(x, in_dims[0]), front(y, in_dims[1])
    offsets = None if potential is None else front(potential, in_dims[2]).flatten(0, 1)
    return x.shape[:2], (x.flatten(0, 1), y.flatten(0, 1), offsets)


def pull(x: Tensor, y: Tensor, index: Tensor, grad_value: Tensor) -> Tensor:
    """The gradient that value_i sends to x_i, and negated to y_j, at j = index_i: [B, N, D], zeros where that is -1."""
    seen = index >= 0
    pairs = index.clamp_min(0)[..., None].expand_as(x)  # [B, N, D]
    difference = torch.where(seen[..., None], widen(x) - widen(y).gather(1, pairs), 0)
    return 2 * torch.where(seen, grad_value, 0)[..., None] * difference


def gradients(
    x: Tensor,
    y: Tensor,
    index: Tensor,
    grad_value: Tensor,
    needs: tuple[bool, ...],
    dtype: torch.dtype | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those of value_ic = |x_i - y_j|^2 - potential_j at the fixed j = index_ic, in differentiable torch ops.

    x [B, N, D], y [B, M, D], index and grad_value [B, N, K] -> the gradients of x, y and potential [B, M] that are
    needed, the last in `dtype`. Rows whose indices are -1 give x a NaN gradient and leave y and potential alone. One c
    after the other, so that memory does not grow with K D.
    """
    grad_x = x.new_zeros(x.shape, dtype=grad_value.dtype) if needs[0] else None
    grad_y = y.new_zeros(y.shape, dtype=grad_value.dtype) if needs[1] else None
    grad_potential = grad_value.new_zeros(y.shape[:2]) if needs[2] else None
    for chosen, grad in zip(index.unbind(-1), grad_value.unbind(-1), strict=True):
        safe = chosen.clamp_min(0)
        if grad_x is not None or grad_y is not None:
            moved = pull(x, y, chosen, grad)
        if grad_x is not None:
            grad_x = grad_x + torch.where((chosen >= 0)[..., None], moved, torch.nan)
        if grad_y is not None:
            grad_y = grad_y.scatter_add(1, safe[..., None].expand_as(x), -moved)
        if grad_potential is not None:
            grad_potential = grad_potential.scatter_add(1, safe, -torch.where(chosen >= 0, grad, 0))
    return (
        None if grad_x is None else grad_x.to(x.dtype),
        None if grad_y is None else grad_y.to(y.dtype),
        None if grad_potential is None else grad_potential.to(dtype),
    )


def tangent(
    x: Tensor, y: Tensor, index: Tensor, dx: Tensor | None, dy: Tensor | None, dpotential: Tensor | None
) -> Tensor:
    """The derivative of value_i at the fixed index [B, N] along (dx, dy, dpotential), in differentiable torch ops."""
    x, y = widen(x), widen(y)
    safe = index.clamp_min(0)
    pairs = safe[..., None].expand_as(x)  # [B, N, D]
    moved = torch.zeros_like(x) if dx is None else widen(dx)
    if dy is not None:
        moved = moved - widen(dy).gather(1, pairs)
    change = 2 * ((x - y.gather(1, pairs)) * moved).sum(-1)
    if dpotential is not None:
        change = change - widen(dpotential).gather(1, safe)
    return torch.where(index < 0, torch.nan, change)
