// cuda_adam.h - one leaf's Adam step, its share of a route, and Adam's powers of beta, on the device.
#pragma once
#include "common/cuda.h"
#include "fit_transport/fit_transport.h"

namespace otk {

__device__ inline void adam(float grad, float& leaf, float& exp_avg, float& exp_avg_sq, const AdamStep<float>& s) {
  exp_avg += s.beta1_share * (grad - exp_avg);
  exp_avg_sq = s.beta2_share * grad * grad + s.beta2 * exp_avg_sq;
  leaf -= s.step_size * exp_avg / (sqrtf(exp_avg_sq) / s.root + s.eps);
}

// Weight of leaf k (counted through all trees) for the point z [d]: the product of the shares on its way, without 1/T.
__device__ inline float route(const FitTransport<float>& p, const float* z, const float* thresholds, int64_t k) {
  const int64_t nodes = (int64_t(1) << p.depth) - 1, first = (k >> p.depth) * nodes;
  float mu = 1.0f;
  int64_t node = 0;
  for (int64_t level = p.depth - 1; level >= 0; --level) {
    const int64_t right = k >> level & 1, at = first + node;
    const float logit = z[at % p.d] - thresholds[at], e = expf(-fabsf(logit)), larger = 1.0f / (1.0f + e);
    mu *= (logit < 0.0f) != (right != 0) ? e * larger : larger;
    node = 2 * node + 1 + right;
  }
  return mu;
}

// beta^t, one multiplication a step; the first from the counter of steps taken so far.
struct AdamPowers {
  double power1, power2;

  __device__ AdamPowers(const Adam& a, float steps)
      : power1(pow(a.beta1, double(steps))), power2(pow(a.beta2, double(steps))) {}

  __device__ AdamStep<float> next(const Adam& a) {
    power1 *= a.beta1;
    power2 *= a.beta2;
    return {a, power1, power2};
  }
};

// The lowest cost offered and the lowest index that has it; a NaN wins, with index -1. index -1: nothing yet.
struct Nearest {
  float cost;
  int64_t index;
  bool nan;

  __device__ void offer(float other, int64_t j) {
    nan |= other != other;
    if (index < 0 || other < cost || (other == cost && j < index)) cost = other, index = j;
  }

  // Of all lanes of a warp, or of its halves, for widest = 8; in each lane.
  __device__ void join(int widest = 16) {
    for (int step = widest; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(~0u, cost, step);
      const long long j = __shfl_xor_sync(~0u, static_cast<long long>(index), step);
      const int bad = __shfl_xor_sync(~0u, static_cast<int>(nan), step);
      if (j >= 0) offer(other, j);
      nan |= bad != 0;
    }
    if (nan) index = -1, cost = __int_as_float(0x7fc00000);
  }
};

__device__ inline float warp_sum(float v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(~0u, v, step);
  return v;
}

}  // namespace otk
