"""Ops on points that the processes of a torch.distributed group hold in parts, of which no process sees all.

from otkernels.distributed import l2_argmin

dist.init_process_group("nccl")
value, index = l2_argmin(own_queries, own_points)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _checks, _dispatch, _pairs
from ._checks import widen, widened
from ._processes import Ring
from .l2_argmin import L2Argmin
from .l2_argmin import l2_argmin as _of_one_process
from .l2_argmin.native import PRECISIONS

NAME = "distributed.l2_argmin"


def l2_argmin(
    x: Tensor,
    y: Tensor,
    potential: Tensor | None = None,
    *,
    group: dist.ProcessGroup | None = None,
    precision: str = "exact",
    impl: str = "auto",
) -> L2Argmin:
    """Nearest assignment among the points of all processes: `otkernels.l2_argmin`, but for who holds what.

        value_i = min_j |x_i - y_j|^2 - potential_j     over the points y of every process, in order of rank
        index_i = the lowest j that attains it

    Every process of the group calls it with its own rows of x, and gets the answer for these alone: values, indices and
    the choice among ties are those of one process that holds all. The shards of y go round a ring, each process sending
    one on while it works on another, so that a process holds no more than its own points and two shards: memory
    O(N + the largest M). A shard passes through every process once: world size - 1 messages of M (D + 1) numbers each.

    Args:
        x: [N, D] this process's queries, of which each process may have another number, or none.
        y: [M, D] this process's points, likewise, as long as some process has one; x's dtype and device.
        potential: [M] of these points, or None in all processes.
        group: the processes, None for all. Where torch.distributed is not initialised, this process is the only one.
        precision: as for `otkernels.l2_argmin`.
        impl: likewise.

    Returns:
        value [N] and index [N] int64, which counts the points of process 0 first, then those of process 1, and so on. A
        row whose costs hold a NaN, in whichever process, gives NaN and -1.

    Gradients reach x, and y and potential in the process that holds the winner (Danskin), once; backward is a call of
    all processes, too. y and potential need gradients in all processes or in none.

    Raises:
        ValueError: in all processes, if an argument is wrong in one of them or does not fit those of the others.
        RuntimeError: the named impl cannot run here.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return _of_one_process(x, y, potential, precision=precision, impl=impl)
    x, y, potential = _checks.autocast(x, y, potential)
    ring = Ring(group)
    sizes = _agree(ring, x, y, potential, precision, impl)
    value, index = _Argmin.apply(x, y, potential, ring, sizes, precision, impl)
    return L2Argmin(value, index)


class _Argmin(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        potential: Tensor | None,
        ring: Ring,
        sizes: list[int],
        precision: str,
        impl: str,
    ) -> tuple[Tensor, Tensor]:
        begins = [sum(sizes[:rank]) for rank in range(len(sizes))]
        value = x.new_full(x.shape[:1], torch.inf, dtype=widened(x.dtype))
        index = torch.full(x.shape[:1], torch.iinfo(torch.int64).max, device=x.device)
        winners = torch.zeros_like(x) if any(ctx.needs_input_grad) else None
        broken = torch.zeros(x.shape[:1], dtype=torch.bool, device=x.device)
        own = _pack(y, potential)
        lengths = [size * (y.shape[1] + (potential is not None)) * y.element_size() for size in sizes]
        for rank, packed in ring.round(own, lengths):
            if sizes[rank] == 0:
                continue
            points, offsets = _unpack(packed, y, potential)
            found = _of_one_process(x, points, offsets, precision=precision, impl=impl)
            broken |= found.index < 0
            place = found.index + begins[rank]
            better = (found.value < value) | ((found.value == value) & (place < index))
            value, index = torch.where(better, found.value, value), torch.where(better, place, index)
            if winners is not None:
                winners = torch.where(better[:, None], points[found.index.clamp_min(0)], winners)
        value, index = value.masked_fill(broken, torch.nan), index.masked_fill(broken, -1)
        ctx.save_for_backward(x, index, winners)
        ctx.mark_non_differentiable(index)
        ctx.ring, ctx.begins, ctx.sizes = ring, begins, sizes
        ctx.dtypes = y.dtype, None if potential is None else potential.dtype
        return value, index

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, index, winners = ctx.saved_tensors
        needs_x, needs_y, needs_potential = ctx.needs_input_grad[:3]
        seen = index >= 0
        moved = 2 * grad[:, None] * (widen(x) - widen(winners))  # [N, D]
        grad_x = torch.where(seen[:, None], moved, torch.nan).to(x.dtype) if needs_x else None
        if not (needs_y or needs_potential):
            return grad_x, *[None] * 6
        row = torch.cat([-moved, -grad[:, None]], 1)  # what each pair sends to its point, and to the potential

        def add(rank: int, sums: Tensor) -> None:
            here = seen & (index >= ctx.begins[rank]) & (index < ctx.begins[rank] + ctx.sizes[rank])
            sums.index_add_(0, index[here] - ctx.begins[rank], row[here])

        sums = ctx.ring.collect(add, [(size, row.shape[1]) for size in ctx.sizes], row)
        grad_y = sums[:, :-1].to(ctx.dtypes[0]) if needs_y else None
        grad_potential = sums[:, -1].to(ctx.dtypes[1]) if needs_potential else None
        return grad_x, grad_y, grad_potential, *[None] * 4


