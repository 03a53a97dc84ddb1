"""l2_topk in Triton: the k least |x_i - y_j|^2 - potential_j of each row in ascending order, and their j.

Layout    x [B, N, D], y [B, M, D], potential [B, M], any strides. A program owns BLOCK_N rows of one batch element and
          one part of the columns, which it streams in tiles of BLOCK_M.
Memory    one float32 per column; at most k + k / 8 + 4 keys of 64 bits per row and part (one unless N is small).
Paths     D <= 8 keeps the k least directly summed costs. Beyond, pass 1 takes lower bounds of all costs from
          tensor-core products, and keeps a few more than k of the lowest. Pass 2 sums the costs of these from
          differences. A row is decided when all bounds that were not kept, which are no lower than the highest that
          was, lie above its k-th cost. Pass 3 sums all costs of the rows that are not decided, which are gathered
          first: few, but all rows where the points lie much farther from the origin than from each other (centre them
          to be fast), or where more points than are kept are copies of one. k = 1 is l2_argmin.
Numerics  Bounds are those of otkernels/_triton_distance.py. Where one is -inf or NaN it decides no row: pass 3 does.
          A row's values are all sums of differences, made alike, so ties are exact and go to the lowest index. The
          order in which a sum runs differs between rows that are decided and rows that are not.
Launch    no synchronisation, fixed by shapes and strides: capturable in a CUDA graph. Configurations are one fixed
          table, chosen by registers and shared memory (`python -m benchmarks.triton_resources`), not yet tuned or run
          on a GPU.
"""

# ruff: noqa: N803 (kernels name their sizes as the header does)
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import on_device, parts, strides, supports
from .._triton_distance import (
    DIRECT_MAX_D,
    NORM_MAX,
    VARYING,
    column_bounds,
    direct_costs,
    error_bound,
    load_resident,
    place,
    potential_strides,
    score_config,
    scores,
    squared_distance,
    squared_norm,
)
from ..l2_argmin.triton import l2_argmin
from .triton_lists import (
    FREE,
    LAST,
    NAN,
    TAKEN,
    UNUSED,
    empty,
    insert,
    key_column,
    key_cost,
    merged,
    ordered,
    scattered,
    sorted_keys,
    store_answers,
)

__all__ = ["l2_topk", "supports"]

_MOST_COLUMNS = 2**31 - 1
_ALL = {"BLOCK_M": 64, "num_warps": 8, "num_stages": 1, "maxnreg": 255}  # with 64 rows, or 32 where lists are long
_SOME = {"BLOCK_N": 16, "BLOCK_M": 128, "num_warps": 4, "num_stages": 1, "maxnreg": 255}  # few rows, on many cores
_RANK = {"BLOCK_D": 16, "num_warps": 8, "num_stages": 1, "maxnreg": 168}
_JOIN = {"num_warps": 4}
_PAIRS = 256  # of a row and a kept column, in a program of pass 2


