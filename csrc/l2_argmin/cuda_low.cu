// cuda_low.cu - l2_argmin for d <= kLowDimension: a distance costs no more than its bookkeeping, so it is summed
// directly.
//
// Layout    y passes through shared memory in tiles of 256 points, padded with zeros to kWidth coordinates.
// Work      a block owns 32 kRows rows; a lane holds kRows of them in registers, each of 8 warps sees an eighth of a
//           tile, every lane of it the same point (a broadcast read). Few rows and many columns: parts that meet
//           (cuda_result.h).
// Numerics  sum of fused multiply-adds in order of k, then minus the potential: exact up to that rounding, and zeros
//           past d change nothing.
// Ties      (cost, j) as one integer, see cuda_result.h.
// Not yet run on a GPU.
#include "l2_argmin/cuda_steps.h"

namespace otk::l2 {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kTile = 256, kShare = kTile / kWarps;

template <int kWidth>
__host__ __device__ constexpr size_t shared_bytes(int rows) {
  const size_t tile = sizeof(float) * kTile * (kWidth + 1), keys = sizeof(Key) * kWarps * size_t(rows);
  return (tile > keys ? tile : keys) + 16;
}

// Points [j0, j0 + count) into points [kTile, kWidth] and offsets [kTile].
template <int kWidth>
__device__ void stage(const float* y, const float* potential, int64_t j0, int count, int d, float* points, float* offsets) {
  for (int e = threadIdx.x; e < count * kWidth; e += kThreads) {
    const int c = e / kWidth, k = e % kWidth;
    points[e] = k < d ? y[(j0 + c) * d + k] : 0.0f;
  }
  for (int c = threadIdx.x; c < count; c += kThreads) offsets[c] = potential ? potential[j0 + c] : 0.0f;
}

template <int kWidth, int kRows>
struct Rows {
  float x[kRows][kWidth];
  float cost[kRows];
  uint32_t j[kRows];
  unsigned nan = 0;  // a bit a row

  __device__ void load(const float* rows, int64_t i0, int64_t n, int d) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t i = i0 + 32 * r + threadIdx.x % 32, row = i < n ? i : n - 1;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) x[r][k] = k < d ? rows[row * d + k] : 0.0f;
      cost[r] = __uint_as_float(0x7f800000u), j[r] = ~0u;
    }
  }

  __device__ void meet(const float* point, float offset, uint32_t column) {
    float y[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) y[k] = point[k];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = 0;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum = __fmaf_rn(x[r][k] - y[k], x[r][k] - y[k], sum);
      const float c = sum - offset;
      if (c >= cost[r]) continue;  // false for a NaN
      nan |= unsigned(c != c) << r;
      if (c == c) cost[r] = c, j[r] = column;
    }
  }

  // A row whose costs are all +inf takes the first column of the part.
  __device__ Key key(int r, uint32_t first) const {
    return nan >> r & 1 ? 0 : make_key(cost[r], j[r] == ~0u ? first : j[r]);
  }
};

template <int kWidth, int kRows>
__global__ void __launch_bounds__(kThreads, 2)
    low(const L2Argmin<float> p, const Meeting meeting, int64_t groups, int64_t parts) {
  float* const points = shared_memory<float>();
  float* const offsets = points + kTile * kWidth;
  Key* const keys = shared_memory<Key>();  // [kWarps, 32 kRows], after the last tile
  int* const last = reinterpret_cast<int*>(shared_memory<char>() + shared_bytes<kWidth>(32 * kRows) - 16);
  const int64_t part = blockIdx.x % parts, group = blockIdx.x / parts % groups, entry = blockIdx.x / parts / groups;
  const int64_t begin = part * p.m / parts, end = (part + 1) * p.m / parts, i0 = group * 32 * kRows;
  const float* const y = p.y + entry * p.y_stride;
  const float* const potential = p.potential ? p.potential + entry * p.potential_stride : nullptr;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, d = int(p.d);
  Rows<kWidth, kRows> rows;
  rows.load(p.x + entry * p.x_stride, i0, p.n, d);
  for (int64_t j0 = begin; j0 < end; j0 += kTile) {
    const int count = int(end - j0 < kTile ? end - j0 : kTile);
    __syncthreads();
    stage<kWidth>(y, potential, j0, count, d, points, offsets);
    __syncthreads();
    const int from = warp * kShare, to = from + kShare < count ? from + kShare : count;
#pragma unroll 4
    for (int c = from; c < to; ++c) rows.meet(points + c * kWidth, offsets[c], uint32_t(j0 + c));
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; ++r) keys[warp * 32 * kRows + 32 * r + lane] = rows.key(r, uint32_t(begin));
  __syncthreads();
  Key key = kNone;
  if (threadIdx.x < 32 * kRows)
    for (int w = 0; w < kWarps; ++w) {
      const Key other = keys[w * 32 * kRows + threadIdx.x];
      key = other < key ? other : key;
    }
  const int64_t left = p.n - i0;
  deliver(p, entry, int(left < 32 * kRows ? left : 32 * kRows), i0, i0 + threadIdx.x, key, parts, meeting, last);
}

template <int kWidth, int kRows>
void run(const L2Argmin<float>& p, int64_t parts, Meeting meeting, void* stream) {
  const int64_t groups = (p.n + 32 * kRows - 1) / (32 * kRows);
  const Launch l{describe("low", p), p.batch * groups * parts, kThreads, shared_bytes<kWidth>(32 * kRows), stream};
  launch(l, low<kWidth, kRows>, p, meeting, groups, parts);
}

}  // namespace

void launch_low(const L2Argmin<float>& p, const Direct& plan, Meeting meeting, void* stream) {
  const auto with = [&]<int kWidth>() {
    plan.rows == 32 ? run<kWidth, 1>(p, plan.parts, meeting, stream) : run<kWidth, 4>(p, plan.parts, meeting, stream);
  };
  if (p.d <= 2) return with.operator()<2>();
  if (p.d <= 4) return with.operator()<4>();
  with.operator()<8>();
}

}  // namespace otk::l2
