// cuda_forward.cu - soft_forest as one product of routing weights, made on the fly, with the leaves.
//
// Work      a block stages up to `group` leaves [group, 128 outputs] and then works warp by warp, without barriers: a
//           warp owns 16 rows, routes them through 48 leaves at a time (a lane: one row, one subtree of 8 leaves) into
//           its own corner of shared memory and multiplies on the tensor cores (tf32.h), 16 x 128 sums in 64 registers
//           per lane. Blocks are persistent, one per multiprocessor, so that all leaves are staged once where they fit
//           (144 leaves of 128 outputs: 74 KB); otherwise the block's warps walk through the groups together. The next
//           rows of z are on their way while the current ones are multiplied. More than 128 outputs: a block for each
//           128.
// Memory    z read once, out written once, from registers; no workspace.
// Fragments a lane (g, t) takes leaves 8 k + 2 t, + 1 as its two steps of the product's depth and outputs 4 g + j of
//           32 as column g of fragment j (any order of summation and of columns serves): loads are 8 and 16 bytes wide,
//           free of bank conflicts by the strides 56 and 132, and each lane ends with 8 neighbouring outputs of two
//           rows.
// Not yet run on a GPU.
#include <algorithm>

#include "soft_forest/cuda_routing.h"

namespace otk {
namespace {

using namespace forest;

constexpr int kRows = 16;         // of a warp
constexpr int kChunk = 48;        // leaves routed at a time
constexpr int kWarps = 12;        // at most
constexpr int kOutputs = 128;     // of a block
constexpr int kQuads = kOutputs / 32;
constexpr int kMuStride = kChunk + 8, kLeafStride = kOutputs + 4;
constexpr int64_t kStagedFeatures = 256;  // wider rows of z are read where they are used

struct Forward {
  SoftForest<float> forest;
  Trees trees;
  float* out;
  int64_t tiles = 0;  // of warps * kRows rows
  int warps = 0, group = 0, parts = 0, output_blocks = 0;
  int z_stride = 0;  // in shared memory, 0: z is not staged
  bool z_vector = false, leaf_vector = false, out_vector = false;
};

struct Sums {
  float of[kQuads][4][4];  // 32 outputs, fragment, its elements

