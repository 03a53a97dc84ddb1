"""What a nearest point must satisfy, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def costs(x: Tensor, y: Tensor, potential: Tensor | None = None) -> Tensor:
    """[..., N, M] in float64: exact for float32 inputs to about 2^-52."""
    cost = (x.double()[..., :, None, :] - y.double()[..., None, :, :]).square().sum(-1)
    return cost if potential is None else cost - potential.double()[..., None, :]


def summation_bound(cost: Tensor, d: int, dtype: torch.dtype, potential: Tensor | None = None) -> Tensor:
    """Error of a distance summed from differences: d additions, a difference and a square each lose at most u.

    Higham 2002, eq. 3.4: (d + 2) u times the sum of the (positive) terms, to first order; d squares may vanish.
    """
    info = torch.finfo(dtype)
    size = cost.abs() if potential is None else cost.abs() + 2 * potential.double().abs().amax(-1, keepdim=True)
    return 1.01 * (d + 3) * info.eps / 2 * size + d * info.smallest_normal * info.eps


def assert_nearest(value: Tensor, index: Tensor, x: Tensor, y: Tensor, potential: Tensor | None = None) -> None:
    """The index attains the float64 minimum, and the value is its cost, both within the summation bound."""
    cost = costs(x, y, potential)
    assert index.dtype == torch.int64
    assert ((index >= 0) & (index < y.shape[-2])).all()
    chosen = cost.gather(-1, index[..., None])[..., 0]
    dtype = value.dtype
    # both the chosen and the best cost were summed with that error: twice the bound, near ties may swap
    slack = summation_bound(chosen, x.shape[-1], dtype, potential)
    assert (chosen - cost.amin(-1) <= 2 * slack).all()
    assert ((value.double() - chosen).abs() <= slack).all()


def assert_nearest_of_many(value: Tensor, index: Tensor, x: Tensor, y: Tensor, potential: Tensor | None = None) -> None:
    """The same for x [N, D] and y [M, D] whose differences no memory holds: the best of each row by products in
    float64, then both costs from differences. Products keep 2^-53 of the norms about y's mean: less than the bound.
    """
    centre = y.double().mean(0)
    a, b = x.double() - centre, y.double() - centre
    half = b.square().sum(1) / 2 - (0 if potential is None else potential.double() / 2)
    best = torch.cat([(half - rows @ b.T).argmin(1) for rows in a.split(1024)])
    few = torch.stack((index, best), 1)  # [N, 2]
    offsets = None if potential is None else potential[few]
    assert ((index >= 0) & (index < len(y))).all()
    chosen, least = ((x.double() - y[j].double()).square().sum(1) for j in few.T)
    if potential is not None:
        chosen, least = chosen - potential[index].double(), least - potential[best].double()
    slack = summation_bound(chosen, x.shape[1], value.dtype, offsets)
    assert (chosen - least <= 2 * slack).all()
    assert ((value.double() - chosen).abs() <= slack).all()
