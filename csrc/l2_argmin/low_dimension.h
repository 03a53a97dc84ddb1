// low_dimension.h - l2_argmin for d <= 4, where a distance summed from differences costs no more than its bookkeeping.
//
// y lies in planes (coordinate after coordinate), kLowRows rows of x pass over it together; each lane keeps the lowest cost
// that it saw and where, so a tie goes to the earlier column. Finite input only: then no cost is NaN, and an infinite one
// (overflow) is never below the initial +inf at column 0.
#pragma once
#include <algorithm>
#include <limits>

#include "l2_argmin/panels.h"

namespace otk::OTK_ISA {

inline constexpr int64_t kLowDimension = 4;
inline constexpr int64_t kLowChunk = 16384;  // columns at a time: their planes stay in L2
inline constexpr int kLowRows = 4;

template <class T>
inline bool all_finite(const T* values, int64_t count) {
  vec<T> sum{};  // inf - inf and NaN - NaN are NaN, the rest 0
  int64_t k = 0;
  for (; k + simd<T>::lanes <= count; k += simd<T>::lanes) {
    const vec<T> v = load<T>(values + k);
    sum += v - v;
  }
  T rest = sum_lanes<T>(sum);
  for (; k < count; ++k) rest += values[k] - values[k];
  return rest == 0;
}

template <class T>
bool finite(const Points<T>& p) {
  return all_finite(p.x, p.n * p.d) && all_finite(p.y, p.m * p.d) && (!p.potential || all_finite(p.potential, p.m));
}

// The costs of x [d] and a vector of columns, whose first plane is at `columns`. One place, so that all ops sum alike.
template <int d, class T>
inline vec<T> plane_costs(const T* x, const T* columns, int64_t plane, vec<T> taken) {
  vec<T> cost{};
#pragma GCC unroll 4
  for (int k = 0; k < d; ++k) {
    const vec<T> difference = x[k] - load<T>(columns + k * plane);
    cost = k ? cost + difference * difference : difference * difference;
  }
  return cost - taken;
}

// The lowest cost of kLowRows rows over `count` columns, which start at column `start`; improves value and index.
template <int d, class T>
void scan_planes(const T* x, const T* planes, int64_t plane, const T* offset, int64_t start, int64_t count, T* value,
                 int64_t* index) {
  constexpr int L = simd<T>::lanes;
  using Ints = typename simd<T>::ints;
  vec<T> best[kLowRows];
  Ints where[kLowRows] = {}, column;
  for (int l = 0; l < L; ++l) column[l] = l;
  for (int r = 0; r < kLowRows; ++r) best[r] = broadcast<T>(std::numeric_limits<T>::infinity());
  for (int64_t j = 0; j < count; j += L, column += L) {
    const vec<T> taken = load<T>(offset + j);
#pragma GCC unroll 8
    for (int r = 0; r < kLowRows; ++r) {
      const vec<T> cost = plane_costs<d, T>(x + r * d, planes + j, plane, taken);
      const auto lower = cost < best[r];
      best[r] = lower ? cost : best[r];
      where[r] = lower ? column : where[r];
    }
  }
  for (int r = 0; r < kLowRows; ++r)
    for (int l = 0; l < L; ++l) {
      const int64_t j = start + where[r][l];
      if (best[r][l] < value[r] || (best[r][l] == value[r] && j < index[r])) value[r] = best[r][l], index[r] = j;
    }
}

// All rows of finite x [n, d] against finite y [m, d].
template <int d, class T>
void solve_low(const T* x, const T* y, const T* potential, T* value, int64_t* index, int64_t n, int64_t m, int threads) {
  constexpr int L = simd<T>::lanes;
  const int64_t plane = (std::min(m, kLowChunk) + L - 1) / L * L;
  Scratch<T> scratch((d + 1) * plane);
  T *planes = scratch.get(), *offset = planes + d * plane;
  for (int64_t i = 0; i < n; ++i) value[i] = std::numeric_limits<T>::infinity(), index[i] = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  for (int64_t start = 0; start < m; start += kLowChunk) {
    const int64_t count = std::min(kLowChunk, m - start);
#pragma omp for schedule(static)
    for (int64_t j = 0; j < (count + L - 1) / L * L; ++j) {
      // past the end: copies of the last column, which can only tie with it and lose the tie
      const int64_t from = start + std::min(j, count - 1);
      for (int k = 0; k < d; ++k) planes[k * plane + j] = y[from * d + k];
      offset[j] = potential ? potential[from] : T(0);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n; i += kLowRows) {
      T rows[kLowRows * d], low[kLowRows];
      int64_t at[kLowRows];
      for (int r = 0; r < kLowRows; ++r) {
        const int64_t row = std::min(i + r, n - 1);
        for (int k = 0; k < d; ++k) rows[r * d + k] = x[row * d + k];
        low[r] = value[row], at[r] = index[row];
      }
      scan_planes<d, T>(rows, planes, plane, offset, start, count, low, at);
      for (int r = 0; r < std::min<int64_t>(kLowRows, n - i); ++r) value[i + r] = low[r], index[i + r] = at[r];
    }
  }
}

}  // namespace otk::OTK_ISA
