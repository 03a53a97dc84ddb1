"""What a semidiscrete potential must satisfy, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from otkernels import Semidiscrete, l2_argmin
from tests.otkernels.nearest import costs, in_units


def weights(given: Tensor | None, points: Tensor) -> Tensor:
    """[..., K] in float64 with sum 1."""
    wide = torch.ones(points.shape[:-1], dtype=torch.float64) if given is None else given.double()
    return wide / wide.sum(-1, keepdim=True)


def masses(found: Semidiscrete, x: Tensor, y: Tensor, a: Tensor) -> Tensor:
    """[..., M]: what weighs on each point of y under the potential."""
    mass = torch.zeros(y.shape[:-1], dtype=torch.float64)
    return mass.scatter_add_(-1, l2_argmin(x, y, found.potential).index, a)


def reported_error(
    found: Semidiscrete, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None
) -> float:
    """How far what is reported is from what the potential does: its cells' masses and the dual value.

    In units of what rounding allows: masses are float64 sums of at most N terms, of total 1; l2_argmin's costs are sums
    of D squares and a potential.
    """
    a, b = weights(a, x), weights(b, y)
    error = (masses(found, x, y, a) - b).abs().amax(-1)
    g = found.potential.double()
    value = (a * costs(x, y, g).amin(-1)).sum(-1) + (b * g.where(b > 0, 0)).sum(-1)
    size = costs(x, y).amax((-1, -2)) + 2 * g.where(b > 0, 0).abs().amax(-1)
    dtype = found.potential.dtype
    return max(
        in_units((found.marginal_error - error).abs(), torch.full_like(error, a.shape[-1] * 2.0**-52)),
        in_units((found.value - value).abs(), (x.shape[-1] + 3) * torch.finfo(dtype).eps * size),
    )
