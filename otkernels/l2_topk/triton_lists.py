"""Lists of the lowest costs of each row, and their columns, in Triton: how l2_topk keeps, fills, joins and sorts them.

Keys      A key holds a float32 cost, as an integer of the same order, above its column's 32-bit number: the order of
          keys is that of costs, and of columns among equal costs. No two keys of a row are equal.
Lists     A row keeps its lowest keys in no order. Its bar is the highest of them. While a tile has a column below the
          bar of any row, each row's lowest column takes the place of its highest key.
Rounds    A row alone takes k (1 + log(M / k)) of them where columns come in random order. Those of a program wait for
          each other: 64 rows, k = 22 and tiles of 64 take 284 for M = 4096 and 1273, or 1.2 a tile, for M = 65536. A
          round reads the tile and the list once; sorting a tile of 64 would take 21 rounds of exchanges. Where points
          are sorted, each tile may be nearer than all before it: so tiles are visited in a scattered order.
"""

# ruff: noqa: N803 (kernels name their sizes in capitals)
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

TAKEN = tl.constexpr(0x7FFFFFFF)  # in place of a cost: no column, or one that is in the list. Above all costs.
FREE = tl.constexpr(0x7FFFFFFE << 32)  # plus its slot: the key of a slot that no column has taken, above all costs
UNUSED = tl.constexpr(-(1 << 63))  # the key of a slot that no column may take, as it never is the highest
NAN = tl.constexpr(-(1 << 63) + 0xFFFFFFFF)  # of a row with a NaN: the cost NaN, the column -1, the lowest key
LAST = tl.constexpr((1 << 63) - 1)
_PRIME = tl.constexpr(2654435761)  # near 2^32 / 1.618: its multiples modulo a count are spread evenly for most counts


@triton.jit
def ordered(cost):
    """float32 to an int32 of the same order. No cost is -0, which would come before 0: x - x is 0."""
    bits = cost.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def key_cost(key):
    bits = (key >> 32).to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def key_column(key):
    return key.to(tl.int32).to(tl.int64)


@triton.jit
def empty(row_ok, KEEP, BLOCK_N: tl.constexpr, SLOTS: tl.constexpr):
    """Lists of the rows [BLOCK_N, SLOTS]: KEEP free slots in each row, none in rows that are not there."""
    slot = tl.arange(0, SLOTS).to(tl.int64)[None, :]
    return tl.where(row_ok[:, None] & (slot < KEEP), FREE + slot, UNUSED)


@triton.jit
def scattered(visit, count):
    """A permutation of 0 .. count - 1, for count < 2^31: the tile to visit."""
    return visit * _PRIME % count


@triton.jit
def insert(kept, tile, start, BLOCK_M: tl.constexpr):
    """The lists with a tile taken in: ordered costs [BLOCK_N, BLOCK_M] of columns from `start` on."""
    local = tl.arange(0, BLOCK_M)
    bar = tl.max(kept, axis=1)
    low, at = tl.min(tile, axis=1, return_indices=True)
    key = (low.to(tl.int64) << 32) | (start + at)
    while tl.max((key < bar).to(tl.int32), axis=0) > 0:
        highest = (kept == bar[:, None]) & (key < bar)[:, None]
        kept = tl.where(highest, key[:, None], kept)
        tile = tl.where(local[None, :] == at[:, None], TAKEN, tile)
        bar = tl.max(kept, axis=1)
        low, at = tl.min(tile, axis=1, return_indices=True)
        key = (low.to(tl.int64) << 32) | (start + at)
    return kept


@triton.constexpr_function
def _log2(power):
    return power.bit_length() - 1


@triton.jit
def sorted_keys(key, FIRST: tl.constexpr, BLOCK_N: tl.constexpr, SLOTS: tl.constexpr):
    """Bitonic sort of each row [BLOCK_N, SLOTS]; bitonic rows need its last round alone.

    FIRST is 1, or the last round's number log2(SLOTS). tl.sort takes seconds a call in Triton's interpreter.
    """
    slot = tl.broadcast_to(tl.arange(0, SLOTS)[None, :], [BLOCK_N, SLOTS])
    for size in tl.static_range(FIRST, _log2(SLOTS) + 1):
        for step in tl.static_range(size):
            bit = 1 << (size - 1 - step)
            other = tl.gather(key, slot ^ bit, axis=1)
            takes_lower = ((slot & bit) == 0) == ((slot >> size) % 2 == 0)
            key = tl.where(takes_lower, tl.minimum(key, other), tl.maximum(key, other))
    return key


@triton.jit
def merged(lists, row_ok, stride, splits, KEEP, BLOCK_N: tl.constexpr, SLOTS: tl.constexpr):
    """The lowest keys of the splits' lists in order [BLOCK_N, SLOTS], given pointers [BLOCK_N] to the first list."""
    slot = tl.arange(0, SLOTS)
    mask = row_ok[:, None] & (slot < KEEP)[None, :]
    at = lists[:, None] + slot[None, :]
    back = tl.broadcast_to(SLOTS - 1 - slot[None, :], [BLOCK_N, SLOTS])
    lowest = sorted_keys(tl.load(at, mask=mask, other=LAST), 1, BLOCK_N, SLOTS)
    for split in range(1, splits):
        other = sorted_keys(tl.load(at + split * stride, mask=mask, other=LAST), 1, BLOCK_N, SLOTS)
        lower = tl.minimum(lowest, tl.gather(other, back, axis=1))  # the lower half of both, bitonic
        lowest = sorted_keys(lower, _log2(SLOTS), BLOCK_N, SLOTS)
    return lowest


@triton.jit
def store_answers(key, value, index, row, row_ok, K, BLOCK_N: tl.constexpr, SLOTS: tl.constexpr):
    slot = tl.arange(0, SLOTS)[None, :]
    mask = row_ok[:, None] & (slot < K)
    tl.store(value + row[:, None] * K + slot, key_cost(key), mask=mask)
    tl.store(index + row[:, None] * K + slot, key_column(key), mask=mask)
