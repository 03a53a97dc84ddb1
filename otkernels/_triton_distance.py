"""Squared distances in Triton: what l2_argmin and l2_topk share, with the error bound of tensor-core products.

Layout    x [B, N, D], y [B, M, D], potential [B, M], any strides. A program owns BLOCK_N rows of one batch element and
          one part of the columns, which it streams in tiles of BLOCK_M.
Bounds    A tile's score is column_j - 2 x_i . y_j, and the score plus |x_i|^2 (less `slack` of it, and `tiny`) lies
          below the cost |x_i - y_j|^2 - potential_j, however its differences are summed in float32.
Numerics  u = 2^-24, S = |x_i|^2 + |y_j|^2, p = potential_j, G = sum_d |x_d y_d| <= S / 2.
          Dot product     |error| <= 4u (D + 16) G, as a tensor core's additions truncate at the last bit of the largest
                          term (Fasi et al. 2021: with blocks of k >= 4 terms, (D / k)(k + 2) 2u G <= 3u D G).
          tf32x3          operands as two tf32 parts cut at 2^-10 each: 3 * 2^-20 G = 48u G more. Halves: nothing more.
          Norms           (D + 1) u S; the operations that join them: 8u (S + |p|).
          Direct sum      (D + 2) u |x_i - y_j|^2 <= 2 (D + 2) u S, and u |p|.
          A score holds -2 G: together at most (7D + 129) u S + 9u |p|. With S itself computed (D <= 2^20) that is below
          (8D + 160) u (S + |p|); D 2^-120 more for what underflows. Every bound is lowered by this. Where a norm is
          beyond 2^120, NaN or Inf, or D > 2^20, the bound is -inf or NaN, which never decides a row.
"""

# ruff: noqa: N803 (kernels name their sizes as the header does)
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._triton import INTERPRETED, strides

DIRECT_MAX_D = 8  # up to here costs are summed from differences at once
VARYING = ["B", "N", "M", "row_blocks", "splits"]  # from call to call: see _triton.strides
NORM_MAX = tl.constexpr(2.0**120)
INF = tl.constexpr(float("inf"))
_BOUND_MAX_D = 1 << 20
_COLUMN = {"BLOCK_M": 32, "BLOCK_D": 32, "num_warps": 4, "maxnreg": 128}


@triton.jit
def squared_norm(rows, row_ok, D, stride, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """|v_i|^2 of BLOCK_N rows, given pointers to them."""
    total = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D).to(tl.int64)
        v = tl.load(rows[:, None] + d[None, :] * stride, mask=row_ok[:, None] & (d < D)[None, :], other=0.0)
        v = v.to(tl.float32)
        total += tl.sum(v * v, axis=1)
    return total


@triton.jit
def squared_distance(x_rows, y_rows, row_ok, D, sxd, syd, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """|x_i - y_i|^2 of BLOCK_N pairs, given pointers to both rows."""
    total = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D).to(tl.int64)
        mask = row_ok[:, None] & (d < D)[None, :]
        xv = tl.load(x_rows[:, None] + d[None, :] * sxd, mask=mask, other=0.0).to(tl.float32)
        yv = tl.load(y_rows[:, None] + d[None, :] * syd, mask=mask, other=0.0).to(tl.float32)
        total += tl.sum((xv - yv) * (xv - yv), axis=1)
    return total


