"""soft_forest on a GPU: CUDA and Triton against the definition, eager and compiled."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import otkernels

from .. import soft_forest as cpu
from ..contestants import OURS, Case, Contestant, Run

FLOAT = 4  # bytes


def ours(impl: str) -> Any:
    """The loader of one implementation of the op."""

    def load(case: Case) -> Run:
        return cpu.timed(partial(otkernels.soft_forest, impl=impl), case)

    return load


def fewest_bytes(case: Case) -> float:
    """z read and the output written; for the gradients z and grad_out read again and grad_z written. Leaves are few."""
    tensors = 5 if case.mode == cpu.BOTH else 2
    return float(FLOAT * tensors * case.n * cpu.WIDTH)


def cases(n: int) -> tuple[Case, ...]:
    return tuple(Case("soft_forest", n, 0, cpu.WIDTH, mode) for mode in ("forward", cpu.BOTH))


SUITE = dataclasses.replace(
    cpu.SUITE,
    cases=(*cases(65536), *cases(64), *cases(4096), *cases(1024)),
    quick=cases(4096),
    contestants=(
        *(Contestant(f"{OURS} {impl}", ours(impl), device="cuda") for impl in ("cuda", "triton")),
        Contestant("eager", cpu.eager, device="cuda"),
        Contestant("torch.compile", cpu.compiled, ("torch._inductor.compile_fx",), device="cuda", compiled=True),
    ),
    targets=2,
    bytes=fewest_bytes,
    about=(
        cpu.ABOUT + " Bytes counted: z and the output once (forward); and z, grad_out and grad_z once more (backward)."
    ),
)
