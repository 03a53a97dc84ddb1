// cuda_result.h - the order of costs (lowest first, then lowest j, NaN before all) as one integer, and how blocks that
// share a row's columns join their results: an integer minimum and a count of arrivals, so the order of arrival changes
// nothing.
#pragma once
#include "common/cuda.h"
#include "l2_argmin/l2_argmin.h"

namespace otk::l2 {

using Key = unsigned long long;
inline constexpr Key kNone = ~Key(0);  // no column yet

__device__ inline Key make_key(float cost, uint32_t j) {
  if (cost != cost) return 0;
  const unsigned bits = __float_as_uint(cost);
  return Key(bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u)) << 32 | j;
}

__device__ inline float cost_of(Key key) {
  const unsigned ordered = unsigned(key >> 32);
  return __uint_as_float(ordered >> 31 ? ordered ^ 0x80000000u : ~ordered);
}

// The lower of the keys of lanes whose numbers differ in bit `step`.
__device__ inline Key lower_key(Key key, int step) {
  const Key other = __shfl_xor_sync(~0u, key, step);
  return other < key ? other : key;
}

__device__ inline void write_result(const L2Argmin<float>& p, int64_t entry, int64_t row, Key key) {
  const int64_t at = entry * p.n + row;
  p.value[at] = key ? cost_of(key) : __uint_as_float(0x7fc00000u);
  p.index[at] = key ? int64_t(key & 0xffffffffu) : -1;
}

// Where the parts of a row meet: keys start as kNone, tickets as 0, for each row. Null where a row has one part.
struct Meeting {
  Key* keys;     // [batch, n]
  int* tickets;  // [batch, n]: the first slot of a group of rows counts the parts that arrived
};

// Called by a whole block. Thread t < rows holds the key of row `row`, whose slot is slot0 + t; the last part writes.
__device__ inline void deliver(const L2Argmin<float>& p, int64_t entry, int rows, int64_t slot0, int64_t row, Key key,
                               int64_t parts, Meeting meeting, int* last) {
  const bool mine = int(threadIdx.x) < rows;
  if (parts == 1) {
    if (mine) write_result(p, entry, row, key);
    return;
  }
  Key* const met = meeting.keys + entry * p.n + slot0 + threadIdx.x;
  if (mine) atomicMin(met, key);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) *last = atomicAdd(meeting.tickets + entry * p.n + slot0, 1) == int(parts) - 1;
  __syncthreads();
  if (!*last || !mine) return;
  __threadfence();
  write_result(p, entry, row, atomicMin(met, kNone));
}

}  // namespace otk::l2