@triton.jit(do_not_specialize=[*VARYING, "D", "K", "sxb", "syb", "spb"])
def _list_kernel(
    x, y, potential, pending, order, lists, B, N, M, D, K, row_blocks, splits,
    sxb, sxn, sxd, syb, sym, syd, spb, spm,
    HAS_POTENTIAL: tl.constexpr, SOME: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """The K least directly summed costs of the split's columns: of all rows, or of SOME, which come first in order."""
    batch, split, rows, begin, end = place(row_blocks, splits, N, M, BLOCK_N, BLOCK_M)
    row_ok = rows < N
    if SOME:
        rows = tl.load(order + batch * N + rows, mask=row_ok, other=0)
        row_ok = row_ok & (tl.load(pending + batch * N + rows, mask=row_ok, other=0) != 0)
        end = tl.where(tl.max(row_ok.to(tl.int32), axis=0) > 0, end, begin)
    x_rows = x + batch * sxb + rows * sxn
    y += batch * syb
    potential += batch * spb
    kept = empty(row_ok, K, BLOCK_N, SLOTS)
    bad = tl.zeros([BLOCK_N], tl.int32)
    tiles = tl.cdiv(end - begin, BLOCK_M)
    for visit in range(tiles):
        start = begin + scattered(visit, tiles) * BLOCK_M
        columns = start + tl.arange(0, BLOCK_M)
        column_ok = columns < M
        cost = direct_costs(
            x_rows, row_ok, y, potential, columns, column_ok, D, sxd, sym, syd, spm, HAS_POTENTIAL, BLOCK_N, BLOCK_M
        )  # fmt: skip
        is_nan = (cost != cost) & column_ok[None, :]
        bad = tl.maximum(bad, tl.max(is_nan.to(tl.int32), axis=1))
        tile = tl.where(column_ok[None, :] & (cost == cost), ordered(cost), TAKEN)
        kept = insert(kept, tile, start, BLOCK_M)
    kept = tl.where(bad[:, None] > 0, NAN, kept)
    slot = tl.arange(0, SLOTS)[None, :]
    here = ((batch * N + rows) * splits + split)[:, None] * K + slot
    tl.store(lists + here, kept, mask=row_ok[:, None] & (slot < K))


@triton.jit(do_not_specialize=["rows", "K", "splits"])
def _join_kernel(
    lists, pending, value, index, rows, K, splits, SOME: tl.constexpr, BLOCK_N: tl.constexpr, SLOTS: tl.constexpr
):  # fmt: skip
    """Joins and sorts the lists of all rows, or of SOME, that _list_kernel left."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok = row < rows
    if SOME:
        row_ok = row_ok & (tl.load(pending + row, mask=row_ok, other=0) != 0)
    key = merged(lists + row * splits * K, row_ok, K, splits, K, BLOCK_N, SLOTS)
    store_answers(key, value, index, row, row_ok, K, BLOCK_N, SLOTS)


@triton.jit(do_not_specialize=[*VARYING, "KEEP"])
def _bound_kernel(
    x, y, column, lists, B, N, M, D, KEEP, row_blocks, splits, sxb, sxn, sxd, syb, sym, syd,
    PRECISION: tl.constexpr, OPERAND: tl.constexpr, WIDEN: tl.constexpr, ONE_CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Pass 1. The KEEP lowest bounds of the split's columns, less |x_i|^2."""
    batch, split, rows, begin, end = place(row_blocks, splits, N, M, BLOCK_N, BLOCK_M)
    row_ok = rows < N
    x_rows = x + batch * sxb + rows * sxn
    y += batch * syb
    column += batch * M
    x_tile = load_resident(x_rows, row_ok, D, sxd, ONE_CHUNK, BLOCK_D)
    kept = empty(row_ok, KEEP, BLOCK_N, SLOTS)
    tiles = tl.cdiv(end - begin, BLOCK_M)
    for visit in range(tiles):
        start = begin + scattered(visit, tiles) * BLOCK_M
        columns = start + tl.arange(0, BLOCK_M)
        column_ok = columns < M
        score = scores(
            x_tile, x_rows, row_ok, y, column, columns, column_ok, D, sxd, sym, syd,
            PRECISION, OPERAND, WIDEN, ONE_CHUNK, BLOCK_N, BLOCK_M, BLOCK_D,
        )  # fmt: skip
        kept = insert(kept, tl.where(column_ok[None, :], ordered(score), TAKEN), start, BLOCK_M)
    slot = tl.arange(0, SLOTS)[None, :]
    here = ((batch * N + rows) * splits + split)[:, None] * KEEP + slot
    tl.store(lists + here, kept, mask=row_ok[:, None] & (slot < KEEP))


@triton.jit(do_not_specialize=[*VARYING, "K", "KEEP"])
def _rank_kernel(
    x, y, potential, lists, value, index, pending, B, N, M, D, K, KEEP, row_blocks, splits, slack, tiny,
    sxb, sxn, sxd, syb, sym, syd, spb, spm,
    HAS_POTENTIAL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Pass 2. Sums the costs of the kept columns from differences, sorts them, and says which rows are undecided."""
    program = tl.program_id(0).to(tl.int64)
    batch = program // row_blocks
    rows = (program % row_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok = rows < N
    here = batch * N + rows
    bound = merged(lists + here * splits * KEEP, row_ok, KEEP, splits, KEEP, BLOCK_N, SLOTS)
    slot = tl.arange(0, SLOTS)[None, :]
    kept = row_ok[:, None] & (bound < FREE)
    column = tl.where(kept, key_column(bound), 0)
    last = tl.max(tl.where(slot < KEEP, bound, UNUSED), axis=1)

    x_rows = x + batch * sxb + rows * sxn
    norm = squared_norm(x_rows, row_ok, D, sxd, BLOCK_N, BLOCK_D)
    pairs: tl.constexpr = BLOCK_N * SLOTS
    x_pairs = tl.reshape(tl.broadcast_to((batch * sxb + rows * sxn)[:, None], [BLOCK_N, SLOTS]), [pairs])
    y_pairs = tl.reshape(batch * syb + column * sym, [pairs])
    pair_ok = tl.reshape(kept, [pairs])
    cost = squared_distance(x + x_pairs, y + y_pairs, pair_ok, D, sxd, syd, pairs, BLOCK_D)
    cost = tl.reshape(cost, [BLOCK_N, SLOTS])
    if HAS_POTENTIAL:
        cost -= tl.load(potential + batch * spb + column * spm, mask=kept, other=0.0).to(tl.float32)
    is_nan = kept & (cost != cost)
    key = tl.where(kept & (is_nan == 0), (ordered(cost).to(tl.int64) << 32) | column, LAST)
    key = sorted_keys(key, 1, BLOCK_N, SLOTS)
    kth = key_cost(tl.max(tl.where(slot < K, key, UNUSED), axis=1))
    safe = (norm < NORM_MAX) & (tl.max(is_nan.to(tl.int32), axis=1) == 0)
    above = key_cost(last) + (norm - slack * norm - tiny) > kth
    decided = safe & (above | (last >= FREE))  # no column was left out where a slot is free
    store_answers(key, value, index, here, row_ok & decided, K, BLOCK_N, SLOTS)
    tl.store(pending + here, (decided == 0).to(tl.int8), mask=row_ok)


def l2_topk(x: Tensor, y: Tensor, k: int, potential: Tensor | None) -> tuple[Tensor, Tensor]:
    """The k least |x_i - y_j|^2 - potential_j, in order, and their j, lowest first among equals; NaN: NaN and -1.

    x [B, N, D], y [B, M, D], potential [B, M] or None (float32, float16 or bfloat16, M >= 1, D >= 1),
    1 <= k <= min(M, 128) -> value [B, N, k] float32, index [B, N, k] int64.
    """
    batch, n, d = x.shape
    if y.shape[1] > _MOST_COLUMNS:
        raise ValueError(f"l2_topk: y must have at most {_MOST_COLUMNS} points in Triton, got {y.shape[1]}")
    if k == 1:
        value, index = l2_argmin(x, y, potential)
        return value[..., None], index[..., None]
    value = torch.empty(batch, n, k, dtype=torch.float32, device=x.device)
    index = torch.empty(batch, n, k, dtype=torch.int64, device=x.device)
    if batch * n == 0:
        return value, index
    with on_device(x.device):
        pending = None if d <= DIRECT_MAX_D else _rank(x, y, potential, value, index)
        _direct(x, y, potential, pending, value, index)
    return value, index


def _direct(
    x: Tensor, y: Tensor, potential: Tensor | None, pending: Tensor | None, value: Tensor, index: Tensor
) -> None:
    """Of all rows, or of those that are pending [B, N]."""
    batch, n, d = x.shape
    m, k = y.shape[1], value.shape[2]
    slots = _slots(k)
    config = _ALL | {"BLOCK_N": min(64, 4096 // slots)} if pending is None else _SOME
    row_blocks = triton.cdiv(n, config["BLOCK_N"])
    splits = _parts(batch * row_blocks, triton.cdiv(m, config["BLOCK_M"]), x.device)
    lists = torch.empty(batch, n, splits, k, dtype=torch.int64, device=x.device)
    # the rows that are pending come first, so that few programs have any
    order = None if pending is None else pending.sort(dim=1, descending=True, stable=True).indices
    _list_kernel[(batch * row_blocks * splits,)](
        x, y, y if potential is None else potential, pending, order, lists,
        batch, n, m, d, k, row_blocks, splits, *strides(x), *strides(y), *potential_strides(potential),
        HAS_POTENTIAL=potential is not None, SOME=pending is not None, SLOTS=slots, **config,
    )  # fmt: skip
    join_n = max(1, _PAIRS // slots)
    _join_kernel[(triton.cdiv(batch * n, join_n),)](
        lists, pending, value, index, batch * n, k, splits,
        SOME=pending is not None, BLOCK_N=join_n, SLOTS=slots, **_JOIN,
    )  # fmt: skip


def _rank(x: Tensor, y: Tensor, potential: Tensor | None, value: Tensor, index: Tensor) -> Tensor:
    """Writes the answers of most rows; which rows have none yet: int8 [B, N]."""
    batch, n, d = x.shape
    k = value.shape[2]
    keep = _keep(k)
    lists = _scores(x, y, potential, keep)
    pending = torch.empty(batch, n, dtype=torch.int8, device=x.device)
    block_n = max(1, _PAIRS // _slots(keep))
    row_blocks = triton.cdiv(n, block_n)
    slack, _, tiny = error_bound(d, "exact")
    _rank_kernel[(batch * row_blocks,)](
        x, y, y if potential is None else potential, lists, value, index, pending,
        batch, n, y.shape[1], d, k, keep, row_blocks, lists.shape[2], slack, tiny,
        *strides(x), *strides(y), *potential_strides(potential),
        HAS_POTENTIAL=potential is not None, BLOCK_N=block_n, SLOTS=_slots(keep), **_RANK,
    )  # fmt: skip
    return pending


def _scores(x: Tensor, y: Tensor, potential: Tensor | None, keep: int) -> Tensor:
    """Per row and part of the columns, the keys of the lowest bounds of cost - |x_i|^2: int64 [B, N, S, keep]."""
    batch, n, d = x.shape
    m, slots = y.shape[1], _slots(keep)
    column = column_bounds(y, potential, error_bound(d, "exact")[0])
    config = score_config(x.dtype, d, "exact")
    config["BLOCK_N"] = min(64, 4096 // slots)  # lists, tile and operands share the registers
    row_blocks = triton.cdiv(n, config["BLOCK_N"])
    splits = _parts(batch * row_blocks, triton.cdiv(m, config["BLOCK_M"]), x.device)
    lists = torch.empty(batch, n, splits, keep, dtype=torch.int64, device=x.device)
    _bound_kernel[(batch * row_blocks * splits,)](
        x, y, column, lists, batch, n, m, d, keep, row_blocks, splits, *strides(x), *strides(y), SLOTS=slots, **config
    )
    return lists


def _parts(programs: int, tiles: int, device: torch.device) -> int:
    """No more parts than a part has tiles: to join a list takes about as long as a tile."""
    return parts(programs, math.isqrt(tiles), device)


def _keep(k: int) -> int:
    """How many bounds a row keeps: those between the k-th cost and it, within the rounding of bounds, are few."""
    return k + 4 + k // 8


def _slots(keep: int) -> int:
    """The width of a list: a power of two."""
    return max(8, triton.next_power_of_2(keep))
