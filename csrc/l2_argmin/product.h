// product.h - how the candidates' inner products are formed, and what each way may err by.
//
// Plain multiplies in T. Bf16 rounds the moved points to bfloat16 h(x), which AVX512_BF16 multiplies at twice the rate;
// products of bfloat16 are exact in float32, so the only further error is
//     |x' . y' - h(x) . h(y)| <= |x'| |y' - h(y)| + |x' - h(x)| |h(y)|,
// a few thousandths of |x'| |y'| at worst and measured point by point: `residual` is |x' - h(x)|. The instruction takes
// subnormals for zero, so h does too, and flushes subnormal sums, which `kFlush` covers.
#pragma once
#include <cmath>
#include <limits>

#include "common/pack.h"
#include "common/tile.h"

namespace otk::OTK_ISA {

// Squared norm and squared residual norm of `lanes` points, lane by lane.
template <class T>
struct Sizes {
  vec<T> norm, residual;
};

// lane r of the result is the sum of rows[r]'s lanes.
template <class T>
inline vec<T> sum_rows(vec<T>* rows) {
  transpose<T>(rows);
  vec<T> sum = rows[0];
#pragma GCC unroll 16
  for (int l = 1; l < simd<T>::lanes; ++l) sum += rows[l];
  return sum;
}

template <class T>
struct Plain {
  static constexpr bool kRounds = false;
  static constexpr T kFlush = std::numeric_limits<T>::denorm_min();

  static int64_t words(int64_t d) { return d; }

  // Packs points [first, first + lanes) of `rows` (dense, count of them from the panels' start), moved by -centre.
  template <int width>
  static Sizes<T> pack(const T* rows, int64_t first, int64_t count, int64_t d, const T* centre, T* panels) {
    constexpr int L = simd<T>::lanes;
    vec<T> norm[L] = {};
    pack_block<T, width>(first, d, panels, [&](int r, int64_t k) {
      if (first + r >= count) return vec<T>{};
      const vec<T> moved = load_tail<T>(rows + (first + r) * d, k, d) - load_tail<T>(centre, k, d);
      norm[r] += moved * moved;
      return moved;
    });
    return {sum_rows<T>(norm), vec<T>{}};
  }

  static void multiply_add(Tile<T>& tile, const T* a, const T* b, int64_t words) {
    tile.template multiply_add<1, kRows>(a, b, words, kCols<T>);
  }
};

#if defined(__AVX512BF16__)
struct Bf16 {
  static constexpr bool kRounds = true;
  static constexpr float kFlush = 2 * std::numeric_limits<float>::min();

  static int64_t words(int64_t d) { return (d + 1) / 2; }

  template <int width>
  static Sizes<float> pack(const float* rows, int64_t first, int64_t count, int64_t d, const float* centre, float* panels) {
    constexpr int L = simd<float>::lanes;
    vec<float> norm[L] = {}, residual[L] = {};
    const bool whole = first + L <= count && d % (2 * L) == 0;
    const auto fetch = [&](auto load_at, int r, int64_t word) {
      if (first + r >= count) return vec<float>{};
      const float* row = rows + (first + r) * d;
      const int64_t k = 2 * word;
      const vec<float> low = load_at(row, k) - load_at(centre, k), high = load_at(row, k + L) - load_at(centre, k + L);
      const __m512i pairs = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
      const vec<float> low_error = low - widen(_mm512_castsi512_si256(pairs));
      const vec<float> high_error = high - widen(_mm512_extracti64x4_epi64(pairs, 1));
      norm[r] += low * low + high * high;
      residual[r] += low_error * low_error + high_error * high_error;
      return (vec<float>)pairs;
    };
    if (whole)
      pack_block<float, width>(first, words(d), panels, [&](int r, int64_t word) {
        return fetch([](const float* p, int64_t k) __attribute__((always_inline)) { return load<float>(p + k); }, r, word);
      });
    else
      pack_block<float, width>(first, words(d), panels, [&](int r, int64_t word) {
        return fetch([d](const float* p, int64_t k) { return load_tail<float>(p, k, d); }, r, word);
      });
    return {sum_rows<float>(norm), sum_rows<float>(residual)};
  }

  static vec<float> widen(__m256i bf16) { return (vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16); }

  static void multiply_add(Tile<float>& tile, const float* a, const float* b, int64_t words) {
    for (int64_t k = 0; k < words; ++k, a += kRows, b += kCols<float>) {
      const __m512bh b0 = (__m512bh)load<float>(b), b1 = (__m512bh)load<float>(b + simd<float>::lanes);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const __m512bh pair = (__m512bh)_mm512_set1_ps(a[i]);
        tile.acc[i][0] = (vec<float>)_mm512_dpbf16_ps((__m512)tile.acc[i][0], pair, b0);
        tile.acc[i][1] = (vec<float>)_mm512_dpbf16_ps((__m512)tile.acc[i][1], pair, b1);
      }
    }
  }
};
#endif

}  // namespace otk::OTK_ISA
