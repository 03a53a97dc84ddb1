// cuda_reduce.cu - adds the blocks' partial gradients: in order within 8 slices of the parts, then in order of the slices.
// Not yet run on a GPU.
#include "soft_forest/cuda_partials.h"

namespace otk::forest {
namespace {

constexpr int kSlices = 8, kReduced = 32;

__global__ void __launch_bounds__(kSlices* kReduced)
    reduce_kernel(const __grid_constant__ Partials p, const float* data, float* grad_thresholds, float* grad_leaves,
                  int64_t blocks) {
  const int64_t entry = int64_t(blockIdx.x) / blocks, leaves = int64_t(p.leaves) * p.width;
  const int64_t e = int64_t(blockIdx.x) % blocks * kReduced + int(threadIdx.x) % kReduced;
  const int slice = int(threadIdx.x) / kReduced;
  float sum = 0;
  if (e < leaves + p.nodes) {
    const float* from = data + entry * p.parts * p.size + e;
#pragma unroll 8
    for (int part = slice; part < p.parts; part += kSlices) sum += from[part * p.size];
  }
  float* sums = shared_memory<float>();  // [kSlices, kReduced]
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (slice > 0 || e >= leaves + p.nodes) return;
  for (int s = 1; s < kSlices; ++s) sum += sums[s * kReduced + int(threadIdx.x)];
  if (e >= leaves)
    grad_thresholds[entry * p.nodes + e - leaves] = sum;
  else if (e % p.width < p.d_out)
    grad_leaves[(entry * p.leaves + e / p.width) * p.d_out + e % p.width] = sum * p.scale;
}

}  // namespace

void reduce(const Partials& p, const float* data, float* grad_thresholds, float* grad_leaves, const std::string& what,
            void* stream) {
  const int64_t blocks = divide_up(int64_t(p.leaves) * p.width + p.nodes, kReduced);
  if (blocks == 0) return;
  launch({what, p.batch * blocks, kSlices * kReduced, sizeof(float) * kSlices * kReduced, stream}, reduce_kernel, p, data,
         grad_thresholds, grad_leaves, blocks);
}

}  // namespace otk::forest
