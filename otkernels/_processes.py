"""Rows of all processes of a torch.distributed group."""

from __future__ import annotations

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
