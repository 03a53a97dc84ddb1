// differences.h - |x_i - y_j|^2 summed from differences: what decides, in the same order for every pair.
#pragma once
#include "common/pack.h"

namespace otk::OTK_ISA {

// What each lane adds up.
template <class T>
inline vec<T> lane_sums(const T* x, const T* y, int64_t d) {
  constexpr int lanes = simd<T>::lanes;
  vec<T> sum[4] = {};
  int64_t k = 0;
  for (; k + 4 * lanes <= d; k += 4 * lanes)
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const vec<T> difference = load<T>(x + k + part * lanes) - load<T>(y + k + part * lanes);
      sum[part] += difference * difference;
    }
  for (; k < d; k += lanes) {
    const vec<T> difference = load_tail<T>(x, k, d) - load_tail<T>(y, k, d);
    sum[0] += difference * difference;
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

template <class T>
inline T squared_distance(const T* x, const T* y, int64_t d) {
  return sum_lanes<T>(lane_sums<T>(x, y, d));
}

// Lane c is squared_distance(x, y[c], d), to the bit.
template <class T>
inline vec<T> squared_distances(const T* x, const T* const* y, int64_t d) {
  constexpr int L = simd<T>::lanes;
  vec<T> sums[L];
  if (d <= L) {  // what lane_sums does there, without its loops: all but one of its sums are zeros
    const vec<T> own = load_tail<T>(x, 0, d);
    for (int c = 0; c < L; ++c) {
      const vec<T> difference = own - load_tail<T>(y[c], 0, d);
      sums[c] = difference * difference;
    }
  } else {
    for (int c = 0; c < L; ++c) sums[c] = lane_sums<T>(x, y[c], d);
  }
  return sum_each<T>(sums);
}

}  // namespace otk::OTK_ISA
