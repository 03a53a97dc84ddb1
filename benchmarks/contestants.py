"""What a suite is made of: cases, contestants, and a judge that decides whether a result may be timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

OURS = "otkernels"
SETS = 3  # input sets that a case rotates among

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

    def label(self) -> str:
        return f"{self.mode}, N = {self.n}" if self.m == 0 else f"{self.n} x {self.m} x {self.d}"


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
    compiled: bool = False
    """Compiles at the first call of a case, which must not count as memory of the call."""
    convert: Callable[[Tensor], Any] = lambda tensor: tensor
    suits: Callable[[Case], bool] = lambda case: True


@dataclass(frozen=True)
class Suite:
    """An op's cases and contestants, ours first."""

    op: str
    cases: tuple[Case, ...]
    quick: tuple[Case, ...]
    contestants: tuple[Contestant, ...]
    draw: Callable[[Case, int], Inputs]
    """The inputs number i of a case, the same in every process."""
    expect: Callable[[Inputs, Case], Inputs]
    """What the judge needs, computed in float64."""
    judge: Callable[[Contestant, Case, Inputs, Any, Inputs], Verdict]
    flops: Callable[[Case], float] | None
    error_name: str
    about: str
    """Markdown under the table: what is timed and who is judged how."""