@triton.jit
def direct_costs(
    x_rows, row_ok, y, potential, columns, column_ok, D, sxd, sym, syd, spm,
    HAS_POTENTIAL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """|x_i - y_j|^2 - potential_j of one tile [BLOCK_N, BLOCK_M], summed from differences."""
    y_rows = y + columns * sym
    cost = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for _ in range(D):
        xv = tl.load(x_rows, mask=row_ok, other=0.0).to(tl.float32)
        yv = tl.load(y_rows, mask=column_ok, other=0.0).to(tl.float32)
        difference = xv[:, None] - yv[None, :]
        cost += difference * difference
        x_rows += sxd
        y_rows += syd
    if HAS_POTENTIAL:
        cost -= tl.load(potential + columns * spm, mask=column_ok, other=0.0).to(tl.float32)[None, :]
    return cost


@triton.jit
def place(row_blocks, splits, N, M, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr):
    """The program's batch element, split, rows [BLOCK_N], and columns [begin, end)."""
    program = tl.program_id(0).to(tl.int64)
    split = program % splits
    block = program // splits
    rows = (block % row_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    tiles = tl.cdiv(M, BLOCK_M)
    begin = split * tiles // splits * BLOCK_M
    end = tl.minimum((split + 1) * tiles // splits * BLOCK_M, M)
    return block // row_blocks, split, rows, begin, end


@triton.jit
def _dot(xv, yv, acc, PRECISION: tl.constexpr, OPERAND: tl.constexpr, WIDEN: tl.constexpr):
    xv = xv.to(OPERAND)
    yv = yv.to(OPERAND)
    if WIDEN:  # Triton's interpreter multiplies the bit patterns of bfloat16
        xv = xv.to(tl.float32)
        yv = yv.to(tl.float32)
    return tl.dot(xv, tl.trans(yv), acc, input_precision=PRECISION)


@triton.jit
def load_resident(x_rows, row_ok, D, sxd, ONE_CHUNK: tl.constexpr, BLOCK_D: tl.constexpr):
    """The rows of x that `scores` takes: [BLOCK_N, BLOCK_D] where they fit, else their pointers, which it ignores."""
    if ONE_CHUNK:
        d = tl.arange(0, BLOCK_D).to(tl.int64)
        return tl.load(x_rows[:, None] + d[None, :] * sxd, mask=row_ok[:, None] & (d < D)[None, :], other=0.0)
    else:
        return x_rows


@triton.jit
def scores(
    x_tile, x_rows, row_ok, y, column, columns, column_ok, D, sxd, sym, syd,
    PRECISION: tl.constexpr, OPERAND: tl.constexpr, WIDEN: tl.constexpr, ONE_CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """column_j - 2 x_i . y_j of one tile [BLOCK_N, BLOCK_M]; +inf past the last column, -inf for a NaN."""
    d = tl.arange(0, BLOCK_D).to(tl.int64)
    y_rows = y + columns * sym
    product = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    if ONE_CHUNK:
        yv = tl.load(y_rows[:, None] + d[None, :] * syd, mask=column_ok[:, None] & (d < D)[None, :], other=0.0)
        product = _dot(x_tile, yv, product, PRECISION, OPERAND, WIDEN)
    else:
        for chunk in range(0, D, BLOCK_D):
            dc = chunk + d
            d_ok = (dc < D)[None, :]
            xv = tl.load(x_rows[:, None] + dc[None, :] * sxd, mask=row_ok[:, None] & d_ok, other=0.0)
            yv = tl.load(y_rows[:, None] + dc[None, :] * syd, mask=column_ok[:, None] & d_ok, other=0.0)
            product = _dot(xv, yv, product, PRECISION, OPERAND, WIDEN)
    score = tl.load(column + columns, mask=column_ok, other=INF)[None, :] - 2 * product
    return tl.where(score == score, score, -INF)  # a NaN is a candidate


@triton.jit(do_not_specialize=["M", "column_blocks"])
def _column_kernel(
    y, potential, column, M, D, column_blocks, slack, syb, sym, syd, spb, spm,
    HAS_POTENTIAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """column_j = |y_j|^2 - p_j - slack (|y_j|^2 + |p_j|), what column j adds to a bound; -inf where that is unsafe."""
    program = tl.program_id(0).to(tl.int64)
    batch = program // column_blocks
    columns = (program % column_blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    column_ok = columns < M
    y_rows = y + batch * syb + columns * sym
    norm = squared_norm(y_rows, column_ok, D, syd, BLOCK_M, BLOCK_D)
    size = norm
    bound = norm
    if HAS_POTENTIAL:
        p = tl.load(potential + batch * spb + columns * spm, mask=column_ok, other=0.0).to(tl.float32)
        never = p == -INF  # its cost is +inf, whatever the norm's rounding
        size = tl.where(never, norm, norm + tl.abs(p))
        bound = norm - p
    bound = tl.where(size < NORM_MAX, bound - slack * size, -INF)
    tl.store(column + batch * M + columns, bound, mask=column_ok)


def column_bounds(y: Tensor, potential: Tensor | None, slack: float) -> Tensor:
    """What each column adds to its bounds: float32 [B, M]."""
    batch, m, d = y.shape
    column = torch.empty(batch, m, dtype=torch.float32, device=y.device)
    column_blocks = triton.cdiv(m, _COLUMN["BLOCK_M"])
    _column_kernel[(batch * column_blocks,)](
        y, y if potential is None else potential, column, m, d, column_blocks, slack,
        *strides(y), *potential_strides(potential), HAS_POTENTIAL=potential is not None, **_COLUMN,
    )  # fmt: skip
    return column


def potential_strides(potential: Tensor | None) -> tuple[int, ...]:
    return (0, 0) if potential is None else strides(potential)


def error_bound(d: int, precision: str) -> tuple[float, float, float]:
    """The header's relative bound of a score, four times that of a direct sum, and the absolute bound of underflow."""
    if precision != "exact":
        return 0.0, 0.0, 0.0
    slack = (8 * d + 160) * 2.0**-24 if d <= _BOUND_MAX_D else float("inf")
    return slack, 4 * (d + 4) * 2.0**-24, d * 2.0**-120


def score_config(dtype: torch.dtype, d: int, precision: str) -> dict[str, Any]:
    """Tiles, operands and warps of a kernel that calls `scores`."""
    half = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}.get(dtype)
    operand = half or (tl.bfloat16 if precision == "bf16" else tl.float32)
    split = operand == tl.float32 and precision == "exact"  # three products of two parts: smaller pieces, more warps
    rounded = half is None and operand == tl.bfloat16  # float32 in memory, bfloat16 in the product
    resident = d <= (16 if split else 64 if rounded else 128)  # x's rows stay on the chip
    chunk = 16 if split else 32  # else features of x and y read at a time
    return {
        "OPERAND": operand,
        "PRECISION": "tf32x3" if split else "tf32",
        "WIDEN": INTERPRETED and operand == tl.bfloat16,
        "ONE_CHUNK": resident,
        "BLOCK_N": 128 if split else 64,
        "BLOCK_M": 64,
        "BLOCK_D": max(16, triton.next_power_of_2(d)) if resident else chunk,
        "num_warps": 8 if split else 4,
        "num_stages": 2,
        "maxnreg": 255,
    }
