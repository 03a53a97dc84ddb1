"""l2_argmin against torch.cdist + argmin, blocked addmm + min, faiss and scikit-learn: by size, and by kind of data."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch
from torch import Tensor

import otkernels

from . import clouds
from .contestants import OURS, Case, Contestant, Inputs, Run, Suite, Verdict

UNIT = 2.0**-24  # float32's unit roundoff
OPERAND = {"float32": 0.0, "tf32": 2.0**-10, "bf16": 2.0**-8}  # relative error of an operand, rounded or cut off
BLOCK_BYTES = 16 << 20  # of the block matrix in the addmm contestant
JUDGE_BYTES = 64 << 20  # of a block that the judge computes in float64
SIZES = ((64, 64), (1024, 1024), (4096, 4096), (65536, 4096))
DIMENSIONS = (2, 16, 128)
QUICK = ((64, 64, 128), (1024, 1024, 16), (4096, 4096, 128))
DATA_SIZE, DATA_DIMENSIONS = (4096, 4096), (32, 128, 512, 1024)
SLOW = ("scikit-learn", "reference")  # left out where the data vary: several times the time of the others
REFERENCE_LIMIT = 1024 * 1024 * 16  # N M D beyond which the definition takes seconds a call


def ours(case: Case) -> Run:
    return lambda x, y: otkernels.l2_argmin(x, y).index


def definition(case: Case) -> Run:
    return lambda x, y: otkernels.l2_argmin(x, y, impl="reference").index


def cdist(case: Case) -> Run:
    return lambda x, y: torch.cdist(x, y).argmin(1)


def blocked_addmm(case: Case) -> Run:
    rows = max(1, BLOCK_BYTES // (4 * case.m))

    def run(x: Tensor, y: Tensor) -> Tensor:
        value, index = x.new_empty(len(x)), torch.empty(len(x), dtype=torch.int64)
        norms = y.square().sum(1)  # [M]
        for start in range(0, len(x), rows):
            block = x[start : start + rows]
            least, nearest = torch.addmm(norms, block, y.T, alpha=-2).min(1)  # of [rows, M]
            value[start : start + rows] = least + block.square().sum(1)
            index[start : start + rows] = nearest
        return index

    return run


def faiss_knn(case: Case) -> Run:
    import faiss

    return lambda x, y: faiss.knn(x, y, 1)[1][:, 0]


def sklearn_argmin(case: Case) -> Run:
    from sklearn.metrics import pairwise_distances_argmin

    return pairwise_distances_argmin


def draw(case: Case, number: int, device: str = "cpu") -> Inputs:
    """x [N, D] and y [M, D]."""
    generator = torch.Generator(device).manual_seed(number)
    pair = clouds.draw(case.data or "gaussian", case.n, case.m, case.d, generator)
    return tuple(tensor.to(case.torch_dtype()) for tensor in pair)


def expect(inputs: Inputs, case: Case) -> Inputs:
    """min_j |x_i - y_j|^2 in float64 [N]. The product form keeps 2^-53 of the norms: enough to judge float32."""
    x, y = (tensor.double() for tensor in inputs)
    norms, rows = y.square().sum(1), max(1, JUDGE_BYTES // (8 * case.m))
    nearest = torch.cat([torch.addmm(norms, block, y.T, alpha=-2).argmin(1) for block in x.split(rows)])
    return (cost(x, y, nearest),)


def cost(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """|x_i - y_j|^2 at j = index_i [N], rows at a time."""
    rows = max(1, JUDGE_BYTES // (8 * x.shape[1]))
    blocks = zip(x.split(rows), index.split(rows), strict=True)
    return torch.cat([(block - y[nearest]).square().sum(1) for block, nearest in blocks])


def judge(contestant: Contestant, case: Case, inputs: Inputs, result: Any, expected: Inputs) -> Verdict:
    """The chosen pair's float64 cost against the minimum: largest excess, relative to the minimum.

    An exact contestant may lose what two sums of D float32 squares lose, 2 (D + 2) 2^-24 of the minimum. The others
    compute |x|^2 + |y|^2 - 2xy: two such results may each be off by 2 (D + 4) 2^-24 (|x|^2 + |y|^2), however small the
    minimum is; where operands are rounded by r, each 2xy by another 2 r (|x|^2 + |y|^2).
    """
    index = torch.as_tensor(result)
    if index.shape != (case.n,) or index.min() < 0 or index.max() >= case.m:
        return Verdict(False, float("inf"))
    x, y = (tensor.double() for tensor in inputs)
    minimum = expected[0]
    excess = cost(x, y, index.long()) - minimum
    if contestant.exact:
        allowed = 2 * (case.d + 2) * UNIT * minimum
    else:
        unit = (case.d + 4) * UNIT + OPERAND[contestant.arithmetic]
        allowed = 4 * unit * (x.square().sum(1) + y.square().sum(1).max())
    return Verdict(bool((excess <= allowed).all()), float((excess / minimum).max().clamp_min(0)))


def as_numpy(inputs: Inputs) -> tuple[Any, ...]:
    return tuple(tensor.numpy() for tensor in inputs)


METHOD = (
    "float32. GFLOP/s counts 2 N M D. The FMA peak is float32 multiply-adds in registers, measured just before and "
    "after each case; candidates found in bfloat16 (then re-summed in float32) and pairs that need no product can "
    "exceed it. Excess cost: the largest (cost of the chosen pair - minimum) / minimum, in float64. otkernels and "
    "reference are timed only if it is within 2 (D + 2) 2^-24; the others only if the excess is within "
    "4 (D + 4) 2^-24 (|x|^2 + max |y|^2), which their |x|^2 + |y|^2 - 2xy allows. Contestants: `otkernels.l2_argmin` "
    "(float32-exact values and indices); `torch.cdist(x, y).argmin(1)`; `torch.addmm(...).min(1)` over blocks of rows "
    "whose matrix takes 16 MiB; `faiss.knn(x, y, 1)`;"
)

SUITE = Suite(
    op="l2_argmin",
    cases=tuple(Case("l2_argmin", n, m, d) for (n, m), d in itertools.product(SIZES, DIMENSIONS)),
    quick=tuple(Case("l2_argmin", *sizes) for sizes in QUICK),
    contestants=(
        Contestant(OURS, ours, exact=True),
        Contestant("torch.cdist + argmin", cdist),
        Contestant("blocked addmm + min", blocked_addmm),
        Contestant("faiss.knn", faiss_knn, ("faiss",), convert=as_numpy),
        Contestant("scikit-learn", sklearn_argmin, ("sklearn.metrics",), convert=as_numpy),
        Contestant("reference", definition, exact=True, suits=lambda case: case.n * case.m * case.d <= REFERENCE_LIMIT),
    ),
    draw=draw,
    expect=expect,
    judge=judge,
    flops=lambda case: 2.0 * case.n * case.m * case.d,
    error_name="excess cost",
    about=(
        f"Normal clouds, `N x M x D`. {METHOD} `sklearn.metrics.pairwise_distances_argmin`; `reference`, the "
        "definition in plain PyTorch, on small sizes only."
    ),
)

DATA_SUITE = dataclasses.replace(
    SUITE,
    op="l2_argmin_data",
    cases=tuple(Case("l2_argmin_data", *DATA_SIZE, d, data=data) for data in clouds.CLOUDS for d in DATA_DIMENSIONS),
    quick=tuple(Case("l2_argmin_data", 2048, 2048, 128, data=data) for data in clouds.CLOUDS),
    contestants=tuple(contestant for contestant in SUITE.contestants if contestant.name not in SLOW),
    about=f"`N x M x D`, x and y of one law. {clouds.ABOUT} {METHOD[:-1]}.",
)
