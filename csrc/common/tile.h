// tile.h - the register tile that every product here runs on: kRows x kCols outer products, held in registers.
//
//   acc[i][c] += sum_k a[i, k] * b[k, c],   i < kRows, c < kCols (2 vectors)
//
// Operands are packed in panels: a[k * AK + i * AI], b[k * b_step + c]. 8 x 2 accumulators keep the multiply-add units of
// AVX-512 and AVX2 machines busy (4 cycles of latency, at most 2 a cycle), and 8 divides the sizes that people use.
#pragma once
#include <algorithm>

#include "common/simd.h"

namespace otk::OTK_ISA {

#if defined(__AVX512F__)
inline constexpr int kRows = 8;
#else
inline constexpr int kRows = 4;  // 16 vector registers: 8 accumulators, 2 of b, the rest for a
#endif

template <class T>
inline constexpr int kCols = 2 * simd<T>::lanes;

template <class T>
struct Tile {
  vec<T> acc[kRows][2];

  void zero() {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) acc[i][0] = acc[i][1] = vec<T>{};
  }

  template <int AI, int AK>
  void multiply_add(const T* a, const T* b, int64_t steps, int64_t b_step) {
    for (int64_t k = 0; k < steps; ++k, a += AK, b += b_step) {
      const vec<T> b0 = load<T>(b), b1 = load<T>(b + simd<T>::lanes);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        acc[i][0] += a[i * AI] * b0;
        acc[i][1] += a[i * AI] * b1;
      }
    }
  }
};

}  // namespace otk::OTK_ISA
