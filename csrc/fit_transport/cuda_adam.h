// cuda_adam.h - one leaf's Adam step, its share of a route, and Adam's powers of beta, on the device.
#pragma once
#include <limits>

#include "common/cuda.h"
#include "fit_transport/fit_transport.h"

namespace otk {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct LeafState {
  float leaf, exp_avg, exp_avg_sq;
};

// x / divisor as IEEE 754 rounds it, given inverse = 1 / divisor rounded: four instructions and no branch. For a divisor of
// Adam's, in [2^-27, 1], and x >= 0 that is zero, at least 2^-75, infinite or NaN. near + remainder * inverse is within
// 2^-46 of the quotient, so only quotients as close to the middle of two floats could round differently: none does, as the
// test enumerates.
__device__ inline float divide(float x, float divisor, float inverse) {
  const float near = x * inverse;
  return near < kInfinity ? __fmaf_rn(__fmaf_rn(-divisor, near, x), inverse, near) : near;
}

// By value: a store through one of three references may change what the others name, so the next leaf's loads would wait.
__device__ inline LeafState adam(float grad, const LeafState& before, const AdamStep<float>& s) {
  LeafState after;
  after.exp_avg = before.exp_avg + s.beta1_share * (grad - before.exp_avg);
  after.exp_avg_sq = s.beta2_share * grad * grad + s.beta2 * before.exp_avg_sq;
  after.leaf =
      before.leaf - s.step_size * after.exp_avg / (divide(sqrtf(after.exp_avg_sq), s.root, s.root_inverse) + s.eps);
  return after;
}

// Weight of leaf k (counted through all trees) for the point z [d]: the product of the shares on its way, without 1/T.
// Int counts nodes and features: 32 bits are enough where shared memory holds the forest, and divide faster.
template <class Int>
__device__ float route(const FitTransport<float>& p, const float* z, const float* thresholds, Int k) {
  const Int nodes = (Int(1) << p.depth) - 1, first = (k >> p.depth) * nodes, features = Int(p.d);
  float mu = 1.0f;
  Int node = 0;
  for (Int level = Int(p.depth) - 1; level >= 0; --level) {
    const Int right = k >> level & 1, at = first + node;
    const float logit = z[at % features] - thresholds[at], e = expf(-fabsf(logit)), larger = 1.0f / (1.0f + e);
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

__device__ inline float warp_sum(float v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(~0u, v, step);
  return v;
}

}  // namespace otk
