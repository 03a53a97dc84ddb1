"""Whether an assignment is optimal, from its potentials alone: weak duality, two calls of l2_argmin."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks
from ..l2_argmin import l2_argmin
from .certificate import primal_cost
from .op import Assignment, check


class Verification(NamedTuple):
    """What verify finds, per problem [...]."""

    valid: Tensor
    """bool: the index is injective, and violation and |primal - dual| / N are at most ``rounding``: it is optimal."""
    primal: Tensor
    """sum_i |x_i - y_sigma(i)|^2 - potential_sigma(i)."""
    dual: Tensor
    """sum_i u_i + sum_j v_j. Every matching costs at least dual - N * violation."""
    violation: Tensor
    """By how much u_i + v_j exceeds c_ij at the worst pair, or v_j exceeds 0 where N < M; 0 where none does."""
    rounding: Tensor
    """Float64's own error: up to it, ``violation`` and |primal - dual| / N count as zero."""


@torch.no_grad()
def verify(x: Tensor, y: Tensor, result: Assignment, potential: Tensor | None = None) -> Verification:
    """Checks the certificate of ``assign(x, y, potential=potential)`` from the coordinates, in float64.

    Every pair is priced, by rows and by columns, in memory O(N + M): u_i <= min_j (c_ij - v_j) and
    v_j <= min_i (c_ij - u_i), with c_ij = |x_i - y_j|^2 - potential_j. Where both hold, dual <= the cost of any
    matching (weak duality, Peyre & Cuturi 2019, section 2.5), so a matching whose cost equals dual is optimal. A
    matching that assign found with tolerance > 0 is seldom optimal, so not valid: where violation <= rounding, it costs
    at most primal - dual more than the best.

    Args:
        x: [..., N, D], y: [..., M, D], potential: [..., M] or None, as they were given to assign.
        result: what it returned.

    Returns:
        A Verification of tensors [...]; nothing is raised for a wrong result. Problems that were not solved (index -1)
        are not valid.

    Raises:
        ValueError: a shape, dtype or device is wrong.
    """
    x, y, potential = _checks.autocast(x, y, potential)
    check("verify", x, y, potential)
    n, m, d = x.shape[-2], y.shape[-2], x.shape[-1]
    x, y = x.double(), y.double()
    offsets = torch.zeros_like(y[..., 0]) if potential is None else potential.double()
    index, u, v = result.index, result.u, result.v
    if n == 0:
        nothing = v.new_zeros(v.shape[:-1])
        return Verification(torch.ones_like(nothing, dtype=torch.bool), nothing, nothing, nothing, nothing)
    by_rows = u - l2_argmin(x, y, offsets + v).value  # [..., N]
    by_columns = v + offsets - l2_argmin(y, x, u).value  # [..., M]
    violation = torch.maximum(by_rows.amax(-1), by_columns.amax(-1)).clamp_min(0)
    if n < m:
        violation = torch.maximum(violation, v.amax(-1))
    primal, dual = primal_cost(x, y, potential, index), u.sum(-1) + v.sum(-1)
    matched = index.clamp_min(0)
    distance = (x - y.take_along_dim(matched[..., None], -2)).square().sum(-1)
    scale = torch.stack([t.abs().amax(-1) for t in (distance, u, v, offsets)]).sum(0)
    rounding = 4 * (d + 16) * torch.finfo(torch.float64).eps * scale
    count = torch.zeros_like(v).scatter_add(-1, matched, torch.ones_like(u))
    valid = (index >= 0).all(-1) & (count <= 1).all(-1) & (violation <= rounding)
    return Verification(valid & ((primal - dual).abs() <= n * rounding), primal, dual, violation, rounding)
