"""l2_argmin in Triton: value_i = min_j |x_i - y_j|^2 - potential_j and the lowest j that attains it.

Layout    x [B, N, D], y [B, M, D], potential [B, M], any strides. A program owns BLOCK_N rows of one batch element and
          one part of the columns, which it streams in tiles of BLOCK_M; the parts are joined in order.
Memory    one float32 per column; two and an index per row and part (more than one when N is small). 64-bit addresses.
Paths     D <= 8 sums differences directly. Beyond, pass 1 takes lower bounds of all costs from tensor-core products and
          keeps per row the lowest and second lowest. A row is decided when the second lies above the directly summed
          cost of the first. Pass 2 sums all costs of the rows that are not, from differences: rare, but all rows where
          the points lie much farther from the origin than from each other (centre them to be fast).
Numerics  Bounds are those of otkernels/_triton_distance.py. Where one is -inf or NaN it decides no row: pass 2 does.
          The value is summed from the differences of the winning pair. Equal costs leave no row decided, and pass 2
          sums them alike, so exact ties go to the lowest index.
Copies    Rows of y that equal an earlier one of no lower potential are left out of pass 1, or they would leave no row
          decided. Sorting hashes finds them, without synchronisation; it is done where pass 1 takes much longer.
Precision "tf32" and "bf16" drop the bound: the argmin of the product's score, value as above. Only rows with a NaN or
          an overflow then see pass 2. Half inputs are multiplied as they are.
Launch    no synchronisation, fixed by shapes and strides: capturable in a CUDA graph. Configurations are one fixed
          table, chosen by registers and shared memory (`python -m benchmarks.triton_resources`), not yet tuned or run
          on a GPU.
"""

