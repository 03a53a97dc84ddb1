// cuda_candidates.h - what becomes of a tile of products: the bar that a row's scores must reach, and who reached it.
//
// Both product kernels hold a row as cuda's tensor cores leave it (common/mma.h): lane 4 g + q has columns 8 k + 2 q
// and + 1, k < N, as acc[4 k + side] for row g (side 0, 1) and g + 8 (side 2, 3). One lane's share of one row is a
// RowState.
//   exact  low = L_i, the largest fl(s - e) that the row's four lanes saw; every s >= low - e goes to the row's list.
//          Their order in it is that of the atomic additions: chance, but the result does not depend on it. A crowded
//          list is thinned out: those that are below the bar by now leave it, and if many remain, their distances are
//          summed and the nearest alone stays: the others are settled. That waits until a tile's accumulators are no
//          longer needed, whose registers it takes. A row whose list overflowed meanwhile, or was settled too often,
//          gives up: it collects no more, and the second stage has it.
//   best   the best score that this lane saw and its first column; the four lanes join at the end.
// A column block that holds a wild column (BlockFacts::fixed is +inf) leaves its rows undecided.
#pragma once
#include "l2_argmin/cuda_steps.h"

namespace otk::l2 {

__device__ inline float infinity() { return __uint_as_float(0x7f800000u); }
__device__ inline float most_negative() { return __uint_as_float(0xff7fffffu); }

// Counts of candidates from here on are no counts: the row gave up, or met a wild column.
inline constexpr int kGaveUp = kCapacity + 1, kWild = kCapacity + 2;
// In shared memory a list's count grows by this when it is settled, and by kMet when its row meets a wild column.
inline constexpr int kSettling = 1 << 12, kMet = 1 << 30;
static_assert(int64_t(kMostPatience + 2) * kSettling < kMet, "counts of settlings stay below kMet");

// Either kind of facts: four floats.
template <class Facts>
__device__ inline Facts load_facts(const Facts* at) {
  const float4 f = __ldg(reinterpret_cast<const float4*>(at));
  return {f.x, f.y, f.z, f.w};
}

template <bool kExact>
struct RowState;

__device__ inline float error_of(const RowFacts& row, const BlockFacts& block) {
  return __fmaf_rn(block.along, row.norm, __fmaf_rn(block.norm, row.lost, row.fixed + block.fixed));
}

template <>
struct RowState<true> {
  float low;  // +inf: no score of this row is a candidate

  __device__ void start(const RowFacts& of) { low = of.fixed < infinity() ? most_negative() : infinity(); }
};

template <>
struct RowState<false> {
  float best;
  int j;

  __device__ void start(const RowFacts& of) {
    best = of.fixed < infinity() ? -infinity() : infinity();
    j = 0;
  }
};

// The lists of one writer for a work item's rows.
struct Lists {
  Candidate* entries;  // [rows, capacity]
  int* counts;         // [rows], in shared memory
};

// The cost of (row, j) as a key, by four lanes.
__device__ inline Key key_of(const Products& w, int64_t entry, const float* x, int j) {
  const L2Argmin<float>& p = w.p;
  const float* const y = p.y + entry * p.y_stride + int64_t(j) * p.d;
  const float sum = w.vector ? squared_distance<true>(x, y, int(p.d)) : squared_distance<false>(x, y, int(p.d));
  return make_key(p.potential ? sum - __ldg(p.potential + entry * p.potential_stride + j) : sum, uint32_t(j));
}

// The lowest key of the lanes' candidates of one row, for all lanes of the warp; kNone where there is none.
__device__ inline Key nearest_of(const Products& w, int64_t entry, const float* x, int j, bool alive) {
  unsigned mask = __ballot_sync(~0u, alive);
  Key key = kNone;
  while (mask) {  // eight at a time, four lanes each
    unsigned mine = mask;
    for (int skip = threadIdx.x % 32 / 4; skip > 0; --skip) mine &= mine - 1;
    const Key other = key_of(w, entry, x, __shfl_sync(~0u, j, __ffs(mine ? mine : mask) - 1));
    key = other < key ? other : key;
    for (int k = 0; k < 8; ++k) mask &= mask - 1;
  }
  return lower_key(lower_key(lower_key(key, 4), 8), 16);
}

// h[k] are the half norms of columns 8 k + 2 q and + 1; column is the first of them.
template <int N>
__device__ inline float half_of(const float2 (&h)[N], int i) {
  return i % 2 ? h[i / 2].y : h[i / 2].x;
}

// Which accumulator is that of the lane's i-th column, in row g (kSide 0) or g + 8 (kSide 2).
template <int kSide>
__device__ constexpr int accumulator_of(int i) {
  return 4 * (i / 2) + kSide + i % 2;
}

__device__ inline int column_of(int column, int i) { return column + 8 * (i / 2) + i % 2; }

// A work item as the collecting lanes see it.
struct Collector {
  const Products& w;
  int64_t entry, row0, count;  // of the work item's first row, or slot in the list of rows; rows of the entry to solve
  Lists lists;

