// cuda_direct.cu - l2_argmin from differences alone, d > kLowDimension: small problems, and rows that are left
// undecided.
//
// Work      a block owns kRows rows of x and a part of the columns; four lanes share a pair, a pass covers 64 columns,
//           a thread keeps kRows sums while it reads y once. 64 rows are 64 blocks: a small problem is one launch that
//           is bound by latency. Where few rows meet many columns, the columns are parted and the parts meet
//           (cuda_result.h). Undecided rows come as a list whose length only the device knows: a fixed grid shares them
//           and their columns.
// Memory    x and y are read through L1; 8 kRows kWarps bytes of shared memory.
// Numerics  cuda_distance.h's order, then minus the potential: no cancellation, nothing to re-sum. |error| of a cost is
//           at most (d + 3) u |x - y|^2 + u |cost|, with room, whatever the order of a d-term sum.
// Ties      (cost, j) as one integer: the lowest j, whichever thread saw it first. A NaN cost is lower than all.
// Not yet run on a GPU.
#include "l2_argmin/cuda_distance.h"
#include "l2_argmin/cuda_steps.h"

namespace otk::l2 {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kColumns = kThreads / 4;
constexpr int64_t kPartColumns = 512;  // a part has at least so many, or the meeting costs more than it brings

template <int kRows>
struct Best {
  float cost[kRows];
  uint32_t j[kRows];
  unsigned nan = 0;  // a bit a row

  __device__ void offer(int r, float other, uint32_t column) {
    if (other >= cost[r]) return;  // false for a NaN
    if (other != other) {
      nan |= 1u << r;
    } else {
      cost[r] = other;
      j[r] = column;
    }
  }

  __device__ Key key(int r) const { return nan >> r & 1 ? 0 : make_key(cost[r], j[r]); }
};

// The best of columns [begin, end) that this quad of lanes sees; kNone where it sees none.
template <int kRows, bool kVector>
__device__ void scan(const float* const (&x)[kRows], const float* y, const float* potential, int64_t begin, int64_t end,
                     int d, Key (&keys)[kRows]) {
  const int64_t first = begin + threadIdx.x / 4;
  Best<kRows> best;
#pragma unroll
  for (int r = 0; r < kRows; ++r) best.cost[r] = __uint_as_float(0x7f800000u), best.j[r] = uint32_t(first);
  for (int64_t j0 = begin; j0 < end; j0 += kColumns) {
    const int64_t j = j0 + threadIdx.x / 4;
    const bool inside = j < end;
    const float* const point = y + (inside ? j : end - 1) * d;
    float sum[kRows] = {};
#pragma unroll(kRows < 4 ? 4 : 1)
    for (int k = threadIdx.x % 4 * 4; k < d; k += 16) {
      const float4 b = load4<kVector>(point, k, d);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum[r] = add_squares(sum[r], load4<kVector>(x[r], k, d), b);
    }
    const float offset = potential && inside ? __ldg(potential + j) : 0.0f;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float cost = sum_quad(sum[r]) - offset;
      if (inside) best.offer(r, cost, uint32_t(j));
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) keys[r] = first < end ? best.key(r) : kNone;
}

// The lowest keys of the block: thread r < kRows returns row r's.
template <int kRows>
__device__ Key lowest(const Key (&keys)[kRows], Key* shared) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const Key key = lower_key(lower_key(lower_key(keys[r], 4), 8), 16);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32 * kRows + r] = key;
  }
  __syncthreads();
  Key key = kNone;
  if (threadIdx.x < kRows)
    for (int w = 0; w < kWarps; ++w) {
      const Key other = shared[w * kRows + threadIdx.x];
      key = other < key ? other : key;
    }
  return key;
}

template <int kRows, bool kVector>
__global__ void __launch_bounds__(kThreads, kRows < 8 || kVector ? 2 : 1)
    direct(const L2Argmin<float> p, const Undecided rows, const Meeting meeting, int64_t blocks_per_entry,
           int64_t fixed_parts) {
  Key* const shared = shared_memory<Key>();  // [kWarps, kRows], then a flag
  int* const last = reinterpret_cast<int*>(shared + kWarps * kRows);
  const int64_t entry = blockIdx.x / blocks_per_entry, here = blockIdx.x % blocks_per_entry;
  const int64_t count = rows.list ? rows.count[entry] : p.n, groups = divide_up(count, kRows);
  int64_t parts = fixed_parts;
  if (rows.list && groups) {
    const int64_t most = divide_up(p.m, kPartColumns);
    parts = blocks_per_entry / groups;
    parts = parts < 1 ? 1 : parts > most ? most : parts;
  }
  const float* const potential = p.potential ? p.potential + entry * p.potential_stride : nullptr;
  for (int64_t item = here; item < groups * parts; item += blocks_per_entry) {
    const int64_t slot0 = item / parts * kRows, part = item % parts;
    const int64_t begin = part * p.m / parts, end = (part + 1) * p.m / parts;
    int64_t mine = 0;
    const float* x[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t slot = slot0 + r < count ? slot0 + r : count - 1;
      const int64_t row = rows.list ? rows.list[entry * p.n + slot] : slot;
      x[r] = p.x + entry * p.x_stride + row * p.d;
      if (int(threadIdx.x) == r) mine = row;
    }
    Key keys[kRows];
    scan<kRows, kVector>(x, p.y + entry * p.y_stride, potential, begin, end, int(p.d), keys);
    const int here_rows = int(count - slot0 < kRows ? count - slot0 : kRows);
    const Key key = lowest<kRows>(keys, shared);
    deliver(p, entry, here_rows, slot0, mine, key, parts, meeting, last);
    __syncthreads();  // shared is written again
  }
}

template <int kRows>
void run(const L2Argmin<float>& p, const Undecided& rows, Meeting meeting, int64_t per_entry, int64_t parts, void* stream) {
  const size_t bytes = sizeof(Key) * kWarps * kRows + 16;
  const Launch l{describe("direct", p), p.batch * per_entry, kThreads, bytes, stream};
  const bool vector = aligned_rows(p.x, p.d, p.x_stride) && aligned_rows(p.y, p.d, p.y_stride);
  launch(l, vector ? direct<kRows, true> : direct<kRows, false>, p, rows, meeting, per_entry, parts);
}

// Keys and tickets as the parts expect them.
__global__ void __launch_bounds__(kThreads, 2) reset(Meeting meeting, int64_t rows) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows) return;
  meeting.keys[i] = kNone;
  meeting.tickets[i] = 0;
}

}  // namespace

void launch_reset(const L2Argmin<float>& p, Meeting meeting, void* stream) {
  const int64_t rows = p.batch * p.n;
  launch({describe("reset", p), divide_up(rows, kThreads), kThreads, 0, stream}, reset, meeting, rows);
}

void launch_direct(const L2Argmin<float>& p, const Direct& plan, Meeting meeting, void* stream) {
  const auto with = [&]<int kRows>() {
    run<kRows>(p, {}, meeting, divide_up(p.n, kRows) * plan.parts, plan.parts, stream);
  };
  if (plan.rows == 8) return with.operator()<8>();
  if (plan.rows == 4) return with.operator()<4>();
  if (plan.rows == 2) return with.operator()<2>();
  with.operator()<1>();
}

void launch_undecided(const L2Argmin<float>& p, const Undecided& rows, Meeting meeting, int multiprocessors, void* stream) {
  run<8>(p, rows, meeting, divide_up(2 * multiprocessors, p.batch), 0, stream);
}

}  // namespace otk::l2
