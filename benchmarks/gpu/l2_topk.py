"""l2_topk on a GPU: Triton against what people use there for the k nearest points."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

import otkernels

from .. import clouds
from .. import l2_argmin as nearest
from ..contestants import OURS, Case, Contestant, Inputs, Run, Verdict

K = 16
BLOCK_BYTES = 256 << 20  # of the block matrix in the addmm contestant
SQUARES = (65536, 4096, 1024, 16384)  # by worth
DIMENSIONS = (128, 16, 256)


def ours(case: Case) -> Run:
    return lambda x, y: otkernels.l2_topk(x, y, K, impl="triton").index


def cdist(case: Case) -> Run:
    return lambda x, y: torch.cdist(x, y).topk(K, largest=False).indices


def blocked_addmm(case: Case) -> Run:
    rows = max(1, BLOCK_BYTES // (4 * case.m))

    def run(x: Tensor, y: Tensor) -> Tensor:
        norms = y.square().sum(1)  # [M]
        blocks = (torch.addmm(norms, block, y.T, alpha=-2) for block in x.split(rows))  # [rows, M]
        return torch.cat([block.topk(K, largest=False).indices for block in blocks])

    return run


def keops(case: Case) -> Run:
    from pykeops.torch import LazyTensor

    def run(x: Tensor, y: Tensor) -> Tensor:
        return (LazyTensor(x[:, None]) - LazyTensor(y[None])).square().sum(-1).argKmin(K, dim=1)

    return run


def cuvs(case: Case) -> Run:
    from cuvs.neighbors import brute_force

    def run(x: Tensor, y: Tensor) -> Tensor:
        found = brute_force.search(brute_force.build(y, metric="sqeuclidean"), x, K)[1]
        return torch.as_tensor(found, device=x.device)

    return run


def expect(inputs: Inputs, case: Case) -> Inputs:
    """The k least |x_i - y_j|^2 in float64 [N, k], in order."""
    x, y = (tensor.double() for tensor in inputs)
    norms, rows = y.square().sum(1), max(1, nearest.JUDGE_BYTES // (8 * case.m))
    blocks = (torch.addmm(norms, block, y.T, alpha=-2) for block in x.split(rows))
    index = torch.cat([block.topk(K, largest=False).indices for block in blocks])
    return (costs(x, y, index),)


def costs(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """|x_i - y_j|^2 at each j of row i of index [N, k], sorted."""
    return torch.stack([nearest.cost(x, y, chosen) for chosen in index.unbind(1)], 1).sort(dim=1).values


def judge(contestant: Contestant, case: Case, inputs: Inputs, result: Any, expected: Inputs) -> Verdict:
    """The chosen pairs' float64 costs in order against the k least: largest excess, relative to the least.

    The c-th least of the chosen may exceed the c-th least of all by what l2_argmin's judge allows at that cost.
    """
    index = torch.as_tensor(result).long()
    if index.shape != (case.n, K) or index.min() < 0 or index.max() >= case.m:
        return Verdict(False, float("inf"))
    if (index.sort(dim=1).values.diff(dim=1) == 0).any():
        return Verdict(False, float("inf"))
    x, y = (tensor.double() for tensor in inputs)
    least = expected[0]
    excess = costs(x, y, index) - least
    if contestant.exact:
        allowed = 2 * (case.d + 2) * nearest.UNIT * least
    else:
        unit = (case.d + 4) * nearest.UNIT + nearest.OPERAND[contestant.arithmetic]
        allowed = 4 * unit * (x.square().sum(1, keepdim=True) + y.square().sum(1).max())
    return Verdict(bool((excess <= allowed).all()), float((excess / least).max().clamp_min(0)))


SUITE = dataclasses.replace(
    nearest.SUITE,
    op="l2_topk",
    cases=tuple(Case("l2_topk", n, n, d) for d in DIMENSIONS for n in SQUARES),
    quick=tuple(Case("l2_topk", n, n, 128) for n in (1024, 4096)),
    contestants=(
        Contestant(f"{OURS} triton exact", ours, device="cuda", exact=True),
        Contestant("torch.cdist + topk", cdist, device="cuda"),
        Contestant("blocked addmm + topk", blocked_addmm, device="cuda"),
        Contestant("KeOps argKmin", keops, ("pykeops.torch",), "cuda", compiled=True, graph=False),
        Contestant("cuVS brute force", cuvs, ("cuvs.neighbors",), "cuda", graph=False),
    ),
    expect=expect,
    judge=judge,
    about=(
        f"`N x M x D`, float32, k = {K}; normal clouds. {clouds.ABOUT} Contestants: `otkernels.l2_topk` in Triton; "
        f"`torch.cdist(x, y).topk({K}, largest=False)`; `torch.addmm(...).topk` over blocks of rows whose matrix takes "
        f"256 MiB; KeOps' `argKmin({K})`; cuVS' `brute_force` with `k={K}`, its index built in each call. TFLOP/s "
        "counts 2 N M D. Excess cost: the largest (cost - least) / least of a row's k costs, in order, in float64. "
        "`exact` is timed only if it is within 2 (D + 2) 2^-24; the others only if the excess is within "
        "4 (D + 4) 2^-24 (|x|^2 + max |y|^2), which their |x|^2 + |y|^2 - 2xy allows."
    ),
)
