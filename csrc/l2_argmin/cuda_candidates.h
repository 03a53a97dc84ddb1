// cuda_candidates.h - what becomes of a tile of products: the bar that a row's scores must reach, and who reached it.
//
// Both product kernels hold a row as cuda's tensor cores leave it (common/mma.h): lane 4 g + q has columns 8 k + 2 q
// and + 1, k < N, as acc[4 k + side] for row g (side 0, 1) and g + 8 (side 2, 3). One lane's share of one row is a
// RowState.
//   exact  low = L_i, the largest fl(s - e) that the row's four lanes saw; every s >= low - e goes to the row's list.
//          Their order in it is that of the atomic additions: chance, but settle's choice does not depend on it.
//   best   the best score that this lane saw and its first column; the four lanes join at the end.
// A column block that holds a wild column (spread +inf) leaves its rows undecided: an overflowing list, or a best of
// +inf.
#pragma once
#include "l2_argmin/cuda_steps.h"

namespace otk::l2 {

__device__ inline float infinity() { return __uint_as_float(0x7f800000u); }
__device__ inline float most_negative() { return __uint_as_float(0xff7fffffu); }

template <bool kExact>
struct RowState;

template <>
struct RowState<true> {
  float low, error;

  __device__ void start(float x_error) {
    const bool live = x_error < infinity();
    low = live ? most_negative() : infinity();  // +inf: no score of this row is a candidate
    error = live ? x_error : 0.0f;
  }
};

template <>
struct RowState<false> {
  float best;
  int j;

  __device__ void start(float x_error) {
    best = x_error < infinity() ? -infinity() : infinity();
    j = 0;
  }
};

// The lists of one writer for a work item's rows.
struct Lists {
  Candidate* entries;  // [rows, capacity]
  int* counts;         // [rows], in shared memory
  int capacity;
};

// h[k] are the half norms of columns 8 k + 2 q and + 1; column is the first of them.
template <int N, int kSide>
__device__ inline float score(const float (&acc)[4 * N], const float2 (&h)[N], int i) {
  return acc[4 * (i / 2) + kSide + i % 2] + (i % 2 ? h[i / 2].y : h[i / 2].x);
}

__device__ inline int column_of(int column, int i) { return column + 8 * (i / 2) + i % 2; }

// kSide: 0 for row g, 2 for row g + 8. `row` counts within the work item. Called by all lanes of the warp.
template <int N, int kSide>
__device__ __forceinline__ void take(const float (&acc)[4 * N], const float2 (&h)[N], RowState<true>& state, float spread,
                                     int column, bool collect, const Lists& lists, int row) {
  if (!(spread < infinity())) {
    if (threadIdx.x % 4 == 0) atomicAdd(lists.counts + row, lists.capacity + 1);
    return;
  }
  float mine = -infinity();
#pragma unroll
  for (int i = 0; i < 2 * N; ++i) mine = fmaxf(mine, score<N, kSide>(acc, h, i));
  const float pair = fmaxf(mine, __shfl_xor_sync(~0u, mine, 1)), quad = fmaxf(pair, __shfl_xor_sync(~0u, pair, 2));
  const float error = state.error + spread;
  state.low = fmaxf(state.low, quad - error);
  const float bar = state.low - error;
  if (!collect || mine < bar) return;
  unsigned reached = 0;
#pragma unroll
  for (int i = 0; i < 2 * N; ++i) reached |= unsigned(score<N, kSide>(acc, h, i) >= bar) << i;
  for (; reached; reached &= reached - 1) {
    const int which = __ffs(reached) - 1;
    float s = 0;
#pragma unroll
    for (int i = 0; i < 2 * N; ++i) s = i == which ? score<N, kSide>(acc, h, i) : s;
    const int slot = atomicAdd(lists.counts + row, 1);
    if (slot < lists.capacity) lists.entries[int64_t(row) * lists.capacity + slot] = {column_of(column, which), s};
  }
}

template <int N, int kSide>
__device__ __forceinline__ void take(const float (&acc)[4 * N], const float2 (&h)[N], RowState<false>& state, float spread,
                                     int column, bool, const Lists&, int) {
  if (!(spread < infinity())) {
    state.best = infinity();
    return;
  }
  float mine = -infinity();
#pragma unroll
  for (int i = 0; i < 2 * N; ++i) mine = fmaxf(mine, score<N, kSide>(acc, h, i));
  if (!(mine > state.best)) return;
  state.best = mine;
#pragma unroll
  for (int i = 2 * N - 1; i >= 0; --i)
    if (score<N, kSide>(acc, h, i) == mine) state.j = column_of(column, i);
}

// Lists of (entry, part, writer) from row `first` of the entry on; `counts` is shared memory for them.
__device__ inline Lists lists_of(const Products& w, const Item& item, int writer, int64_t first, int* counts) {
  const int64_t at = w.schedule.list(item.entry, item.part, writer, first);
  return {w.lists + at * w.schedule.capacity, counts, w.schedule.capacity};
}

// The row is done: its count, or its best, leaves for the workspace. `at` is its list's number. Called by whole warps.
__device__ inline void finish(const Products& w, const RowState<true>&, const Lists& lists, int row, int64_t at) {
  __syncwarp();
  if (threadIdx.x % 4 == 0) w.counts[at] = lists.counts[row];
}

__device__ inline void finish(const Products& w, RowState<false> state, const Lists&, int, int64_t at) {
#pragma unroll
  for (int step = 1; step <= 2; ++step) {
    const float best = __shfl_xor_sync(~0u, state.best, step);
    const int j = __shfl_xor_sync(~0u, state.j, step);
    if (best > state.best || (best == state.best && j < state.j)) state.best = best, state.j = j;
  }
  if (threadIdx.x % 4 == 0) w.lists[at] = {state.j, state.best};
}

// The half norms of this lane's columns.
template <int N>
__device__ inline void load_halves(const float* half, int64_t column, float2 (&h)[N]) {
#pragma unroll
  for (int k = 0; k < N; ++k) h[k] = __ldg(reinterpret_cast<const float2*>(half + column + 8 * k));
}

}  // namespace otk::l2