  // Row `row` of the work item in x. Past the last, any row will do.
  __device__ int64_t row_at(int row) const {
    const int64_t slot = row0 + row < count ? row0 + row : count - 1;
    return w.rows.list ? w.rows.list[entry * w.p.n + slot] : row0 + row;
  }
  __device__ RowFacts facts_of(int row) const {
    return load_facts(w.row_facts[w.schedule.split] + entry * w.schedule.rows() + row_at(row));
  }
  __device__ bool is_crowded(int row) const { return lists.counts[row] % kSettling > kCrowded; }

  // Thins out the list of `row`, whose bar is low - e; by the whole warp. Whether the row goes on.
  __device__ bool thin_out(int row, float low) const {
    const int lane = threadIdx.x % 32, before = lists.counts[row];
    const int size = before % kSettling, settled = before / kSettling;
    if (size > kCapacity) return false;
    Candidate* const list = lists.entries + int64_t(row) * kCapacity;
    const RowFacts facts = facts_of(row);
    const BlockFacts* const blocks = w.block_facts[w.schedule.split] + entry * w.schedule.column_blocks;
    Candidate mine[2];
    bool alive[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      alive[k] = lane + 32 * k < size;
      if (alive[k]) mine[k] = list[lane + 32 * k];
      if (alive[k]) alive[k] = mine[k].score >= low - error_of(facts, load_facts(blocks + mine[k].j / kBlock));
    }
    const bool many = __popc(__ballot_sync(~0u, alive[0])) + __popc(__ballot_sync(~0u, alive[1])) > kCrowded;
    if (many) {
      const float* const x = w.p.x + entry * w.p.x_stride + row_at(row) * w.p.d;
      const Key first = nearest_of(w, entry, x, mine[0].j, alive[0]), second = nearest_of(w, entry, x, mine[1].j, alive[1]);
      const int best = int(first < second ? first : second);
#pragma unroll
      for (int k = 0; k < 2; ++k) alive[k] &= mine[k].j == best;
    }
    __syncwarp();  // all have read the list
    int kept = 0;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const unsigned mask = __ballot_sync(~0u, alive[k]);
      if (alive[k]) list[kept + __popc(mask & ((1u << lane) - 1))] = mine[k];
      kept += __popc(mask);
    }
    if (lane == 0) lists.counts[row] = kept + (settled + many) * kSettling;
    __syncwarp();
    return settled + many <= w.schedule.patience_of(count);
  }

