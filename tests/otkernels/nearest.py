"""What a nearest point must satisfy, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


def nearest_of_many_error(value: Tensor, index: Tensor, x: Tensor, y: Tensor, potential: Tensor | None = None) -> float:
    """The same for x [N, D] and y [M, D] whose differences no memory holds, in units of what rounding allows.

    The best of each row by products in float64, then both costs from differences. Products keep 2^-53 of the norms
    about y's mean: less than the bound.
    """
    centre = y.double().mean(0)
    a, b = x.double() - centre, y.double() - centre
    half = b.square().sum(1) / 2 - (0 if potential is None else potential.double() / 2)
    best = torch.cat([(half - rows @ b.T).argmin(1) for rows in a.split(1024)])
    few = torch.stack((index, best), 1)  # [N, 2]
    offsets = None if potential is None else potential[few]
    assert ((index >= 0) & (index < len(y))).all(), "an index is out of range"
    chosen, least = ((x.double() - y[j].double()).square().sum(1) for j in few.T)
    if potential is not None:
        chosen, least = chosen - potential[index].double(), least - potential[best].double()
    slack = summation_bound(chosen, x.shape[1], value.dtype, offsets)
    return max(in_units((chosen - least).clamp_min(0), 2 * slack), in_units((value.double() - chosen).abs(), slack))


def assert_nearest_of_many(value: Tensor, index: Tensor, x: Tensor, y: Tensor, potential: Tensor | None = None) -> None:
    assert nearest_of_many_error(value, index, x, y, potential) <= 1


class Costs(NamedTuple):
    """What an implementation that computes in some dtype must find, up to rounding, for each pair [..., N, M]."""

    cost: Tensor  # float64; infinite where the dtype overflows
    slack: Tensor  # what the cost may be off by; 0 where infinite, and where every sum is exact in the dtype
    unclear: Tensor  # [..., N]: rows with a cost of which rounding decides whether it overflows


def rounded_costs(x: Tensor, y: Tensor, potential: Tensor | None, dtype: torch.dtype) -> Costs:
    """Costs as sums from differences in `dtype` may find them, NaN and infinity included.

    In float64 the costs here are as inexact as those that are judged. A pair's two costs differ by two errors, and the
    nearest by either sum need not be the nearest in truth, which doubles them again: 4 in place of 1.
    """
    d, info = x.shape[-1], torch.finfo(dtype)
    distance = costs(x, y)
    offset = torch.zeros_like(y[..., 0], dtype=torch.float64) if potential is None else potential.double()
    offset = offset[..., None, :]  # [..., 1, M]
    near = 2.02 * (d + 3) * info.eps / 2 * info.max
    unclear = (distance - info.max).abs() < near
    cost = distance.masked_fill(distance > info.max, torch.inf) - offset
    unclear |= (cost.abs() - info.max).abs() < near
    cost = torch.where(cost.abs() > info.max, cost.sign() * torch.inf, cost)
    pairs = offset.expand_as(cost)[..., None]  # a potential of each pair's own, in place of the largest of all
    slack = summation_bound(cost[..., None], d, dtype, pairs)[..., 0] * (4 if dtype == torch.float64 else 1)
    numbers = [x.double(), y.double(), offset]
    whole = all(bool((t == t.round()).all() and t.isfinite().all()) for t in numbers)
    largest = [t.abs().amax().item() if t.numel() else 0.0 for t in numbers]
    if whole and d * (largest[0] + largest[1]) ** 2 + largest[2] <= 2 / info.eps:
        slack = torch.zeros_like(slack)
    return Costs(cost, slack.masked_fill(~cost.isfinite(), 0), unclear.any(-1))


def in_units(error: Tensor, allowed: Tensor) -> float:
    """The largest error / allowed, where 0 / 0 is 0."""
    ratio = torch.where((error == 0) | allowed.isinf(), 0, error / allowed)
    return ratio.amax().item() if ratio.numel() else 0.0


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """|a - b|, 0 where both are the same infinity."""
    return torch.where(a == b, 0, (a - b).abs())


def k_nearest_error(value: Tensor, index: Tensor, x: Tensor, y: Tensor, potential: Tensor | None = None) -> float:
    """Whether value and index [..., N, k] are the k least costs of each row, for any numbers, NaN and infinity, too.

    Returns the worst error in units of what rounding allows. Raises AssertionError where a rule is broken that does not
    depend on rounding: a row with a NaN among its costs has index -1 and value NaN, indices are distinct, values
    ascend, equal values have ascending indices, and of costs that are surely equal (of copies of a point, of points at
    infinity, of sums that are exact) the lowest indices are taken.

    What rounding allows: the c-th value is a cost as summed of its pair. It is not below the c-th least of all costs
    less their errors, and not above the largest of the c least costs with theirs, as none of these may be overlooked.
    """
    cost, slack, unclear = rounded_costs(x, y, potential, value.dtype)
    k, m = index.shape[-1], y.shape[-2]
    assert index.dtype == torch.int64, f"indices are {index.dtype}"
    lost = cost.isnan().any(-1)
    assert (index == -1)[lost & ~unclear].all(), "a row with a NaN among its costs has no index -1"
    assert value.isnan()[lost & ~unclear].all(), "a row with a NaN among its costs has a value that is a number"
    judged = ~lost & ~unclear
    cost, slack, value, index = cost[judged], slack[judged], value[judged].double(), index[judged]  # [R, M], [R, k]
    assert ((index >= 0) & (index < m)).all(), "an index is out of range"
    assert (index.sort(-1).values.diff(dim=-1) > 0).all(), "an index is there twice"
    before, after = value[:, :-1], value[:, 1:]
    in_order = (before < after) | ((before == after) & (index.diff(dim=-1) > 0))
    assert in_order.all(), "values do not ascend, or indices of equal values do not"
    taken = torch.zeros_like(cost, dtype=torch.bool).scatter(-1, index, True)
    chosen, allowed = cost.gather(-1, index), slack.gather(-1, index)
    # the same number for costs that are equal whatever the rounding
    same = (cost[:, None, :] == chosen[..., None]) & (slack[:, None, :] == 0) & (allowed[..., None] == 0)  # [R, k, M]
    same |= (
        _copies(y, potential).expand(*unclear.shape, m, m)[judged].gather(1, index[..., None].expand(*index.shape, m))
    )
    earlier = torch.arange(m, device=index.device) < index[..., None]
    assert not (same & earlier & ~taken[:, None, :]).any(), "of equal costs the lowest index was not taken"
    least, order = cost.sort(dim=-1)
    upper = (least + slack.gather(-1, order)).cummax(-1).values[:, :k]
    lower, least = (cost - slack).sort(dim=-1).values[:, :k], least[:, :k]
    return max(
        in_units(_apart(value, chosen), allowed),
        in_units((value - least).clamp_min(0).nan_to_num(), _apart(upper, least)),
        in_units((least - value).clamp_min(0).nan_to_num(), _apart(least, lower)),
    )


def _copies(y: Tensor, potential: Tensor | None) -> Tensor:
    """[..., 1, M, M]: whether two points are equal, and their potentials."""
    equal = (y[..., :, None, :] == y[..., None, :, :]).all(-1)
    if potential is not None:
        equal &= potential[..., :, None] == potential[..., None, :]
    return equal[..., None, :, :]


def gradients_error(
    grads: Sequence[Tensor | None],
    weight: Tensor,
    index: Tensor,
    x: Tensor,
    y: Tensor,
    potential: Tensor | None = None,
) -> float:
    """The gradients of sum(weight * value) to x, y and potential under a given index [..., N, k], in units of rounding.

    A pair's 2 w (x - y) errs by 3 u, and a sum of at most N k of them by N k u of their sizes; a half precision rounds
    what comes of it once more. A lost row (index -1) makes its gradient to x NaN and leaves the others alone.
    """
    (n, k), d = index.shape[-2:], x.shape[-1]
    wide, points, weight = x.double()[..., :, None, :], y.double(), weight.double()[..., None]  # [..., N, k, 1]
    lost = index < 0
    at = index.clamp_min(0).flatten(-2)[..., None]  # [..., N k, 1]
    pairs = points.gather(-2, at.expand(*at.shape[:-1], d)).unflatten(-2, (n, k))
    moved = torch.where(lost[..., None], 0, 2 * weight * (wide - pairs))  # [..., N, k, D]
    weight = torch.where(lost[..., None], 0, weight)

    def onto(terms: Tensor) -> Tensor:  # [..., N, k, E] -> [..., M, E]
        terms = terms.flatten(-3, -2)
        return terms.new_zeros(*y.shape[:-1], terms.shape[-1]).scatter_add(-2, at.expand_as(terms), terms)

    wanted = [torch.where(lost.any(-1)[..., None], torch.nan, moved.sum(-2)), -onto(moved), -onto(weight)[..., 0]]
    sizes = [moved.abs().sum(-2), onto(moved.abs()), onto(weight.abs())[..., 0]]
    compute = torch.finfo(torch.float64 if x.dtype == torch.float64 else torch.float32)
    stored = torch.finfo(x.dtype)
    error = 0.0
    for grad, want, size in zip(grads, wanted, sizes, strict=True):
        if grad is None:
            continue
        assert torch.equal(grad.isnan(), want.isnan()), "gradients are NaN elsewhere than at lost rows"
        allowed = (n * k + 4) * (compute.eps / 2 + 2.0**-53) * size + compute.smallest_normal * compute.eps * (
            n * k + 4
        )
        if stored.eps > compute.eps:
            allowed = allowed + stored.eps / 2 * size + stored.smallest_normal * stored.eps
            allowed = allowed.masked_fill(size > stored.max, torch.inf)  # a half precision may overflow
        error = max(error, in_units((grad.double() - want).abs().nan_to_num(), allowed))
    return error