  __device__ void zero() {
#pragma unroll
    for (int q = 0; q < kQuads; ++q)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) of[q][j][i] = 0;
  }
};

__device__ void stage_rows(const Forward& p, const float* z, int64_t row, float* to) {
  if (p.z_stride && row < p.forest.n) {
    const int d = int(p.forest.d), rows = int(p.forest.n - row < kRows ? p.forest.n - row : kRows);
    stage(to, p.z_stride, z + row * d, d, rows, d, d, p.z_vector, 0, 1);
  }
  commit_copies();
}

// mu [16, kMuStride] of `count` leaves from `first`, zero past the last of all; z rows z_stride apart.
__device__ void route(const Forward& p, const float* z, int64_t z_stride, int rows, const float* thresholds, int first,
                      int count, float* mu) {
  const int levels = p.trees.levels;
  for (int task = int(threadIdx.x) % 32; task < (count >> levels) * kRows; task += 32) {
    const int row = task % kRows, s = task / kRows, subtree = (first >> levels) + s;
    float weights[kSubtree] = {};
    if (row < rows && subtree << levels < p.trees.leaves) {
      const Row of{p.trees, z + row * z_stride, thresholds};
      weights[0] = of.path(subtree);
      of.descend(subtree, weights, [](int, float, Shares) {});
    }
    store(mu + row * kMuStride + (s << levels), levels, weights);
  }
}

// sums += mu [16, count] leaves [count, 32 kUsed], count a multiple of 8. A branch between fragments would make each wait for
// itself.
template <int kUsed>
__device__ __forceinline__ void multiply(const float* mu, const float* leaves, int count, Sums& sums) {
  const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
  for (int k = 2 * t; k < count; k += 8) {
    const float2 upper = *reinterpret_cast<const float2*>(mu + g * kMuStride + k);
    const float2 lower = *reinterpret_cast<const float2*>(mu + (g + 8) * kMuStride + k);
    const float weights[4] = {upper.x, lower.x, upper.y, lower.y};
    const Split<4> a = split(weights);
#pragma unroll
    for (int q = 0; q < kUsed; ++q) {
      const float4 even = *reinterpret_cast<const float4*>(leaves + k * kLeafStride + q * 32 + 4 * g);
      const float4 odd = *reinterpret_cast<const float4*>(leaves + (k + 1) * kLeafStride + q * 32 + 4 * g);
      const float pairs[4][2] = {{even.x, odd.x}, {even.y, odd.y}, {even.z, odd.z}, {even.w, odd.w}};
      Split<2> b[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) b[j] = split(pairs[j]);
      multiply_add(sums.of[q], a, b);
    }
  }
}

// rows [rows <= 16, outputs] of out, rows d_out apart
__device__ __forceinline__ void write(const Forward& p, const Sums& sums, int rows, int outputs, float* out) {
  const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
  for (int q = 0; q < kQuads; ++q)
#pragma unroll
    for (int part = 0; part < 4; ++part) {  // row g or g + 8, outputs 8 t or 8 t + 4 and the three behind
      const int row = g + part / 2 * 8, column = q * 32 + 8 * t + part % 2 * 4;
      float* to = out + row * p.forest.d_out + column;
      if (row >= rows || column >= outputs) continue;
      float values[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) values[j] = sums.of[q][j][part] * p.trees.scale;
      if (p.out_vector) {
        *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
        continue;
      }
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (column + j < outputs) to[j] = values[j];
    }
}

__global__ void __launch_bounds__(kWarps * 32, 1) forward_kernel(const __grid_constant__ Forward p) {
  const SoftForest<float>& f = p.forest;
  const int64_t block = int64_t(blockIdx.x) / p.parts, entry = block / p.output_blocks;
  const int64_t column = block % p.output_blocks * kOutputs, left = f.d_out - column;
  const int outputs = int(left < kOutputs ? left : kOutputs), warp = int(threadIdx.x) / 32;
  const float* z = f.z + entry * f.z_stride;
  const float* thresholds = f.thresholds + entry * f.thresholds_stride;
  const float* leaves = f.leaves + entry * f.leaves_stride + column;
  float* staged = shared_memory<float>();                                       // [group, kLeafStride]
  float* mu = staged + p.group * kLeafStride + warp * kRows * (kMuStride + p.z_stride);  // [16, kMuStride]
  float* z_rows = mu + kRows * kMuStride;                                       // [16, z_stride]
  const bool resident = p.trees.leaves <= p.group;

  int64_t row = (int64_t(blockIdx.x) % p.parts * p.warps + warp) * kRows;
  stage_rows(p, z, row, z_rows);
  Sums sums;
  for (int64_t tile = int64_t(blockIdx.x) % p.parts; tile < p.tiles; tile += p.parts) {
    const int64_t next = row + int64_t(p.parts) * p.warps * kRows;
    const int rows = int(f.n - row < kRows ? f.n - row : kRows);  // not positive: nothing to do for this warp
    sums.zero();
    for (int first = 0; first < p.trees.leaves; first += p.group) {
      const int here = p.trees.leaves - first < p.group ? p.trees.leaves - first : p.group, whole = (here + 7) / 8 * 8;
      if (!resident || tile < p.parts) {
        if (!resident) __syncthreads();
        stage(staged, kLeafStride, leaves + int64_t(first) * f.d_out, f.d_out, here, outputs, (outputs + 31) / 32 * 32,
              p.leaf_vector, warp, p.warps);
        stage(staged + here * kLeafStride, kLeafStride, leaves, 0, whole - here, 0, kOutputs, false, warp, p.warps);
        finish_copies();
        __syncthreads();
      }
      for (int chunk = 0; chunk < whole; chunk += kChunk) {
        const int count = whole - chunk < kChunk ? whole - chunk : kChunk;
        const bool starts = first + chunk == 0, ends = first + chunk + count >= p.trees.leaves;
        if (starts) finish_copies();
        __syncwarp();
        if (p.z_stride)
          route(p, z_rows, p.z_stride, rows, thresholds, first + chunk, count, mu);
        else
          route(p, z + row * f.d, f.d, rows, thresholds, first + chunk, count, mu);
        __syncwarp();
        if (ends) stage_rows(p, z, next, z_rows);
        if (outputs > 64)
          multiply<kQuads>(mu, staged + chunk * kLeafStride, count, sums);
        else if (outputs > 32)
          multiply<2>(mu, staged + chunk * kLeafStride, count, sums);
        else
          multiply<1>(mu, staged + chunk * kLeafStride, count, sums);
      }
    }
    write(p, sums, rows, outputs, p.out + (entry * f.n + row) * f.d_out + column);
    row = next;
  }
  finish_copies();
}

int64_t shared_bytes(int group, int warps, int z_stride) {
  return int64_t(sizeof(float)) * (group * kLeafStride + warps * kRows * (kMuStride + z_stride));
}

// Warps and leaves of a block: all leaves if at least 4 warps still fit, else 48 at a time; the most warps that fit and
// have work.
void plan(Forward& p, const Device& device) {
  const int64_t limit = shared_limit(device.capability), all = divide_up(p.trees.leaves, kChunk) * kChunk;
  const int64_t row_tiles = divide_up(p.forest.n, kRows) * p.forest.batch * p.output_blocks;
  const int useful = int(std::clamp<int64_t>(divide_up(row_tiles, device.multiprocessors), 4, kWarps));
  p.group = int(all <= limit / int64_t(sizeof(float) * kLeafStride) ? all : kChunk);
  if (shared_bytes(p.group, 4, p.z_stride) > limit) p.group = kChunk;
  p.warps = useful;
  while (p.warps > 1 && shared_bytes(p.group, p.warps, p.z_stride) > limit) --p.warps;
  p.tiles = divide_up(p.forest.n, p.warps * kRows);
  p.parts = int(std::clamp<int64_t>(device.multiprocessors / (p.forest.batch * p.output_blocks), 1, p.tiles));
}

}  // namespace

void soft_forest_cuda(const SoftForest<float>& forest, float* out, void* stream) {
  if (forest.batch == 0 || forest.n == 0 || forest.d_out == 0) return;
  const std::string what = describe("soft_forest", forest);
  check_sizes(forest, what);
  SoftForest<float> f = forest;
  if (f.thresholds_stride == 0 && f.leaves_stride == 0 && f.z_stride == f.n * f.d) {  // one forest, one long entry
    f.n *= f.batch;
    f.batch = 1;
  }
  Forward p{.forest = f, .trees = Trees(f), .out = out};
  p.output_blocks = int(divide_up(f.d_out, kOutputs));
  p.z_stride = f.d <= kStagedFeatures ? padded_stride(f.d) : 0;
  p.z_vector = aligned(f.z, f.d, f.z_stride);
  p.leaf_vector = aligned(f.leaves, f.d_out, f.leaves_stride);
  p.out_vector = aligned(out, f.d_out, 0);
  plan(p, current_device());
  const size_t shared = size_t(shared_bytes(p.group, p.warps, p.z_stride));
  launch({what, f.batch * p.output_blocks * p.parts, p.warps * 32, shared, stream}, forward_kernel, p);
}

}  // namespace otk