  // Between two tiles: thins out the crowded lists of the warp's rows, of which each quad has rows_of(r) and states[r].
  template <int kRows, class RowOf>
  __device__ void thin_out_all(RowState<true> (&states)[kRows], RowOf row_of) const {
    __syncwarp();  // what other lanes appended is seen
#pragma unroll 1
    for (int r = 0; r < kRows; ++r) {
      float low = 0;  // a register has no index
#pragma unroll
      for (int k = 0; k < kRows; ++k) low = k == r ? states[k].low : low;
      unsigned crowded = __ballot_sync(~0u, threadIdx.x % 4 == 0 && low < infinity() && is_crowded(row_of(r)));
      for (; crowded; crowded &= crowded - 1) {
        const int from = __ffs(crowded) - 1;
        const bool goes_on = thin_out(__shfl_sync(~0u, row_of(r), from), __shfl_sync(~0u, low, from));
        if (goes_on || int(threadIdx.x % 32) / 4 != from / 4) continue;
#pragma unroll
        for (int k = 0; k < kRows; ++k) states[k].low = k == r ? infinity() : states[k].low;
      }
    }
  }
  template <int kRows, class RowOf>
  __device__ void thin_out_all(RowState<false> (&)[kRows], RowOf) const {}
};

// kSide: 0 for row g, 2 for row g + 8. `row` counts within the work item. Called by all lanes of the warp; whether the
// row's list is crowded now.
template <int N, int kSide>
__device__ __forceinline__ bool take(const float (&acc)[4 * N], const float2 (&h)[N], RowState<true>& state,
                                     const RowFacts& facts, const BlockFacts& block, int column, bool collect,
                                     const Lists& lists, int row) {
  if (!(block.fixed < infinity())) {  // for the whole warp alike
    state.low = infinity();
    if (threadIdx.x % 4 == 0) atomicOr(lists.counts + row, kMet);
    return false;
  }
  const float scale = facts.scale * block.scale, error = error_of(facts, block);
  const auto score = [&](int i) { return __fmaf_rn(acc[accumulator_of<kSide>(i)], scale, half_of(h, i)); };
  float most[4];  // four chains: each maximum waits for the one before it
#pragma unroll
  for (int i = 0; i < 2 * N; ++i) most[i % 4] = i < 4 ? score(i) : fmaxf(most[i % 4], score(i));
  const float mine = fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3]));
  const float pair = fmaxf(mine, __shfl_xor_sync(~0u, mine, 1)), quad = fmaxf(pair, __shfl_xor_sync(~0u, pair, 2));
  state.low = fmaxf(state.low, quad - error);
  const float bar = state.low - error;
  if (!collect || !(mine >= bar)) return false;
  unsigned reached = 0;
#pragma unroll
  for (int i = 0; i < 2 * N; ++i) reached |= unsigned(score(i) >= bar) << i;
  int slot = 0;
  for (; reached; reached &= reached - 1) {
    const int which = __ffs(reached) - 1;
    float s = 0;
#pragma unroll
    for (int i = 0; i < 2 * N; ++i) s = i == which ? score(i) : s;
    slot = atomicAdd(lists.counts + row, 1) % kSettling;
    if (slot < kCapacity) lists.entries[int64_t(row) * kCapacity + slot] = {column_of(column, which), s};
  }
  return slot >= kCrowded;
}

template <int N, int kSide>
__device__ __forceinline__ bool take(const float (&acc)[4 * N], const float2 (&h)[N], RowState<false>& state,
                                     const RowFacts&, const BlockFacts& block, int column, bool, const Lists&, int) {
  if (!(block.fixed < infinity())) {
    state.best = infinity();
    return false;
  }
  const auto score = [&](int i) { return acc[accumulator_of<kSide>(i)] + half_of(h, i); };
  float most[4];
#pragma unroll
  for (int i = 0; i < 2 * N; ++i) most[i % 4] = i < 4 ? score(i) : fmaxf(most[i % 4], score(i));
  const float mine = fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3]));
  if (!(mine > state.best)) return false;
  state.best = mine;
#pragma unroll
  for (int i = 2 * N - 1; i >= 0; --i)
    if (score(i) == mine) state.j = column_of(column, i);
  return false;
}

// The row is done: its count, or its best, leaves for the workspace. `at` is its list's number. Called by whole warps.
__device__ inline void finish(const Products& w, const RowState<true>& state, const Lists& lists, int row, int64_t at) {
  __syncwarp();
  if (threadIdx.x % 4 != 0) return;
  const int count = lists.counts[row];
  w.counts[at] = count & kMet ? kWild : state.low < infinity() ? count % kSettling : kGaveUp;
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