# ruff: noqa: N803 (kernels name their sizes as the header does)
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import on_device, parts, strides, supports
from .._triton_distance import (
    DIRECT_MAX_D,
    INF,
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

__all__ = ["l2_argmin", "supports"]

_GOLDEN = 0x1E3779B1  # odd, and far from simple fractions of 2^32
_COPIES_PAY = 1 << 30  # multiply-adds of pass 1 beyond which copies are looked for
# maxnreg: without it the assembler spills a register or two to fit one more block on a multiprocessor.
_DIRECT = {"BLOCK_N": 64, "BLOCK_M": 64, "num_warps": 8, "num_stages": 1, "maxnreg": 255}
_SETTLE = {"BLOCK_N": 16, "BLOCK_M": 128, "BLOCK_D": 32, "num_warps": 4, "num_stages": 1, "maxnreg": 152}


@triton.jit
def _direct_tile(
    best, index, bad, x_rows, row_ok, y, potential, start, M, D, sxd, sym, syd, spm,
    HAS_POTENTIAL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Takes one tile of directly summed costs into the running minimum, its index and the count of NaN."""
    local = tl.arange(0, BLOCK_M)
    columns = start + local
    column_ok = columns < M
    cost = direct_costs(
        x_rows, row_ok, y, potential, columns, column_ok, D, sxd, sym, syd, spm, HAS_POTENTIAL, BLOCK_N, BLOCK_M
    )  # fmt: skip
    is_nan = (cost != cost) & column_ok[None, :]
    bad += tl.sum(is_nan.to(tl.int32), axis=1)
    cost = tl.where(column_ok[None, :] & (cost == cost), cost, INF)
    low, at = tl.min(cost, axis=1, return_indices=True)
    index = tl.where(low < best, start + at, index)
    return tl.minimum(low, best), index, bad


@triton.jit(do_not_specialize=[*VARYING, "D", "sxb", "syb", "spb"])
def _direct_kernel(
    x, y, potential, value, index, B, N, M, D, row_blocks, splits,
    sxb, sxn, sxd, syb, sym, syd, spb, spm,
    HAS_POTENTIAL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    batch, split, rows, begin, end = place(row_blocks, splits, N, M, BLOCK_N, BLOCK_M)
    row_ok = rows < N
    x_rows = x + batch * sxb + rows * sxn
    best = tl.full([BLOCK_N], INF, tl.float32)
    at = tl.zeros([BLOCK_N], tl.int64) + begin
    bad = tl.zeros([BLOCK_N], tl.int32)
    for start in range(begin, end, BLOCK_M):
        best, at, bad = _direct_tile(
            best, at, bad, x_rows, row_ok, y + batch * syb, potential + batch * spb, start, M, D, sxd, sym, syd, spm,
            HAS_POTENTIAL, BLOCK_N, BLOCK_M,
        )  # fmt: skip
    out = (split * B + batch) * N + rows
    tl.store(value + out, tl.where(bad == 0, best, float("nan")), mask=row_ok)
    tl.store(index + out, tl.where(bad == 0, at, -1), mask=row_ok)


@triton.jit(do_not_specialize=VARYING)
def _score_kernel(
    x, y, column, first, second, at, B, N, M, D, row_blocks, splits, sxb, sxn, sxd, syb, sym, syd,
    EXACT: tl.constexpr, PRECISION: tl.constexpr, OPERAND: tl.constexpr, WIDEN: tl.constexpr, ONE_CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Pass 1. Over the split's columns: the lowest column_j - 2 x_i . y_j, its j, and the second lowest."""
    batch, split, rows, begin, end = place(row_blocks, splits, N, M, BLOCK_N, BLOCK_M)
    row_ok = rows < N
    x_rows = x + batch * sxb + rows * sxn
    y += batch * syb
    column += batch * M
    x_tile = load_resident(x_rows, row_ok, D, sxd, ONE_CHUNK, BLOCK_D)
    local = tl.arange(0, BLOCK_M)
    low1 = tl.full([BLOCK_N], INF, tl.float32)
    low2 = tl.full([BLOCK_N], INF, tl.float32)
    best = tl.zeros([BLOCK_N], tl.int64) + begin
    for start in range(begin, end, BLOCK_M):
        columns = start + local
        column_ok = columns < M
        score = scores(
            x_tile, x_rows, row_ok, y, column, columns, column_ok, D, sxd, sym, syd,
            PRECISION, OPERAND, WIDEN, ONE_CHUNK, BLOCK_N, BLOCK_M, BLOCK_D,
        )  # fmt: skip
        tile_low, tile_at = tl.min(score, axis=1, return_indices=True)
        if EXACT:
            others = tl.where(local[None, :] == tile_at[:, None], INF, score)
            low2 = tl.minimum(tl.minimum(low2, tl.min(others, axis=1)), tl.maximum(low1, tile_low))
        best = tl.where(tile_low < low1, start + tile_at, best)
        low1 = tl.minimum(low1, tile_low)
    out = (split * B + batch) * N + rows
    tl.store(first + out, low1, mask=row_ok)
    tl.store(second + out, low2, mask=row_ok)
    tl.store(at + out, best, mask=row_ok)


@triton.jit(do_not_specialize=VARYING)
def _settle_kernel(
    x, y, potential, first, second, at, value, index, B, N, M, D, row_blocks, splits, slack, direct_slack, tiny,
    sxb, sxn, sxd, syb, sym, syd, spb, spm,
    HAS_POTENTIAL: tl.constexpr, EXACT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Pass 2. Joins the splits, decides rows by their bounds, and sums all costs of the others from differences."""
    program = tl.program_id(0).to(tl.int64)
    batch = program // row_blocks
    rows = (program % row_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok = rows < N
    here = batch * N + rows
    low1 = tl.load(first + here, mask=row_ok, other=INF)
    low2 = tl.load(second + here, mask=row_ok, other=INF)
    best_at = tl.load(at + here, mask=row_ok, other=0)
    for split in range(1, splits):
        there = (split * B + batch) * N + rows
        new1 = tl.load(first + there, mask=row_ok, other=INF)
        new2 = tl.load(second + there, mask=row_ok, other=INF)
        new_at = tl.load(at + there, mask=row_ok, other=0)
        low2 = tl.minimum(tl.minimum(low2, new2), tl.maximum(low1, new1))
        best_at = tl.where(new1 < low1, new_at, best_at)
        low1 = tl.minimum(low1, new1)

    x_rows = x + batch * sxb + rows * sxn
    y += batch * syb
    potential += batch * spb
    norm = squared_norm(x_rows, row_ok, D, sxd, BLOCK_N, BLOCK_D)
    cost = squared_distance(x_rows, y + best_at * sym, row_ok, D, sxd, syd, BLOCK_N, BLOCK_D)
    size = cost
    if HAS_POTENTIAL:
        p = tl.load(potential + best_at * spm, mask=row_ok, other=0.0).to(tl.float32)
        size = cost + tl.abs(p)
        cost = cost - p
    safe = norm < NORM_MAX
    if EXACT:  # every other bound lies above the direct cost of the first
        decided = safe & (low2 + (norm - slack * norm - tiny) > cost + (direct_slack * size + tiny))
    else:
        decided = safe & (low1 > -INF)
    pending = row_ok & (decided == 0)
    bad = tl.zeros([BLOCK_N], tl.int32)
    if tl.sum(pending.to(tl.int32), axis=0) > 0:
        direct = tl.full([BLOCK_N], INF, tl.float32)
        direct_at = tl.zeros([BLOCK_N], tl.int64)
        zero = program * 0
        for start in range(zero, zero + M, BLOCK_M):
            direct, direct_at, bad = _direct_tile(
                direct, direct_at, bad, x_rows, row_ok, y, potential, start, M, D, sxd, sym, syd, spm,
                HAS_POTENTIAL, BLOCK_N, BLOCK_M,
            )  # fmt: skip
        cost = tl.where(pending, direct, cost)
        best_at = tl.where(pending, direct_at, best_at)
    is_nan = pending & (bad > 0)
    tl.store(value + here, tl.where(is_nan, float("nan"), cost), mask=row_ok)
    tl.store(index + here, tl.where(is_nan, -1, best_at), mask=row_ok)


@triton.jit(do_not_specialize=["rows", "splits"])
def _merge_kernel(part_value, part_index, value, index, rows, splits, BLOCK: tl.constexpr):
    """The lowest of the splits' minima; on ties the earlier split, which holds the lower columns."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = at < rows
    best = tl.load(part_value + at, mask=ok, other=0.0)
    best_at = tl.load(part_index + at, mask=ok, other=0)
    bad = best_at < 0
    for _ in range(1, splits):
        part_value += rows
        part_index += rows
        low = tl.load(part_value + at, mask=ok, other=0.0)
        low_at = tl.load(part_index + at, mask=ok, other=0)
        bad |= low_at < 0
        best_at = tl.where(low < best, low_at, best_at)
        best = tl.where(low < best, low, best)
    tl.store(value + at, tl.where(bad, float("nan"), best), mask=ok)
    tl.store(index + at, tl.where(bad, -1, best_at), mask=ok)


def l2_argmin(x: Tensor, y: Tensor, potential: Tensor | None, precision: str = "exact") -> tuple[Tensor, Tensor]:
    """value_i = min_j |x_i - y_j|^2 - potential_j and the lowest j that attains it; a NaN in row i gives NaN and -1.

    x [B, N, D], y [B, M, D], potential [B, M] or None (float32, float16 or bfloat16, M >= 1, D >= 1)
    -> value [B, N] float32, index [B, N] int64. precision "exact", "tf32" or "bf16": see the header.
    """
    batch, n, d = x.shape
    value = torch.empty(batch, n, dtype=torch.float32, device=x.device)
    index = torch.empty(batch, n, dtype=torch.int64, device=x.device)
    if batch * n == 0:
        return value, index
    with on_device(x.device):
        if d <= DIRECT_MAX_D:
            _direct(x, y, potential, value, index)
        else:
            _tensor(x, y, potential, precision, value, index)
    return value, index


def _direct(x: Tensor, y: Tensor, potential: Tensor | None, value: Tensor, index: Tensor) -> None:
    batch, n, d = x.shape
    m = y.shape[1]
    row_blocks = triton.cdiv(n, _DIRECT["BLOCK_N"])
    splits = parts(batch * row_blocks, triton.cdiv(m, _DIRECT["BLOCK_M"]), x.device)
    outs = (value, index) if splits == 1 else (value.new_empty(splits, batch, n), index.new_empty(splits, batch, n))
    _direct_kernel[(batch * row_blocks * splits,)](
        x, y, y if potential is None else potential, *outs, batch, n, m, d, row_blocks, splits,
        *strides(x), *strides(y), *potential_strides(potential), HAS_POTENTIAL=potential is not None, **_DIRECT,
    )  # fmt: skip
    if splits > 1:
        _merge_kernel[(triton.cdiv(batch * n, 128),)](*outs, value, index, batch * n, splits, BLOCK=128, num_warps=4)


def _tensor(x: Tensor, y: Tensor, potential: Tensor | None, precision: str, value: Tensor, index: Tensor) -> None:
    batch, n, d = x.shape
    looks = precision == "exact" and batch * n * y.shape[1] * d > _COPIES_PAY
    first, second, at = _scores(x, y, potential, precision, copies(y, potential) if looks else None)
    row_blocks = triton.cdiv(n, _SETTLE["BLOCK_N"])
    _settle_kernel[(batch * row_blocks,)](
        x, y, y if potential is None else potential, first, second, at, value, index,
        batch, n, y.shape[1], d, row_blocks, first.shape[0], *error_bound(d, precision),
        *strides(x), *strides(y), *potential_strides(potential),
        HAS_POTENTIAL=potential is not None, EXACT=precision == "exact", **_SETTLE,
    )  # fmt: skip


def copies(y: Tensor, potential: Tensor | None) -> Tensor:
    """Which rows of y [B, M, D] equal an earlier row, to the bit, whose potential is no lower: bool [B, M].

    Some may be missed (where hashes of unlike rows meet, or potentials of copies alternate), none is wrong.
    """
    words = y.contiguous().view({4: torch.int32, 2: torch.int16}[y.element_size()])
    odd = (2 * torch.arange(words.shape[2], dtype=torch.int32, device=y.device) + 1) * _GOLDEN
    hashes = ((words ^ (words >> 13)) * odd).sum(2)  # [B, M] in int64, of products modulo 2^32
    order = hashes.sort(dim=1, stable=True).indices
    here, before = order[:, 1:], order[:, :-1]  # neighbours, the earlier first where hashes are equal
    alike = hashes.gather(1, here) == hashes.gather(1, before)
    batch = torch.arange(len(y), device=y.device)[:, None]
    alike &= (words[batch, here] == words[batch, before]).all(2)
    if potential is not None:
        alike &= potential.gather(1, here) <= potential.gather(1, before)
    return torch.zeros(y.shape[:2], dtype=torch.bool, device=y.device).scatter_(1, here, alike)


def _scores(
    x: Tensor, y: Tensor, potential: Tensor | None, precision: str, left_out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Per part of the columns and row, the lowest bound of cost - |x_i|^2, the second lowest, the j: [S, B, N] each.

    left_out [B, M]: columns that no row needs.
    """
    batch, n, d = x.shape
    m = y.shape[1]
    column = column_bounds(y, potential, error_bound(d, precision)[0])
    if left_out is not None:
        column.masked_fill_(left_out, torch.inf)
    config = score_config(x.dtype, d, precision)
    row_blocks = triton.cdiv(n, config["BLOCK_N"])
    splits = parts(batch * row_blocks, triton.cdiv(m, config["BLOCK_M"]), x.device)
    first = torch.empty(splits, batch, n, dtype=torch.float32, device=x.device)
    second = torch.empty_like(first)
    at = torch.empty_like(first, dtype=torch.int64)
    _score_kernel[(batch * row_blocks * splits,)](
        x, y, column, first, second, at, batch, n, m, d, row_blocks, splits, *strides(x), *strides(y),
        EXACT=precision == "exact", **config,
    )  # fmt: skip
    return first, second, at
