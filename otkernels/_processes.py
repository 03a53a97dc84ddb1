"""What the processes of a torch.distributed group tell each other: rows of all, or parts that go round a ring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, int]:
    """rows [N_p, ...] of every process, in order of rank, [sum N_p, ...], and at which row this process's begin.

    Numbers of rows may differ; the rest of the shape and the dtype must not. Any dtype; no gradient.
    """
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, count, group)
    sizes = [int(size) for size in counts]
    largest, row = max(sizes), rows.shape[1:]
    width = rows.element_size() * row.numel()  # bytes: gloo and NCCL do not know every dtype
    padded = torch.zeros(largest, width, dtype=torch.uint8, device=rows.device)
    padded[: len(rows)] = rows.detach().contiguous().flatten().view(torch.uint8).view(len(rows), width)
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group)
    whole = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])  # [sum N_p, bytes]
    return whole.flatten().view(rows.dtype).view(len(whole), *row), sum(sizes[: dist.get_rank(group)])


def broadcast(tensor: Tensor, group: dist.ProcessGroup | None) -> None:
    """Everyone's tensor becomes that of the group's first process, in place."""
    dist.broadcast(tensor, 0 if group is None else dist.get_global_rank(group, 0), group)


class Ring:
    """The processes of a group in a circle, each sending to the next: process 0 to 1, ..., the last to 0."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def gather(self, numbers: Sequence[int], device: torch.device) -> list[list[int]]:
        """As many whole numbers from each process, in order of rank. On a GPU it waits for the device."""
        own = torch.tensor(numbers, dtype=torch.int64, device=device)
        everyone = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(everyone, own, self.group)
        return [theirs.tolist() for theirs in everyone]

    def round(self, own: Tensor, lengths: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """(rank, its tensor) for each process, this one's first; they are sent on while the caller works on one.

        own: a vector. lengths: of those of all processes, in order of rank; the dtype is the same.
        """
        held = own
        for step in range(self.size):
            rank = (self.rank - step) % self.size
            coming = held.new_empty(lengths[rank - 1]) if step + 1 < self.size else None
            sent = [] if coming is None else self._shift(held, coming)
            yield rank, held
            for work in sent:
                work.wait()
            held = held if coming is None else coming

    def collect(self, add: Callable[[int, Tensor], None], shapes: Sequence[tuple[int, ...]], like: Tensor) -> Tensor:
        """The sum that belongs to this process: of each rank's, of its shape, ``add(rank, sums)`` adds in place to all.

        Each sum visits the processes in order, ends with its owner, and has the dtype and device of ``like``.
        """
        sums = like.new_zeros(shapes[self.rank - 1])
        for step in range(self.size):
            rank = (self.rank - 1 - step) % self.size
            add(rank, sums)
            if step + 1 < self.size:
                coming = like.new_empty(shapes[rank - 1])
                for work in self._shift(sums, coming):
                    work.wait()
                sums = coming
        return sums

    def _shift(self, own: Tensor, coming: Tensor) -> list[dist.Work]:
        """Send ``own`` to the next process and receive ``coming`` from the one before; an empty one is not sent."""
        following, before = (self._global((self.rank + step) % self.size) for step in (1, -1))
        operations = []
        if own.numel():
            operations.append(dist.P2POp(dist.isend, own, following, self.group))
        if coming.numel():
            operations.append(dist.P2POp(dist.irecv, coming, before, self.group))
        return dist.batch_isend_irecv(operations) if operations else []

    def _global(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)
