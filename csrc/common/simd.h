// simd.h - one vector width per instruction set, in the compiler's own vector types.
//
// A file that includes this is compiled once per instruction set, with OTK_ISA the set's name and the compiler's own
// macros saying what it has. Everything lives in namespace otk::OTK_ISA, so no inline function of one build can be
// linked into another. Arithmetic, comparisons and blends are the language's; only what it lacks is an intrinsic.
#pragma once
#include <cmath>
#include <cstdint>
#include <utility>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace otk::OTK_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <class T>
struct simd;

template <>
struct simd<float> {
  typedef float vec __attribute__((vector_size(kVectorBytes)));
  typedef float unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t ints __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / 4;
};

template <>
struct simd<double> {
  typedef double vec __attribute__((vector_size(kVectorBytes)));
  typedef double unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t ints __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / 8;
};

template <class T>
using vec = typename simd<T>::vec;

template <class T>
inline vec<T> load(const T* p) {
  return *reinterpret_cast<const typename simd<T>::unaligned*>(p);
}

template <class T>
inline void store(T* p, vec<T> v) {
  *reinterpret_cast<typename simd<T>::unaligned*>(p) = v;
}

template <class T>
inline vec<T> broadcast(T s) {
  return s - vec<T>{};
}

template <class T>
inline vec<T> square_root(vec<T> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (vec<T>)_mm512_maskz_sqrt_ps(__mmask16(-1), (__m512)v);
  else
    return (vec<T>)_mm512_maskz_sqrt_pd(__mmask8(-1), (__m512d)v);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (vec<T>)_mm256_sqrt_ps((__m256)v);
  else
    return (vec<T>)_mm256_sqrt_pd((__m256d)v);
#else
  for (int l = 0; l < simd<T>::lanes; ++l) v[l] = std::sqrt(v[l]);
  return v;
#endif
}

// Bit l is set where !(v[l] < s): NaN counts.
template <class T>
inline uint32_t not_less(vec<T> v, T s) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(s), _CMP_NLT_UQ);
  else
    return _mm512_cmp_pd_mask((__m512d)v, _mm512_set1_pd(s), _CMP_NLT_UQ);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_set1_ps(s), _CMP_NLT_UQ));
  else
    return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)v, _mm256_set1_pd(s), _CMP_NLT_UQ));
#else
  uint32_t mask = 0;
  for (int l = 0; l < simd<T>::lanes; ++l) mask |= uint32_t(!(v[l] < s)) << l;
  return mask;
#endif
}

template <class T, int... lane>
inline void interleave(vec<T> a, vec<T> b, vec<T>& low, vec<T>& high, std::integer_sequence<int, lane...>) {
  constexpr int L = simd<T>::lanes;
  low = __builtin_shufflevector(a, b, (lane / 2 + lane % 2 * L)...);
  high = __builtin_shufflevector(a, b, (L / 2 + lane / 2 + lane % 2 * L)...);
}

// Transposes a lanes x lanes block in place: log2(lanes) rounds of interleaving halves.
template <class T>
inline void transpose(vec<T>* rows) {
  constexpr int L = simd<T>::lanes;
#pragma GCC unroll 4
  for (int round = 1; round < L; round *= 2) {
    vec<T> next[L];
#pragma GCC unroll 16
    for (int i = 0; i < L / 2; ++i)
      interleave<T>(rows[i], rows[i + L / 2], next[2 * i], next[2 * i + 1], std::make_integer_sequence<int, L>());
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) rows[i] = next[i];
  }
}

template <int step, class V, int... lane>
inline V rotate(V v, std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(v, v, ((lane + step) % int(sizeof...(lane)))...);
}

// The largest lane; where lanes are NaN, some lane or NaN.
template <class T, int step = simd<T>::lanes / 2>
inline T max_lane(vec<T> v) {
  if constexpr (step == 0) {
    return v[0];
  } else {
    const vec<T> other = rotate<step>(v, std::make_integer_sequence<int, simd<T>::lanes>());
    return max_lane<T, step / 2>(v > other ? v : other);
  }
}

// The sum of the lanes, always in the same order: halves onto each other.
template <class T, int step = simd<T>::lanes / 2>
inline T sum_lanes(vec<T> v) {
  if constexpr (step == 0)
    return v[0];
  else
    return sum_lanes<T, step / 2>(v + rotate<step>(v, std::make_integer_sequence<int, simd<T>::lanes>()));
}

// Halves every group of 2 * width lanes of a, then of b, and adds each half to its other: groups of `width` lanes remain.
template <class T, int width, int... lane>
inline vec<T> add_halves(vec<T> a, vec<T> b, std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(a, b, (lane / width * 2 * width + lane % width)...) +
         __builtin_shufflevector(a, b, (lane / width * 2 * width + lane % width + width)...);
}

// Lane r of the result is sum_lanes(rows[r]), to the bit, for `lanes` rows; overwrites them.
template <class T, int width = simd<T>::lanes / 2>
inline vec<T> sum_each(vec<T>* rows) {
#pragma GCC unroll 8
  for (int r = 0; r < width; ++r)
    rows[r] = add_halves<T, width>(rows[2 * r], rows[2 * r + 1], std::make_integer_sequence<int, simd<T>::lanes>());
  if constexpr (width > 1)
    return sum_each<T, width / 2>(rows);
  else
    return rows[0];
}

// The first `count` elements at p, zeros in the other lanes; touches no memory beyond them.
template <class T>
inline vec<T> load_first(const T* p, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (vec<T>)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p);
  else
    return (vec<T>)_mm512_maskz_loadu_pd(__mmask8((1u << count) - 1), p);
#elif defined(__AVX2__)
  using Ints = typename simd<T>::ints;
  Ints lane;
  for (int l = 0; l < simd<T>::lanes; ++l) lane[l] = l;
  const Ints chosen = lane < (decltype(lane[0] + 0))(count)-Ints{};
  if constexpr (sizeof(T) == 4)
    return (vec<T>)_mm256_maskload_ps(p, (__m256i)chosen);
  else
    return (vec<T>)_mm256_maskload_pd(p, (__m256i)chosen);
#else
  vec<T> v{};
  for (int l = 0; l < simd<T>::lanes; ++l)
    if (l < count) v[l] = p[l];
  return v;
#endif
}

}  // namespace otk::OTK_ISA
