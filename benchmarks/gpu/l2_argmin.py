"""l2_argmin on a GPU: CUDA and Triton in each precision against what people use there."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch
from torch import Tensor

import otkernels

from .. import clouds
from .. import l2_argmin as cpu
from ..contestants import OURS, Case, Contestant, Inputs, Run

BLOCK_BYTES = 256 << 20  # of the block matrix in the compiled addmm
SQUARES = (65536, 1024, 4096, 16384, 64, 256)  # by worth
DIMENSIONS = (128, 64, 256, 16)
DTYPES = ("float32", "bfloat16")


def ours(impl: str, precision: str) -> Any:
    """The loader of one implementation of the op."""

    def load(case: Case) -> Run:
        return lambda x, y: otkernels.l2_argmin(x, y, precision=precision, impl=impl).index

    return load


def compiled_addmm(case: Case) -> Run:
    """addmm + min compiled for one block of rows, over blocks whose matrix takes 256 MiB."""
    torch._dynamo.reset()  # one case at a time, so that no case is slowed by guards of the last
    rows = min(case.n, max(1, BLOCK_BYTES // (4 * case.m)))

    @partial(torch.compile, dynamic=False)
    def nearest(norms: Tensor, block: Tensor, y: Tensor) -> Tensor:
        return torch.addmm(norms, block, y.T, alpha=-2).min(1).indices  # of [rows, M]

    def run(x: Tensor, y: Tensor) -> Tensor:
        norms = y.square().sum(1)  # [M]
        if rows == len(x):
            return nearest(norms, x, y)
        return torch.cat([nearest(norms, block, y) for block in x.split(rows)])

    return run


def flash_kmeans(case: Case) -> Run:
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton

    return lambda x, y, x_norms: euclid_assign_triton(x, y, x_norms)[0]


def with_norms(inputs: Inputs) -> tuple[Any, ...]:
    """A batch of one, and |x|^2 [1, N], which k-means computes once and keeps."""
    x, y = inputs
    return x[None], y[None], x[None].float().square().sum(2)


def flash_sinkhorn(case: Case) -> Run:
    from flash_sinkhorn import c_transform_fwd

    return lambda x, y, potential: c_transform_fwd(x, y, potential)[1]


def with_potential(inputs: Inputs) -> tuple[Any, ...]:
    x, y = inputs
    return x, y, torch.zeros(len(y), device=y.device)


def keops(case: Case) -> Run:
    from pykeops.torch import LazyTensor

    def run(x: Tensor, y: Tensor) -> Tensor:
        return (LazyTensor(x[:, None]) - LazyTensor(y[None])).square().sum(-1).argKmin(1, dim=1)[:, 0]

    return run


def certex(case: Case) -> Run:
    from certex import search

    return lambda x, y: search(y, x, k=1)[1][:, 0]


def cuvs(case: Case) -> Run:
    from cuvs.neighbors import brute_force

    def run(x: Tensor, y: Tensor) -> Tensor:
        nearest = brute_force.search(brute_force.build(y, metric="sqeuclidean"), x, 1)[1]
        return torch.as_tensor(nearest, device=x.device)[:, 0]

    return run


def widened(inputs: Inputs) -> tuple[Any, ...]:
    """For what takes no bfloat16."""
    return tuple(tensor.float() for tensor in inputs)


def is_float(case: Case) -> bool:
    return case.dtype == "float32"


def cases() -> tuple[Case, ...]:
    """Those with targets of their own first, then by dtype and dimension; the million goes with 65536."""
    sizes = [(n, n) for n in SQUARES]
    sizes.insert(1, (1 << 20, 4096))
    head = [Case("l2_argmin", 65536, 65536, 128, dtype=dtype) for dtype in DTYPES]
    head += [Case("l2_argmin", 65536, 65536, 128, data=data) for data in clouds.CLOUDS if data != "gaussian"]
    rest = [Case("l2_argmin", n, m, d, dtype=dtype) for dtype in DTYPES for d in DIMENSIONS for n, m in sizes]
    return tuple(dict.fromkeys(head + rest))


SUITE = dataclasses.replace(
    cpu.SUITE,
    cases=cases(),
    targets=13,
    quick=tuple(Case("l2_argmin", n, n, 128) for n in (64, 1024, 4096)),
    contestants=(
        *(
            Contestant(
                f"{OURS} {impl} {precision}",
                ours(impl, precision),
                device="cuda",
                exact=precision == "exact",
                arithmetic=precision if precision != "exact" else "float32",
            )
            for impl in ("cuda", "triton")
            for precision in ("exact", "tf32", "bf16")
        ),
        Contestant("torch.cdist + argmin", cpu.cdist, device="cuda", convert=widened),
        Contestant(
            "compiled addmm + min",
            compiled_addmm,
            ("torch._inductor.compile_fx",),
            "cuda",
            compiled=True,
            suits=is_float,
        ),
        Contestant(
            "compiled addmm + min",
            compiled_addmm,
            ("torch._inductor.compile_fx",),
            "cuda",
            compiled=True,
            arithmetic="bf16",
            suits=lambda case: not is_float(case),
        ),
        Contestant(
            "flash-kmeans assign",
            flash_kmeans,
            ("flash_kmeans",),
            "cuda",
            arithmetic="tf32",
            convert=with_norms,
            suits=is_float,
        ),
        Contestant(
            "flash-kmeans assign",
            flash_kmeans,
            ("flash_kmeans",),
            "cuda",
            arithmetic="bf16",
            convert=with_norms,
            suits=lambda case: not is_float(case),
        ),
        Contestant(
            "flash-sinkhorn c-transform",
            flash_sinkhorn,
            ("flash_sinkhorn",),
            "cuda",
            arithmetic="tf32",
            compiled=True,
            convert=with_potential,
        ),
        Contestant("KeOps argKmin", keops, ("pykeops.torch",), "cuda", compiled=True, graph=False, convert=widened),
        Contestant("certex search", certex, ("certex",), "cuda", exact=True, graph=False, convert=widened),
        Contestant("cuVS brute force", cuvs, ("cuvs.neighbors",), "cuda", graph=False, convert=widened),
    ),
    about=(
        f"`N x M x D`, float32 unless the case says bfloat16; normal clouds unless it names others. {clouds.ABOUT} "
        "Contestants: `otkernels.l2_argmin` by implementation and precision; `torch.cdist(x, y).argmin(1)`; "
        "`torch.compile` of `torch.addmm(...).min(1)` over blocks of rows whose matrix takes 256 MiB; flash-kmeans' "
        "`euclid_assign_triton` with |x|^2 given, as k-means has it; flash-sinkhorn's `c_transform_fwd` with a zero "
        "potential, autotuned; KeOps' `argKmin(1)`; certex' `search(k=1)`, exact as well; cuVS' `brute_force` with "
        "`k=1`, its index built in each call. All but the compiled and the flash ones take float32 copies of bfloat16 "
        "points, made before. TFLOP/s counts 2 N M D. Excess cost: the largest "
        "(cost of the chosen pair - minimum) / minimum, in float64. `exact` is timed only if it is within "
        "2 (D + 2) 2^-24; the others only if the excess is within 4 ((D + 4) 2^-24 + r) (|x|^2 + max |y|^2), which "
        "their |x|^2 + |y|^2 - 2xy allows, r = 2^-10 for tf32 products and 2^-8 for bf16. A peer is compared with the "
        "fastest of ours that is no less accurate: exact, float32, tf32, bf16."
    ),
)
