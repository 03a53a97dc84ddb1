// tf32.h - float32 products on tensor cores (sm_80+).
//
// Split     hi is a without its low 13 bits, so of 11 significant bits. lo = a - hi is exact, below 2^-10 |a|, of 13 bits
//           at most, the last of which is a's last: the tensor cores, which do not read a factor's low 13 bits, see lo - e
//           of 11 bits, |e| <= 3 2^-23 |a|. Two instructions a value. (Rounded to nearest, |e| <= 2^-23 |a|, they are five
//           in SASS, four of them at half rate: more than the products take. That SASS leaves the low bits as they come,
//           and drops a mask that clears them, which shows that they are not read.)
// Product   a b ~ hi hi + hi lo + lo hi. What is missing, lo lo and the two e, is at most
//           (2^-20 + 2 3 2^-23) |a b| = 28 2^-24 |a b|; each of the three products is exact in 22 bits.
// Sum       one mma.sync adds 8 products to its accumulator. Its rounding is not specified; we assume that each of the
//           9 terms is cut to 24 bits of the largest, and so is the result: an error below 10 2^-23 of the sum of the
//           magnitudes.
// Hence     a term of zero cuts nothing, so K products in S such sums, three each, are cut 3 (K + 2 S) times by 2 2^-24,
//           and split at 28 2^-24. S is at most (K + 15) / 8, in whatever order the depth is taken: an error of at most
//               (8 K + 90) 2^-24 sum |a_k| |b_k|.
// Range     |a| below 2^-102 loses lo to underflow; an infinity becomes NaN, as infinity - infinity does; NaN stays NaN in
//           lo, whatever its low bits.
#pragma once
#include "common/mma.h"

namespace otk::forest {

// A fragment of m16n8k8: `lane = 4 g + t`.
//   A [16, 8]  (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)
//   B [8, 8]   (t, g), (t + 4, g)
//   C [16, 8]  (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
template <int N>
struct Split {
  uint32_t hi[N], lo[N];
};

#ifdef OTK_CUDA_ON_HOST
constexpr uint32_t kRead = 0xffffe000u;
#else
// The bits of a factor that the tensor cores read. In memory, so that the compiler does not know them: it would multiply
// with a itself instead of hi, and spend a copy per value on the order of registers that the product asks for.
[[maybe_unused]] static __constant__ uint32_t kRead = 0xffffe000u;
#endif

template <int N>
__device__ __forceinline__ Split<N> split(const float (&a)[N]) {
  Split<N> s;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    s.hi[i] = __float_as_uint(a[i]) & kRead;
    s.lo[i] = __float_as_uint(a[i] - __uint_as_float(s.hi[i]));
  }
  return s;
}

#ifdef OTK_CUDA_ON_HOST

inline float reciprocal(float x) { return 1 / x; }

#else

// 1 / x within 1 ulp, for normal x.
__device__ inline float reciprocal(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

#endif

// c[i] += a b[i] at float32 accuracy, the small terms first. Products that wait for each other are N apart.
template <int N>
__device__ __forceinline__ void multiply_add(float (&c)[N][4], const Split<4>& a, const Split<2> (&b)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) otk::multiply_add<Tf32>(c[i], a.lo, b[i].hi[0], b[i].hi[1]);
#pragma unroll
  for (int i = 0; i < N; ++i) otk::multiply_add<Tf32>(c[i], a.hi, b[i].lo[0], b[i].lo[1]);
#pragma unroll
  for (int i = 0; i < N; ++i) otk::multiply_add<Tf32>(c[i], a.hi, b[i].hi[0], b[i].hi[1]);
}

}  // namespace otk::forest
