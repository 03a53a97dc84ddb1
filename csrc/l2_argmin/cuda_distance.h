// cuda_distance.h - |x_i - y_j|^2 from differences, four lanes to a pair, in one fixed order.
//
// Lane q of the four takes coordinates 16 t + 4 q .. 16 t + 4 q + 3 for t = 0, 1, ..: one chain of fused multiply-adds;
// then (0 + 1) + (2 + 3). Vector loads change no bit. Every kernel for d > kLowDimension sums in this order, so a pair
// has one cost.
#pragma once
#include "common/cuda.h"

namespace otk::l2 {

// Whether rows of d floats a stride apart can be read four at a time.
inline bool aligned_rows(const float* p, int64_t d, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && d % 4 == 0 && stride % 4 == 0;
}

// Coordinates k .. k + 3, zero from d on; k < d.
template <bool kVector>
__device__ inline float4 load4(const float* row, int k, int d) {
  if constexpr (kVector) return __ldg(reinterpret_cast<const float4*>(row + k));
  return make_float4(__ldg(row + k), k + 1 < d ? __ldg(row + k + 1) : 0.0f, k + 2 < d ? __ldg(row + k + 2) : 0.0f,
                     k + 3 < d ? __ldg(row + k + 3) : 0.0f);
}

__device__ inline float add_squares(float sum, float4 a, float4 b) {
  const float x = a.x - b.x, y = a.y - b.y, z = a.z - b.z, w = a.w - b.w;
  return __fmaf_rn(w, w, __fmaf_rn(z, z, __fmaf_rn(y, y, __fmaf_rn(x, x, sum))));
}

// Called by all lanes of a warp; each lane of a quad gets the same bits.
__device__ inline float sum_quad(float sum) {
  sum += __shfl_xor_sync(~0u, sum, 1);
  return sum + __shfl_xor_sync(~0u, sum, 2);
}

template <bool kVector>
__device__ inline float squared_distance(const float* x, const float* y, int d) {
  float sum = 0;
  for (int k = threadIdx.x % 4 * 4; k < d; k += 16)
    sum = add_squares(sum, load4<kVector>(x, k, d), load4<kVector>(y, k, d));
  return sum_quad(sum);
}

}  // namespace otk::l2
