"""What a suite is made of: cases, contestants, and a judge that decides whether a result may be timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

OURS = "otkernels"
SETS = 3  # input sets that a case on the CPU rotates among

Inputs = tuple[Tensor, ...]
Run = Callable[..., Any]  # called with the converted inputs


@dataclass(frozen=True)
class Case:
    """One row group of a table. m is 0 where an op has no second cloud."""

    op: str
    n: int
    m: int
    d: int
    mode: str = "forward"
    dtype: str = "float32"
    data: str = ""
    """The law of the points, where a suite has several: one of clouds.CLOUDS."""

    def label(self) -> str:
        size = f"{self.mode}, N = {self.n}" if self.m == 0 else f"{self.n} x {self.m} x {self.d}"
        size = size if self.dtype == "float32" else f"{size} {self.dtype}"
        return f"{size}, {self.data}" if self.data else size

    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class Verdict:
    """Whether a result is right, and its error in the suite's own measure."""

    right: bool
    error: float


@dataclass(frozen=True)
class Contestant:
    """One implementation. `load(case)` returns the function to time; `modules` are imported before it."""

    name: str
    load: Callable[[Case], Run]
    modules: tuple[str, ...] = ()
    device: str = "cpu"
    exact: bool = False
    """Held to float32-exactness where the suite knows it, not only to what its arithmetic allows."""
    arithmetic: str = "float32"
    """Of its products: float32, tf32 or bf16; what the judge allows an inexact contestant follows from it."""
    compiled: bool = False
    """Compiles at the first call of a case, which must not count as memory of the call."""
    graph: bool = True
    """On a GPU: launches on the current stream only, so that a CUDA graph can replay it."""
    convert: Callable[[Inputs], tuple[Any, ...]] = lambda inputs: inputs
    suits: Callable[[Case], bool] = lambda case: True


class Draw(Protocol):
    """The inputs number i of a case, the same in every process."""

    def __call__(self, case: Case, number: int, device: str = "cpu") -> Inputs: ...


@dataclass(frozen=True)
class Suite:
    """An op's cases and contestants, ours first; on a GPU the cases stand in order of worth."""

    op: str
    cases: tuple[Case, ...]
    quick: tuple[Case, ...]
    contestants: tuple[Contestant, ...]
    draw: Draw
    expect: Callable[[Inputs, Case], Inputs]
    """What the judge needs, computed in float64."""
    judge: Callable[[Contestant, Case, Inputs, Any, Inputs], Verdict]
    error_name: str
    about: str
    """Markdown under the table: what is timed and who is judged how."""
    flops: Callable[[Case], float] | None = None
    bytes: Callable[[Case], float] | None = None
    """The fewest bytes that the op must read and write, where that bounds it."""
    steps: int = 1
    """Inner steps of one call."""
    targets: int = 0
    """How many cases, from the first, have targets of their own."""
    packages: tuple[str, ...] = ()
    """Peers whose versions a table names, beside those that every table names."""
    rounds: Callable[[Case], int | None] = lambda case: None
    """On the CPU, where calls take seconds: rounds of turns on one input set, 0 for the judged call's own time alone;
    None for several sets and as many rounds as the time allows."""


def speed(suite: Suite, case: Case, seconds: float) -> dict[str, float]:
    """GFLOP/s, GB/s or time per inner step, whichever the suite counts."""
    figures = {}
    if suite.flops is not None:
        figures["gflops"] = 1e-9 * suite.flops(case) / seconds
    if suite.bytes is not None:
        figures["gbps"] = 1e-9 * suite.bytes(case) / seconds
    if suite.steps > 1:
        figures["seconds_per_step"] = seconds / suite.steps
    return figures
