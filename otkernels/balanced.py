"""Exactly balanced clusters, by one assignment."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _checks
from .assign import assign


@torch.no_grad()
def balanced(
    x: Tensor, y: Tensor, potential: Tensor | None = None, *, tolerance: float = 0.0, impl: str = "auto"
) -> Tensor:
    """The cluster of every point where all clusters have the same size: balanced k-means' assignment, exactly.

        minimise over c   sum_i |x_i - y_c(i)|^2 - potential_c(i)   with floor(N / M) or ceil(N / M) points a cluster

    Every y_j stands ceil(N / M) times among the candidates of one `assign`; where M does not divide N, the last copy of
    each is taken only once all others are.

    Args:
        x: [..., N, D] points; float32, float64, float16 or bfloat16.
        y: [..., M, D] centres, M >= 1, the same leading dimensions, dtype and device.
        potential: [..., M], taken off the costs of the centres, as `semidiscrete` finds it for equal weights; finite;
            None for zeros. Where M divides N it changes no result; else it has a say in which clusters get one more.
        tolerance: relative gap at which assign may stop; 0 is optimal to rounding, as it always is where M does not
            divide N.
        impl: of assign.

    Returns:
        int64 [..., N], in 0..M-1; -1 throughout a problem that holds a NaN or an infinity.

    Memory and time of an `assign` of N points and M ceil(N / M) copies of centres. Not differentiable.

    Raises:
        ValueError: a shape, dtype, device or option is wrong; the message names it.
    """
    x, y, potential = _checks.autocast(x, y, potential)
    _checks.alike("balanced", x=x, y=y, **({} if potential is None else {"potential": potential}))
    if x.dim() < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"balanced: x must be [..., N, D] with N, D >= 1, got {_checks.shape(x)}")
    lead, (n, d), m = x.shape[:-2], x.shape[-2:], y.shape[-2] if y.dim() > 1 else 0
    if y.shape != (*lead, m, d) or m < 1:
        shape = _checks.named(lead, "M, D")
        raise ValueError(f"balanced: y must be {shape} with D={d} and M >= 1, got {_checks.shape(y)}")
    if potential is None:
        potential = y.new_zeros(y.shape[:-1])
    elif potential.shape != y.shape[:-1]:
        shape = _checks.named(lead, "M")
        raise ValueError(f"balanced: potential must be {shape} with M={m}, got {_checks.shape(potential)}")
    x, y, potential = (t.float() if t.dtype in _checks.HALVES else t for t in (x, y, potential))
    size = -(-n // m)
    copies = potential[..., None].expand(*potential.shape, size)  # [..., M, size]
    if n % m and size > 1:
        # in float64, which holds premium and potentials beside each other; a premium is no cost for a gap to be part of
        x, y, copies, tolerance = x.double(), y.double(), copies.double(), 0.0
        copies = copies - copies.amax((-2, -1), keepdim=True)  # what all potentials have in common would hide a premium
        needed = torch.arange(size, device=x.device) < n // m
        copies = torch.where(needed, copies + _premium(x, y, copies)[..., None, None], copies)
    index = assign(x, y.repeat_interleave(size, -2), potential=copies.flatten(-2), tolerance=tolerance, impl=impl).index
    return index.div(size, rounding_mode="floor")


def _premium(x: Tensor, y: Tensor, copies: Tensor) -> Tensor:
    """More than moving any one point to any other centre can cost, and above zero where it costs nothing: [...]."""
    middle = y.mean(-2, keepdim=True)
    reach = (x - middle).square().sum(-1).amax(-1).sqrt() + (y - middle).square().sum(-1).amax(-1).sqrt()
    return (1.01 * (reach.square() + copies.amax((-2, -1)) - copies.amin((-2, -1)))).clamp_min(2.0**-1000)
