"""assign against scipy, lapx and POT, which take the matrix: by size, and by kind of data."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch

import otkernels

from . import clouds
from .contestants import OURS, Case, Contestant, Inputs, Run, Suite, Verdict
from .l2_argmin import cost, draw

UNIT = 2.0**-53  # float64's unit roundoff
SIZES, DIMENSIONS = (64, 256, 1024, 4096, 16384, 65536), (2, 128)
DATA_SIZES, DATA = (1024, 4096), clouds.CLOUDS + clouds.TWO_LAWS
DENSE_LIMIT = 4096  # points of which a matrix is solved, in half a minute at most
MOST_PIVOTS = 10**9  # POT stops after 10^5 and returns what it has
ROUNDS = {4096: 3, 16384: 0, 65536: 0}  # by N, where a call takes seconds or minutes


def ours(case: Case) -> Run:
    return lambda x, y: otkernels.assign(x, y)


def scipy_assignment(case: Case) -> Run:
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    return lambda x, y: linear_sum_assignment(cdist(x, y, "sqeuclidean"))[1]


def lapx_assignment(case: Case) -> Run:
    import lap
    from scipy.spatial.distance import cdist

    return lambda x, y: lap.lapjv(cdist(x, y, "sqeuclidean"), return_cost=False)[0]


def pot_emd(case: Case) -> Run:
    import ot

    return lambda x, y: ot.emd([], [], ot.dist(x, y), numItermax=MOST_PIVOTS).argmax(1)


def dense(case: Case) -> bool:
    return case.n <= DENSE_LIMIT


def rounds(case: Case) -> int | None:
    return ROUNDS.get(case.n)


def as_float64(inputs: Inputs) -> tuple[Any, ...]:
    return tuple(tensor.double().numpy() for tensor in inputs)


def expect(inputs: Inputs, case: Case) -> Inputs:
    """The least total cost [] in float64, by scipy; NaN where its matrix is too large."""
    if not dense(case):
        return (torch.tensor(torch.nan, dtype=torch.float64),)
    x, y = (tensor.double() for tensor in inputs)
    return (cost(x, y, torch.from_numpy(scipy_assignment(case)(*as_float64(inputs)))).sum(),)


def judge(contestant: Contestant, case: Case, inputs: Inputs, result: Any, expected: Inputs) -> Verdict:
    """The pairs' total cost in float64 beyond the least, relative to it.

    An augmenting path is a sum of at most 2 N reduced costs, each off by (D + 3) 2^-53 of the largest cost, or by
    4 (D + 4) 2^-53 of the largest (|x| + |y|)^2 as |x|^2 + |y|^2 - 2xy: each row may lose as much, with the reference's
    own loss twice. Without a reference the least is what the result's own potentials prove (verify): dual, less the
    worst violation for each row, within the rounding that verify derives.
    """
    index = torch.as_tensor(result.index if isinstance(result, otkernels.Assignment) else result).long()
    if index.shape != (case.n,) or not torch.equal(index.sort().values, torch.arange(case.n)):
        return Verdict(False, float("inf"))
    x, y = (tensor.double() for tensor in inputs)
    total, least = cost(x, y, index).sum(), expected[0]
    if least.isnan():
        found = otkernels.verify(*inputs, result)
        least, allowed = found.dual - case.n * found.violation, 2 * case.n * found.rounding
    else:
        if contestant.exact:
            centre = y.mean(0)
            x, y = x - centre, y - centre
        largest = (x.norm(dim=1).max() + y.norm(dim=1).max()) ** 2
        allowed = 2 * case.n * (2 * case.n + 4 * (case.d + 4)) * UNIT * largest
    excess = total - least
    return Verdict(bool(excess <= allowed), float((excess / least).clamp_min(0)))


METHOD = (
    "N = M. Points in float32; otkernels takes them as they are, the others in float64, and their matrix is part of "
    "the time. Excess cost: (total cost of the pairs - least) / least in float64, the least by scipy, or, beyond "
    f"N = {DENSE_LIMIT}, what the potentials that `assign` returns prove (`otkernels.verify`). A result is timed only "
    "if the excess is within float64's rounding of path lengths. Cases of N = 4096 are timed on one input set and few "
    "rounds; where N is larger, one call, the one that is judged. Contestants: `otkernels.assign(x, y)`; "
    '`scipy.optimize.linear_sum_assignment(cdist(x, y, "sqeuclidean"))`; lapx, `lap.lapjv` on the same matrix; POT, '
    f"`ot.emd([], [], ot.dist(x, y))`. Those run on one thread, and up to N = {DENSE_LIMIT}"
)

SUITE = Suite(
    op="assign",
    cases=tuple(Case("assign", n, n, d) for n, d in itertools.product(SIZES, DIMENSIONS)),
    quick=tuple(Case("assign", n, n, d) for n, d in itertools.product((64, 1024), DIMENSIONS)),
    contestants=(
        Contestant(OURS, ours, exact=True),
        Contestant("scipy", scipy_assignment, ("scipy.optimize",), exact=True, convert=as_float64, suits=dense),
        Contestant("lapx", lapx_assignment, ("lap", "scipy.spatial"), exact=True, convert=as_float64, suits=dense),
        Contestant("POT", pot_emd, ("ot",), convert=as_float64, suits=dense),
    ),
    draw=draw,
    expect=expect,
    judge=judge,
    error_name="excess cost",
    about=f"Normal clouds, `N x M x D`. {METHOD}.",
    packages=("scipy", "lapx", "POT"),
    rounds=rounds,
)

DATA_SUITE = dataclasses.replace(
    SUITE,
    op="assign_data",
    cases=tuple(Case("assign_data", n, n, d, data=data) for n in DATA_SIZES for data in DATA for d in DIMENSIONS),
    quick=tuple(Case("assign_data", 512, 512, d, data=data) for data in DATA for d in DIMENSIONS),
    contestants=tuple(c for c in SUITE.contestants if c.name != "lapx"),  # several times the time of the others
    about=(
        f"`N x M x D`, x and y of one law, but for the last two. {clouds.ABOUT} {clouds.ABOUT_TWO_LAWS} {METHOD}; lapx "
        "is left out."
    ),
    rounds=lambda case: 1 if case.n > min(DATA_SIZES) else None,
)
