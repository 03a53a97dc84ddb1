// cuda_forward.cu - soft_forest as one product of routing weights, made on the fly, with the leaves.
//
// Work      a block stages up to `group` leaves [group, 128 outputs] and then works warp by warp, without barriers: a
//           warp owns 16 rows, routes them through 48 leaves at a time (a lane: one row, one subtree of 8 leaves) into
//           its own corner of shared memory and multiplies on the tensor cores (tf32.h), 16 x 128 sums in 64 registers
//           per lane. Blocks are persistent, one per multiprocessor, so that all leaves are staged once where they fit
//           (144 leaves of 128 outputs: 74 KB); otherwise the block's warps walk through the groups together. The next
//           rows of z are on their way while the current ones are multiplied. More than 128 outputs: a block for each
//           128. Fewer blocks than multiprocessors share the groups of leaves; a second launch adds their sums, in order.
// Memory    z read once, out written once, from registers. Workspace: the sums of each range of groups if there are
//           several: at most 128 rows of 128 outputs (64 KB) a multiprocessor.
// Speed     a model from SASS of sm_90a (an instruction a cycle and scheduler, 4 cycles a product, 1.755 GHz, 132
//           multiprocessors), of 65536 rows, 18 trees of depth 3, d = d_out = 128: a step of 8 leaves takes 139
//           instructions (48 of them products), a subtree's routing about 310: 27 us. Leaves are split where they are
//           used: both halves in shared memory would need 272 cycles of it for what the products do in 192. 32 rows a
//           warp would save a quarter of a step, but 8 warps of them need 276 KB.
// Fragments a lane (g, t) takes leaves 8 k + 2 t, + 1 as its two steps of the product's depth and outputs 4 g + j of
//           32 as column g of fragment j (any order of summation and of columns serves): loads are 8 and 16 bytes wide,
//           free of bank conflicts by the strides 56 and 132, and each lane ends with 8 neighbouring outputs of two
//           rows.
// Not yet run on a GPU.
#include <algorithm>

#include "soft_forest/cuda_partials.h"

namespace otk {
namespace {

using namespace forest;

constexpr int kRows = 16;         // of a warp
constexpr int kChunk = 48;        // leaves routed at a time
// Of a block: more, where addresses of leaves and of z take no registers from tile to tile.
constexpr int most_warps(bool staged, bool resident) { return staged && resident ? 12 : 8; }
constexpr int kOutputs = 128;     // of a block
constexpr int kQuads = kOutputs / 32;
constexpr int kMuStride = kChunk + 8, kLeafStride = kOutputs + 4;
constexpr int64_t kStagedFeatures = 256;  // wider rows of z are read where they are used

struct Forward {
  SoftForest<float> forest;
  Trees trees;
  RowSums out{};
  int rounds = 0;  // of a warp through tiles of kRows rows
  int warps = 0, group = 0, parts = 0, ranges = 1, output_blocks = 0;
  float scale = 0;