def _agree(ring: Ring, x: Tensor, y: Tensor, potential: Tensor | None, precision: str, impl: str) -> list[int]:
    """How many points each process has; ValueError in all if the arguments of one are wrong or unlike the others'."""
    wrong: Exception | None = None
    try:
        _check(x, y, potential, precision, impl)
        _dispatch.choose("l2_argmin", impl, x)
        needs = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in (y, potential)]
        facts = [x.shape[1], _checks.FLOATS.index(x.dtype), potential is not None, *needs, len(y)]
    except (ValueError, RuntimeError) as error:
        wrong, facts = error, [-1] * 6
    everyone = ring.gather(facts, x.device if isinstance(x, Tensor) else torch.device("cpu"))
    if wrong is not None:
        raise wrong
    for rank, theirs in enumerate(everyone):
        if theirs[0] < 0:
            raise ValueError(f"{NAME}: the arguments of process {rank} are wrong; its own message says how")
    told = ("x's D", "x's dtype", "whether there is a potential", "whether y needs a gradient")
    for name, *values in zip((*told, "whether potential needs a gradient"), *everyone, strict=False):
        if len(set(values)) > 1:
            shown = [_checks.FLOATS[number] for number in values] if name == "x's dtype" else values
            if name.startswith("whether"):
                shown = ["yes" if number else "no" for number in values]
            raise ValueError(f"{NAME}: {name} must be the same in all processes, got {', '.join(map(str, shown))}")
    sizes = [theirs[-1] for theirs in everyone]
    if not any(sizes):
        raise ValueError(f"{NAME}: y must hold at least one point in some process, got none in all")
    return sizes


def _check(x: Tensor, y: Tensor, potential: Tensor | None, precision: str, impl: str) -> None:
    points = {"x": x, "y": y} if potential is None else {"x": x, "y": y, "potential": potential}
    _checks.alike(NAME, **points)
    if x.dim() != 2 or x.shape[1] < 1:
        raise ValueError(f"{NAME}: x must be [N, D] with D >= 1, got {_checks.shape(x)}")
    if len(y):
        _pairs.check(NAME, x, y, potential)
    elif y.dim() != 2 or y.shape[1] != x.shape[1] or (potential is not None and potential.shape != (0,)):
        raise ValueError(f"{NAME}: without points y must be [0, {x.shape[1]}] and potential [0] or None")
    _checks.choice(NAME, "precision", precision, PRECISIONS)
    _dispatch.check("l2_argmin", impl)


def _pack(y: Tensor, potential: Tensor | None) -> Tensor:
    """A shard as bytes, which gloo and NCCL send whatever the dtype: y [M, D], and after it potential [M]."""
    parts = [y] if potential is None else [y, potential]
    return torch.cat([part.detach().contiguous().flatten().view(torch.uint8) for part in parts])


def _unpack(packed: Tensor, y: Tensor, potential: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What `_pack` made bytes of, in another process; y and potential: this one's, for their dtype and width."""
    numbers, d = packed.view(y.dtype), y.shape[1]
    m = len(numbers) // (d if potential is None else d + 1)
    return numbers[: m * d].view(m, d), None if potential is None else numbers[m * d :]
