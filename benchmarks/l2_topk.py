"""l2_topk against torch.cdist + topk, blocked addmm + topk, faiss and scikit-learn: by size, and by kind of data."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch
from torch import Tensor

import otkernels

from . import clouds
from .contestants import OURS, Case, Contestant, Inputs, Run, Suite, Verdict
from .l2_argmin import (
    BLOCK_BYTES,
    DATA_DIMENSIONS,
    DATA_SIZE,
    DIMENSIONS,
    JUDGE_BYTES,
    QUICK,
    SIZES,
    UNIT,
    as_numpy,
    draw,
)

NEIGHBOURS = 16


def ours(case: Case) -> Run:
    return lambda x, y: otkernels.l2_topk(x, y, NEIGHBOURS).index


def cdist(case: Case) -> Run:
    return lambda x, y: torch.cdist(x, y).topk(NEIGHBOURS, largest=False).indices


def blocked_addmm(case: Case) -> Run:
    rows = max(1, BLOCK_BYTES // (4 * case.m))

    def run(x: Tensor, y: Tensor) -> Tensor:
        value, index = x.new_empty(len(x), NEIGHBOURS), torch.empty(len(x), NEIGHBOURS, dtype=torch.int64)
        norms = y.square().sum(1)  # [M]
        for start in range(0, len(x), rows):
            block = x[start : start + rows]
            least, nearest = torch.addmm(norms, block, y.T, alpha=-2).topk(NEIGHBOURS, largest=False)  # of [rows, M]
            value[start : start + rows] = least + block.square().sum(1, keepdim=True)
            index[start : start + rows] = nearest
        return index

    return run


def faiss_knn(case: Case) -> Run:
    import faiss

    return lambda x, y: faiss.knn(x, y, NEIGHBOURS)[1]


def sklearn_neighbours(case: Case) -> Run:
    from sklearn.neighbors import NearestNeighbors

    def run(x: Any, y: Any) -> Any:
        brute = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(y)
        return brute.kneighbors(x, return_distance=False)

    return run


def expect(inputs: Inputs, case: Case) -> Inputs:
    """The k least |x_i - y_j|^2 of each row in float64 [N, k]; the product form keeps 2^-53 of the norms."""
    x, y = (tensor.double() for tensor in inputs)
    norms, rows = y.square().sum(1), max(1, JUDGE_BYTES // (8 * case.m))
    blocks = x.split(rows)
    least = [torch.addmm(norms, block, y.T, alpha=-2).topk(NEIGHBOURS, largest=False).indices for block in blocks]
    return (costs(x, y, torch.cat(least)),)


def costs(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """|x_i - y_j|^2 at j = index_ic in ascending order [N, k], rows at a time."""
    rows = max(1, JUDGE_BYTES // (8 * x.shape[1] * NEIGHBOURS))
    blocks = zip(x.split(rows), index.split(rows), strict=True)
    return torch.cat([(block[:, None] - y[chosen]).square().sum(2).sort(dim=1).values for block, chosen in blocks])


def judge(contestant: Contestant, case: Case, inputs: Inputs, result: Any, expected: Inputs) -> Verdict:
    """Each c-th chosen cost in float64 against the c-th least: largest excess, relative to it, by l2_argmin's rule."""
    index = torch.as_tensor(result).long()
    distinct = index.shape == (case.n, NEIGHBOURS) and bool((index.sort(dim=1).values.diff(dim=1) > 0).all())
    if not distinct or index.min() < 0 or index.max() >= case.m:
        return Verdict(False, float("inf"))
    x, y = (tensor.double() for tensor in inputs)
    least = expected[0]
    excess = costs(x, y, index) - least
    if contestant.exact:
        allowed = 2 * (case.d + 2) * UNIT * least
    else:
        allowed = 4 * (case.d + 4) * UNIT * (x.square().sum(1, keepdim=True) + y.square().sum(1).max())
    return Verdict(bool((excess <= allowed).all()), float((excess / least).max().clamp_min(0)))


METHOD = (
    f"float32, k = {NEIGHBOURS}. GFLOP/s counts 2 N M D. Excess cost: the largest (c-th cost of the chosen - c-th "
    "least cost) / c-th least cost, in float64. otkernels is timed only if it is within 2 (D + 2) 2^-24; the others "
    "only if the excess is within 4 (D + 4) 2^-24 (|x|^2 + max |y|^2), which their |x|^2 + |y|^2 - 2xy allows. "
    "Contestants: `otkernels.l2_topk` (float32-exact values and indices, sorted); `torch.cdist(x, y).topk(k)`; "
    "`torch.addmm(...).topk(k)` over blocks of rows whose matrix takes 16 MiB; `faiss.knn(x, y, k)`"
)

SUITE = Suite(
    op="l2_topk",
    cases=tuple(Case("l2_topk", n, m, d) for (n, m), d in itertools.product(SIZES, DIMENSIONS)),
    quick=tuple(Case("l2_topk", *sizes) for sizes in QUICK),
    contestants=(
        Contestant(OURS, ours, exact=True),
        Contestant("torch.cdist + topk", cdist),
        Contestant("blocked addmm + topk", blocked_addmm),
        Contestant("faiss.knn", faiss_knn, ("faiss",), convert=as_numpy),
        Contestant("scikit-learn", sklearn_neighbours, ("sklearn.neighbors",), convert=as_numpy),
    ),
    draw=draw,
    expect=expect,
    judge=judge,
    flops=lambda case: 2.0 * case.n * case.m * case.d,
    error_name="excess cost",
    about=f'Normal clouds, `N x M x D`. {METHOD}; `sklearn.neighbors.NearestNeighbors(algorithm="brute")`.',
)

DATA_SUITE = dataclasses.replace(
    SUITE,
    op="l2_topk_data",
    cases=tuple(Case("l2_topk_data", *DATA_SIZE, d, data=data) for data in clouds.CLOUDS for d in DATA_DIMENSIONS),
    quick=tuple(Case("l2_topk_data", 2048, 2048, 128, data=data) for data in clouds.CLOUDS),
    contestants=SUITE.contestants[:-1],
    about=f"`N x M x D`, x and y of one law. {clouds.ABOUT} {METHOD}.",
)
