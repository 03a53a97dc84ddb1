"""Processes that train one game together, as torchrun starts them: each plays on its rows of every batch.

Losses are means over a batch. So the gradient of the loss of the whole batch is the mean over processes of the gradient
of their rows' losses, and parameters that are equal at the start stay equal. What is random is drawn for the whole
batch in every process, from equal streams, and each takes its rows: but for rounding, a run does not depend on how many
processes play it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """Process ``rank`` of ``size``, all those of torch.distributed; one alone talks to nobody."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, n: int) -> tuple[int, int]:
        """The first of n tasks that this process does, and their end: as many in each, some beyond n in the last."""
        own = -(-n // self.size)
        return self.rank * own, (self.rank + 1) * own

    def rows(self, n: int) -> slice:
        """Those of a batch of n that this process has, where n is a multiple of the number of processes."""
        own = n // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def normal_like(self, rows: Tensor) -> Tensor:
        """N(0, 1) shaped like rows [n, ...], as this process's share of a draw for all."""
        if self.size == 1:
            return torch.randn_like(rows)
        return self._own(torch.randn(self._whole(rows.shape), dtype=rows.dtype, device=rows.device))

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of ``shape`` [n, ...], as this process's share of a draw for all; like ``like``."""
        return self._own(torch.rand(*self._whole(shape), dtype=like.dtype, device=like.device))

    def gather(self, rows: Tensor) -> Tensor:
        """rows [n, ...] of every process, in order of rank: [size * n, ...].

        For a loss that every process computes alike from all rows, as a term of a loss that is otherwise of its own
        rows: the gradient that reaches a process's rows is ``size`` times that of this term, which the mean over
        processes divides by again.
        """
        return rows if self.size == 1 else _Gather.apply(rows, self)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of ``value`` over all processes, differentiable as often as one likes."""
        return value if self.size == 1 else _Mean.apply(value, self)

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor | None]) -> None:
        """Each of ``tensors``, floating-point, becomes its mean over all processes, in place; one message for all."""
        if self.size == 1:
            return
        present = [tensor for tensor in tensors if tensor is not None]
        if not present:
            return
        flat = torch.cat([tensor.flatten() for tensor in present])
        dist.all_reduce(flat)
        parts = flat.div_(self.size).split([tensor.numel() for tensor in present])
        torch._foreach_copy_(present, [part.view_as(tensor) for part, tensor in zip(parts, present, strict=True)])

    def _whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0] * self.size, *shape[1:])

    def _own(self, drawn: Tensor) -> Tensor:
        return drawn[self.rows(len(drawn))]


ALONE = Processes()


def here() -> Processes:
    """The processes of torch.distributed's default group, or this one alone where there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Processes(dist.get_rank(), dist.get_world_size())


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        whole = rows.new_empty(processes.size * len(rows), *rows.shape[1:])
        dist.all_gather_into_tensor(whole, rows.contiguous())
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.processes.size * grad[ctx.processes.rows(len(grad))], None


class _Mean(torch.autograd.Function):
    """Its own adjoint: what all processes' losses pull at a mean is shared out evenly among its parts."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        total = value.detach().clone()
        dist.all_reduce(total)
        return total.div_(processes.size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.processes.mean(grad), None
