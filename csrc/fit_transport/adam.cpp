// adam.cpp - torch.optim.Adam(fused=True)'s arithmetic, compiled without contraction so that each fused multiply-add is one
// that torch's vector code makes: lerp is fma(weight, g - m, m) for weights below a half, v is fma((1 - b2) g, g, b2 v).
// (torch's other variants differ in the last bit of some square roots, which they take from a vector library.)
#include "fit_transport/adam.h"

namespace otk::OTK_ISA {
namespace {

template <class T>
inline T multiply_add(T a, T b, T c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

}  // namespace

template <class T>
void adam(int64_t count, const T* __restrict grad, T* __restrict leaf, T* __restrict exp_avg, T* __restrict exp_avg_sq,
          const AdamStep<T>& step) {
  const AdamStep<T> s = step;
  const bool small = s.beta1_share < T(0.5);
  for (int64_t k = 0; k < count; ++k) {
    const T g = grad[k], difference = g - exp_avg[k];
    const T m =
        small ? multiply_add(s.beta1_share, difference, exp_avg[k]) : multiply_add(-difference, 1 - s.beta1_share, g);
    const T v = multiply_add(s.beta2_share * g, g, exp_avg_sq[k] * s.beta2);
    exp_avg[k] = m;
    exp_avg_sq[k] = v;
    leaf[k] = leaf[k] + -s.step_size * m / (std::sqrt(v) / s.root + s.eps);
  }
}

template void adam<float>(int64_t, const float*, float*, float*, float*, const AdamStep<float>&);
template void adam<double>(int64_t, const double*, double*, double*, double*, const AdamStep<double>&);

}  // namespace otk::OTK_ISA