  __device__ int first_leaf(int range) const {
    const int chunks = (trees.leaves + kChunk - 1) / kChunk, first = int(int64_t(range) * chunks / ranges) * kChunk;
    return first < trees.leaves ? first : trees.leaves;
  }
  int z_stride = 0;  // in shared memory, 0: z is not staged
  bool resident = false, z_vector = false, leaf_vector = false, out_vector = false;
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

// Rows from `row` on, which `z` points at.
__device__ void stage_rows(const Forward& p, const float* z, int64_t row, float* to) {
  if (p.z_stride && row < p.forest.n) {
    const int d = int(p.forest.d), rows = int(p.forest.n - row < kRows ? p.forest.n - row : kRows);
    stage(to, p.z_stride, z, d, rows, d, d, p.z_vector, 0, 1);
    stage_ahead(p.trees, to, p.z_stride, z, rows, int(threadIdx.x) % 32, 32);
  }
  commit_copies();
}

// mu [16, kMuStride] of `count` leaves from `first`, zero past the last of all; z rows z_stride apart.
template <bool kStaged>
__device__ void route(const Forward& p, const float* z, int64_t z_stride, int rows, const float* thresholds, int first,
                      int count, float* mu) {
  const int levels = p.trees.levels;
  for (int task = int(threadIdx.x) % 32; task < (count >> levels) * kRows; task += 32) {
    const int row = task % kRows, s = task / kRows, subtree = (first >> levels) + s;
    float weights[kSubtree] = {};
    if (row < rows && subtree << levels < p.trees.leaves) {
      const Row<kStaged> of{p.trees, z + row * z_stride, thresholds};
      weights[0] = of.path(subtree);
      of.descend(subtree, weights, [](int, float, Shares) {});
    }
    store(mu + row * kMuStride + (s << levels), levels, weights);
  }
}

// sums += mu [16, count] leaves [count, 32 kUsed], count a multiple of 8. A branch between fragments would make each wait
// for itself.
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

__device__ __forceinline__ void multiply(const float* mu, const float* leaves, int count, int outputs, Sums& sums) {
  if (outputs > 64)
    multiply<kQuads>(mu, leaves, count, sums);
  else if (outputs > 32)
    multiply<2>(mu, leaves, count, sums);
  else
    multiply<1>(mu, leaves, count, sums);
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
      for (int j = 0; j < 4; ++j) values[j] = sums.of[q][j][part] * p.scale;
      if (p.out_vector) {
        *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
        continue;
      }
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (column + j < outputs) to[j] = values[j];
    }
}

// Leaves [first, first + count) into shared memory, zeros up to whole eighths.
__device__ void stage_leaves(const Forward& p, const float* leaves, int first, int count, int outputs, int warp,
                             float* staged) {
  const int more = (count + 7) / 8 * 8 - count;
  __syncthreads();
  stage(staged, kLeafStride, leaves + int64_t(first) * p.forest.d_out, p.forest.d_out, count, outputs,
        (outputs + 31) / 32 * 32, p.leaf_vector, warp, p.warps);
  stage(staged + count * kLeafStride, kLeafStride, leaves, 0, more, 0, kOutputs, false, warp, p.warps);
  finish_copies();
  __syncthreads();
}

// kStaged: rows of z are in shared memory; kResident: all leaves are, from first to last.
template <bool kStaged, bool kResident>
__global__ void __launch_bounds__(most_warps(kStaged, kResident) * 32, 1)
    forward_kernel(const __grid_constant__ Forward p) {
  const SoftForest<float>& f = p.forest;
  const int part = int(blockIdx.x) % p.parts, range = kResident ? 0 : int(blockIdx.x) / p.parts % p.ranges;
  const int block = int(blockIdx.x) / p.parts / p.ranges, entry = block / p.output_blocks, warp = int(threadIdx.x) / 32;
  const int64_t column = int64_t(block % p.output_blocks) * kOutputs, left = f.d_out - column;
  const int outputs = int(left < kOutputs ? left : kOutputs);
  const auto z = [&](int64_t row) { return f.z + entry * f.z_stride + row * f.d; };
  const float* thresholds = f.thresholds + entry * f.thresholds_stride;
  const float* leaves = f.leaves + entry * f.leaves_stride + column;
  float* staged = shared_memory<float>();                                       // [group, kLeafStride]
  float* mu = staged + p.group * kLeafStride + warp * kRows * (kMuStride + p.z_stride);  // [16, kMuStride]
  float* z_rows = mu + kRows * kMuStride;                                       // [16, z_stride]
  const int start = kResident ? 0 : p.first_leaf(range), end = kResident ? p.trees.leaves : p.first_leaf(range + 1);

  int tile = warp * p.parts + part;  // neighbours go to different blocks, so that the last round is shared by all
  stage_rows(p, z(int64_t(tile) * kRows), int64_t(tile) * kRows, z_rows);
  if (kResident) stage_leaves(p, leaves, 0, end, outputs, warp, staged);
  Sums sums;
  for (int round = 0; round < p.rounds; ++round, tile += p.parts * p.warps) {
    const int64_t row = int64_t(tile) * kRows;
    const int rows = int(row >= f.n ? 0 : f.n - row < kRows ? f.n - row : kRows);
    sums.zero();
    for (int first = start; first < end; first += kChunk) {
      const int here = end - first < kChunk ? end - first : kChunk, count = (here + 7) / 8 * 8;
      if (!kResident) stage_leaves(p, leaves, first, here, outputs, warp, staged);
      if (first == start) finish_copies();
      __syncwarp();
      if (kStaged)
        route<true>(p, z_rows, p.z_stride, rows, thresholds, first, count, mu);
      else
        route<false>(p, z(row), f.d, rows, thresholds, first, count, mu);
      __syncwarp();
      const int64_t next = row + int64_t(p.parts) * p.warps * kRows;
      if (first + kChunk >= end) stage_rows(p, z(next), next, z_rows);
      multiply(mu, staged + (kResident ? first * kLeafStride : 0), count, outputs, sums);
    }
    write(p, sums, rows, outputs, p.out.at(range, f.batch, entry, row) + column);
  }
  finish_copies();
}

int64_t shared_bytes(int group, int warps, int z_stride) {
  return int64_t(sizeof(float)) * (group * kLeafStride + warps * kRows * (kMuStride + z_stride));
}

// Warps and leaves of a block: all leaves if at least 4 warps still fit, else 48 at a time; the most warps that fit and
// have work. Where rows and outputs make fewer blocks than there are multiprocessors, blocks share the groups of leaves.
Forward plan(const SoftForest<float>& forest, const What& what) {
  check_sizes(forest, what);
  SoftForest<float> f = forest;
  if (f.thresholds_stride == 0 && f.leaves_stride == 0 && f.z_stride == f.n * f.d) {  // one forest, one long entry
    f.n *= f.batch;
    f.batch = 1;
    check_sizes(f, what);
  }
  Forward p{.forest = f, .trees = Trees(f)};
  const Device device = current_device();
  p.output_blocks = int(divide_up(f.d_out, kOutputs));
  p.z_stride = f.d <= kStagedFeatures ? padded_stride(f.d + kAhead) : 0;
  const int64_t limit = shared_limit(device.capability), all = divide_up(p.trees.leaves, kChunk) * kChunk;
  const int64_t entries = std::max<int64_t>(1, f.batch * p.output_blocks), row_tiles = divide_up(f.n, kRows) * entries;
  p.group = int(all <= limit / int64_t(sizeof(float) * kLeafStride) ? all : kChunk);
  if (shared_bytes(p.group, 4, p.z_stride) > limit) p.group = kChunk;
  p.resident = p.trees.leaves <= p.group;
  p.warps =
      int(std::clamp<int64_t>(divide_up(row_tiles, device.multiprocessors), 4, most_warps(p.z_stride > 0, p.resident)));
  while (p.warps > 1 && shared_bytes(p.group, p.warps, p.z_stride) > limit) --p.warps;
  const int64_t blocks = device.multiprocessors / entries;  // of an entry and its outputs
  p.parts = int(std::clamp<int64_t>(blocks, 1, std::max<int64_t>(1, divide_up(f.n, p.warps * kRows))));
  p.rounds = int(divide_up(f.n, p.warps * kRows * p.parts));
  p.ranges = int(std::clamp<int64_t>(blocks / p.parts, 1, divide_up(p.trees.leaves, p.group)));
  p.scale = p.ranges > 1 ? 1.0f : p.trees.scale;
  return p;
}

}  // namespace

int64_t soft_forest_cuda_workspace(const SoftForest<float>& forest) {
  const Forward p = plan(forest, describe("soft_forest", forest));
  const SoftForest<float>& f = p.forest;
  return p.ranges > 1 ? int64_t(sizeof(float)) * p.ranges * f.batch * f.n * f.d_out : 0;
}

void soft_forest_cuda(const SoftForest<float>& forest, float* out, void* workspace, void* stream) {
  if (forest.batch == 0 || forest.n == 0 || forest.d_out == 0) return;
  const What what = describe("soft_forest", forest);
  Forward p = plan(forest, what);
  const SoftForest<float>& f = p.forest;
  float* const to = p.ranges > 1 ? static_cast<float*>(workspace) : out;
  p.out = {to, 0, f.n, f.d_out};
  p.z_vector = aligned(f.z, f.d, f.z_stride);
  p.leaf_vector = aligned(f.leaves, f.d_out, f.leaves_stride);
  p.out_vector = aligned(to, f.d_out, 0);
  const size_t shared = size_t(shared_bytes(p.group, p.warps, p.z_stride));
  launch({what, f.batch * p.output_blocks * p.ranges * p.parts, p.warps * 32, shared, stream},
         p.resident   ? p.z_stride ? forward_kernel<true, true> : forward_kernel<false, true>
         : p.z_stride ? forward_kernel<true, false>
                      : forward_kernel<false, false>,
         p);
  if (p.ranges > 1) reduce_rows(p.out, p.ranges, f.batch, f.n, p.trees.scale, out, what, stream);
}

}  // namespace otk
