"""What a one-to-one matching of least cost must satisfy, in float64."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from otkernels import Assignment, verify
from tests.otkernels.nearest import costs, in_units

UNIT = torch.finfo(torch.float64).eps / 2


def slack_of(x: Tensor, y: Tensor, potential: Tensor | None, result: Assignment) -> Tensor:
    """How far rounding may take c_ij - u_i - v_j from what it should be, [..., N, M].

    A cost is summed from differences twice, here and there, each time with an error of (d + 3) units of its terms
    (Higham 2002, eq. 3.4). Searches compare distances within 4 (d + 16) eps of the largest numbers that they add, the
    rounding of csrc/assign/paths.h, which is also what verify allows.
    """
    d = x.shape[-1]
    terms = costs(x, y) if potential is None else costs(x, y) + potential.double().abs()[..., None, :]
    largest = matched(terms, result.index).amax(-1) + result.u.abs().amax(-1) + result.v.abs().amax(-1)
    return 2 * (d + 3) * UNIT * terms + 8 * (d + 16) * UNIT * largest[..., None, None]


def matched(entries: Tensor, index: Tensor) -> Tensor:
    """entries [..., N, M] at the pairs (i, index_i): [..., N]."""
    return entries.gather(-1, index[..., None])[..., 0]


def optimal_error(result: Assignment, x: Tensor, y: Tensor, potential: Tensor | None = None) -> float:
    """An injective index, potentials that are feasible and tight, and a certificate that says what they prove.

    Returns the worst error in units of what rounding allows; AssertionError for what no rounding excuses.
    """
    index, u, v = result.index, result.u, result.v
    (n, m), cost = (x.shape[-2], y.shape[-2]), costs(x, y, potential)
    assert (index.dtype, u.dtype, v.dtype) == (torch.int64, torch.float64, torch.float64)
    assert (index.shape, u.shape, v.shape) == (x.shape[:-1], x.shape[:-1], y.shape[:-1])
    assert ((index >= 0) & (index < m)).all(), "an index is out of range"
    assert (index.sort(-1).values.diff(dim=-1) > 0).all(), "a column is taken twice"
    slack = slack_of(x, y, potential, result)
    reduced = cost - u[..., None] - v[..., None, :]
    at_pairs = matched(slack, index)
    errors = [in_units((-reduced).clamp_min(0), slack), in_units(matched(reduced, index).abs(), at_pairs)]
    if n == m:
        # before they were moved by their mean, potentials were as large as costs and their terms: m roundings of those
        terms = cost if potential is None else cost.abs() + 2 * potential.double().abs()[..., None, :]
        if m:
            errors.append(in_units(v.mean(-1).abs(), 2 * m * UNIT * terms.amax((-1, -2))))
    else:
        assert (v <= 0).all(), "a column's potential is positive"
        unmatched = torch.ones_like(v).scatter(-1, index, 0)
        assert (v * unmatched == 0).all(), "an unmatched column has a potential"
    assert_certificate(result, matched(cost, index), at_pairs)
    assert verify(x, y, result, potential).valid.all(), "verify does not accept it"
    return max(errors)


def assert_optimal(result: Assignment, x: Tensor, y: Tensor, potential: Tensor | None = None) -> None:
    assert optimal_error(result, x, y, potential) <= 1


def assert_certificate(result: Assignment, chosen: Tensor, at_pairs: Tensor) -> None:
    """primal, dual and gap are the sums they are said to be; chosen [..., N] are the matched costs."""
    _, u, v, primal, dual, gap = result
    assert primal.dtype == dual.dtype == gap.dtype == torch.float64
    terms = chosen.abs().sum(-1) + u.abs().sum(-1) + v.abs().sum(-1)
    rounding = (u.shape[-1] + v.shape[-1]) * UNIT * terms  # a sum of k numbers errs by k units of their sizes
    assert ((primal - chosen.sum(-1)).abs() <= rounding + at_pairs.sum(-1)).all()
    assert ((dual - (u.sum(-1) + v.sum(-1))).abs() <= rounding).all()
    assert torch.equal(gap, primal.detach() - dual)
    assert (gap.abs() <= rounding + 2 * at_pairs.sum(-1)).all()


def assert_agrees_with_scipy(result: Assignment, x: Tensor, y: Tensor, potential: Tensor | None = None) -> None:
    """The costs of both matchings differ by what potentials that are feasible within the slack leave open: its sum over
    the pairs of both, and over scipy's pairs once more for scipy's own potentials.
    """
    shape = (-1, x.shape[-2], y.shape[-2])
    cost, slack = costs(x, y, potential).view(shape), slack_of(x, y, potential, result).view(shape)
    for c, s, index in zip(cost, slack, result.index.view(shape[:2]), strict=True):
        theirs = torch.from_numpy(linear_sum_assignment(c.cpu().numpy())[1]).to(index.device)
        open_ = matched(s, index).sum() + 2 * matched(s, theirs).sum()
        rounding = 2 * len(index) * UNIT * matched(c, index).abs().sum()
        assert (matched(c, index).sum() - matched(c, theirs).sum()).abs() <= open_ + rounding
