// product.h - how the candidates' inner products are formed, and what each way may err by.
//
// Plain multiplies in T. Bf16 rounds the moved points to bfloat16, which AVX512_BF16 multiplies at twice the rate. Products
// of bfloat16 are exact in float32. What rounding a point lost, r = x' - h(x'), is known when it is packed (x' and h(x')
// are float32, so is their difference), so by Cauchy and Schwarz, and since |r| <= 2^-8 |x'|,
//     |x' . y' - h(x') . h(y')| = |r_x . y' + h(x') . r_y| <= (1 + 2^-8) (|r_x| |y'| + |x'| |r_y|).
// The norms are measured, not bounded: that is 2.5 times tighter on normal points than 2^-8 (|x'|^2 + |y'|^2). The
// instruction takes subnormals for zero: 2^-126 |y'_k| at most, which is below 2^-24 |y'|^2 + 2^-230, and flushes
// subnormal sums, which kFlush covers.
//
// Split bfloat16 (high and low parts, three products) would cost 3/2 of float32's products and be no more exact, so there
// is no third way.
#pragma once
#include <limits>

#include "common/pack.h"
#include "common/tile.h"

namespace otk::OTK_ISA {

// Squared norms of `lanes` points, and of what rounding took from them.
template <class T>
struct Norms {
  vec<T> squares, lost;
};

template <class T>
struct Plain {
  static constexpr bool kRounds = false;
  static constexpr T kFlush = std::numeric_limits<T>::denorm_min();

  static int64_t words(int64_t d) { return d; }

  // Words [k, k + lanes) of one point moved by -centre; adds the squares of its coordinates, lane by lane.
  template <class Load>
  static vec<T> fetch(const T* row, const T* centre, int64_t k, vec<T>& squares, vec<T>&, Load&& load_at) {
    const vec<T> moved = load_at(row, k) - load_at(centre, k);
    squares += moved * moved;
    return moved;
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

  template <class Load>
  static vec<float> fetch(const float* row, const float* centre, int64_t word, vec<float>& squares, vec<float>& lost,
                          Load&& load_at) {
    const int64_t k = 2 * word, next = k + simd<float>::lanes;
    const vec<float> low = load_at(row, k) - load_at(centre, k), high = load_at(row, next) - load_at(centre, next);
    squares += low * low + high * high;
    const __m512bh rounded = _mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    const vec<float> low_lost = low - (vec<float>)_mm512_cvtpbh_ps((__m256bh)_mm512_castsi512_si256((__m512i)rounded));
    const vec<float> high_lost =
        high - (vec<float>)_mm512_cvtpbh_ps((__m256bh)_mm512_extracti64x4_epi64((__m512i)rounded, 1));
    lost += low_lost * low_lost + high_lost * high_lost;
    return (vec<float>)rounded;
  }

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

// Packs points [first, first + lanes) of the `count` that there are, point r at row_at(r), moved by -centre; panels are
// `width` points wide. Lane r of the result is of point first + r.
template <class Product, int width, class T, class RowAt>
inline Norms<T> pack_points(RowAt&& row_at, int64_t first, int64_t count, int64_t d, const T* centre, T* panels) {
  constexpr int L = simd<T>::lanes;
  vec<T> squares[L] = {}, lost[L] = {};
  const T* row[L];
#pragma GCC unroll 16
  for (int r = 0; r < L; ++r) row[r] = first + r < count ? row_at(first + r) : nullptr;
  if (first + L <= count && d % (2 * L) == 0)
    pack_block<T, width>(first, Product::words(d), panels, [&](int r, int64_t k) {
      return Product::fetch(row[r], centre, k, squares[r], lost[r], [](const T* p, int64_t at) { return load<T>(p + at); });
    });
  else
    pack_block<T, width>(first, Product::words(d), panels, [&](int r, int64_t k) {
      if (!row[r]) return vec<T>{};
      return Product::fetch(row[r], centre, k, squares[r], lost[r],
                            [d](const T* p, int64_t at) { return load_tail<T>(p, at, d); });
    });
  if constexpr (Product::kRounds) return {sum_each<T>(squares), sum_each<T>(lost)};
  return {sum_each<T>(squares), vec<T>{}};
}

}  // namespace otk::OTK_ISA
