// cuda_reduce.cu - adds the blocks' partial gradients: those of leaves and nodes in order within up to 8 slices of the
// parts, then in order of the slices; those of rows in order of the ranges.
// Not yet run on a GPU.
#include "soft_forest/cuda_partials.h"
#include "soft_forest/cuda_products.h"

namespace otk::forest {
namespace {

constexpr int kThreads = 256, kSlices = 8;

__global__ void __launch_bounds__(kThreads)
    reduce_kernel(const __grid_constant__ Partials p, const __grid_constant__ Trees trees,
                  const __grid_constant__ Groups groups, const float* data, float* grad_thresholds, float* grad_leaves,
                  int64_t nodes, int slices, int64_t blocks) {
  const int reduced = kThreads / slices, slice = int(threadIdx.x) / reduced;
  const int64_t entry = int64_t(blockIdx.x) / blocks;
  const int64_t e = int64_t(blockIdx.x) % blocks * reduced + int(threadIdx.x) % reduced;
  const float* from = data + entry * p.parts * p.size;
  float sum = 0;
  if (e < p.leaf_sums) {
#pragma unroll 8
    for (int part = slice; part < p.parts; part += slices) sum += from[part * p.size + e];
  } else if (e < p.leaf_sums + nodes) {
    const Place place = place_of(trees, groups, int(e - p.leaf_sums));
    const float* first = from + p.leaf_sums + int64_t(place.group) * kListed + place.x;
#pragma unroll 8
    for (int64_t k = slice; k < int64_t(p.parts) << place.levels; k += slices)
      sum += first[(k >> place.levels) * p.size + (k & ((1 << place.levels) - 1)) * kListed];
  }
  float* sums = shared_memory<float>();  // [slices, reduced]
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (slice > 0 || e >= p.leaf_sums + nodes) return;
  for (int s = 1; s < slices; ++s) sum += sums[s * reduced + int(threadIdx.x)];
  if (e >= p.leaf_sums) {
    grad_thresholds[entry * nodes + e - p.leaf_sums] = sum;
    return;
  }
  const int64_t leaf = SumsLayout{p.width}.leaf(e);
  const int output = SumsLayout{p.width}.output(e);
  if (leaf < trees.leaves && output < p.d_out)
    grad_leaves[(entry * trees.leaves + leaf) * p.d_out + output] = sum * trees.scale;
}

// `size` floats of an entry; its rows of the pass start at `first` of `result_size`.
__global__ void __launch_bounds__(kThreads)
    reduce_rows_kernel(const float* data, int64_t batch, int64_t pass_size, int ranges, float* result, int64_t result_size,
                       int64_t first, int64_t size, float scale, int64_t blocks) {
  const int64_t entry = int64_t(blockIdx.x) / blocks;
  const int64_t e = int64_t(blockIdx.x) % blocks * kThreads + int(threadIdx.x);
  if (e >= size) return;
  const float* from = data + entry * pass_size + e;
  float sum = 0;
#pragma unroll 8
  for (int range = 0; range < ranges; ++range) sum += from[range * batch * pass_size];
  result[entry * result_size + first + e] = sum * scale;
}

}  // namespace

void reduce(const Partials& p, const Trees& trees, const float* data, float* grad_thresholds, float* grad_leaves,
            const What& what, void* stream) {
  int slices = 1;
  while (2 * slices <= std::min(p.parts, kSlices)) slices *= 2;
  const int64_t nodes = int64_t(trees.leaves >> trees.depth) * trees.nodes;
  const int64_t blocks = divide_up(p.leaf_sums + nodes, kThreads / slices);
  if (blocks == 0) return;
  launch({what, p.batch * blocks, kThreads, sizeof(float) * kThreads, stream}, reduce_kernel, p, trees, Groups(trees), data,
         grad_thresholds, grad_leaves, nodes, slices, blocks);
}

void reduce_rows(const RowSums& sums, int ranges, int64_t batch, int64_t n, float scale, float* result, const What& what,
                 void* stream) {
  const int64_t size = std::min(sums.rows, n - sums.first) * sums.width, blocks = divide_up(size, kThreads);
  if (blocks == 0) return;
  launch({what, batch * blocks, kThreads, 0, stream}, reduce_rows_kernel, sums.data, batch, sums.rows * sums.width, ranges,
         result, n * sums.width, sums.first * sums.width, size, scale, blocks);
}

}  // namespace otk::forest
