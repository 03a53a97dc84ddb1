// cuda_direct.cu - l2_argmin in float32 from differences alone: the plain CUDA kernel, exact by construction.
//
// Work      a block of 16 x 16 threads owns 64 rows of x and streams y in tiles of 64; a thread sums 4 x 4 pairs.
//           Blocks run over (batch, row tile) in one grid dimension, so no batch size is too large.
// Numerics  every cost is sum_k (x_k - y_k)^2 in order of k, then minus the potential: no cancellation, nothing to re-sum.
// Ties      compared as (cost, j), so the lowest j wins whichever thread saw it. A NaN cost marks its row.
// Not yet run on a GPU: Triton stands before it in the dispatch table until both are measured.
#include <cstdint>

#include "common/cuda_check.h"
#include "l2_argmin/l2_argmin.h"

namespace otk {
namespace {

constexpr int kThreads = 16;        // a side of the block
constexpr int kPairs = 4;           // a side of a thread's pairs
constexpr int kTile = kThreads * kPairs;
constexpr int kDepth = 16;          // coordinates staged at a time
constexpr int kStride = kTile + 1;  // shared-memory row, padded against bank conflicts

struct Best {
  float cost;
  int64_t index;  // -1: nothing yet
  bool nan;

  __device__ void offer(float other, int64_t j) {
    nan |= other != other;
    if (index < 0 || other < cost || (other == cost && j < index)) cost = other, index = j;
  }
};

// points [count, d] from `first` -> tile[k][row], zero past the end
__device__ void stage(const float* points, int64_t first, int64_t count, int64_t k0, int64_t d, float (*tile)[kStride]) {
  for (int e = threadIdx.y * kThreads + threadIdx.x; e < kTile * kDepth; e += kThreads * kThreads) {
    const int row = e / kDepth, k = e % kDepth;
    const bool inside = first + row < count && k0 + k < d;
    tile[k][row] = inside ? points[(first + row) * d + k0 + k] : 0.0f;
  }
}

__global__ void __launch_bounds__(kThreads* kThreads) direct(const L2Argmin<float> p, int64_t row_tiles) {
  __shared__ float x_tile[kDepth][kStride], y_tile[kDepth][kStride];
  const int64_t entry = blockIdx.x / row_tiles, i0 = blockIdx.x % row_tiles * kTile;
  const float* x = p.x + entry * p.x_stride;
  const float* y = p.y + entry * p.y_stride;
  Best best[kPairs];
  for (int a = 0; a < kPairs; ++a) best[a] = {0.0f, -1, false};

  for (int64_t j0 = 0; j0 < p.m; j0 += kTile) {
    float cost[kPairs][kPairs] = {};
    for (int64_t k0 = 0; k0 < p.d; k0 += kDepth) {
      stage(x, i0, p.n, k0, p.d, x_tile);
      stage(y, j0, p.m, k0, p.d, y_tile);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDepth; ++k)
#pragma unroll
        for (int a = 0; a < kPairs; ++a)
#pragma unroll
          for (int b = 0; b < kPairs; ++b) {
            const float difference = x_tile[k][threadIdx.y * kPairs + a] - y_tile[k][threadIdx.x + b * kThreads];
            cost[a][b] += difference * difference;
          }
      __syncthreads();
    }
#pragma unroll
    for (int b = 0; b < kPairs; ++b) {
      const int64_t j = j0 + threadIdx.x + b * kThreads;
      if (j >= p.m) continue;
      const float offset = p.potential ? p.potential[entry * p.potential_stride + j] : 0.0f;
#pragma unroll
      for (int a = 0; a < kPairs; ++a) best[a].offer(cost[a][b] - offset, j);
    }
  }
  // The 16 threads of a row of the block are 16 neighbouring lanes.
  for (int a = 0; a < kPairs; ++a) {
    for (int step = kThreads / 2; step > 0; step /= 2) {
      const float cost = __shfl_xor_sync(0xffffffffu, best[a].cost, step);
      const long long index = __shfl_xor_sync(0xffffffffu, static_cast<long long>(best[a].index), step);
      const bool nan = __shfl_xor_sync(0xffffffffu, static_cast<int>(best[a].nan), step);
      if (index >= 0) best[a].offer(cost, index);
      best[a].nan |= nan;
    }
    const int64_t i = i0 + threadIdx.y * kPairs + a;
    if (threadIdx.x == 0 && i < p.n) {
      p.value[entry * p.n + i] = best[a].nan ? __int_as_float(0x7fc00000) : best[a].cost;
      p.index[entry * p.n + i] = best[a].nan ? -1 : best[a].index;
    }
  }
}

}  // namespace

void l2_argmin_cuda(const L2Argmin<float>& p, void* stream) {
  if (p.batch == 0 || p.n == 0) return;
  const std::string what = "l2_argmin (cuda) x [" + std::to_string(p.batch) + ", " + std::to_string(p.n) + ", " +
                           std::to_string(p.d) + "], y [" + std::to_string(p.batch) + ", " + std::to_string(p.m) + ", " +
                           std::to_string(p.d) + "]";
  const int64_t row_tiles = (p.n + kTile - 1) / kTile, blocks = p.batch * row_tiles;
  if (blocks > INT32_MAX) throw std::runtime_error(what + ": more than 2^31 - 1 blocks of rows");
  direct<<<static_cast<unsigned>(blocks), dim3(kThreads, kThreads), 0, static_cast<cudaStream_t>(stream)>>>(p, row_tiles);
  check_launch(what);
}

}  // namespace otk
