// tf32.h - float32 products on tensor cores (sm_80+).
//
// Split     a = hi + lo + e, hi and lo of 11 significant bits. hi is a rounded to nearest, a - hi is exact and at most
//           2^-11 |a| in 12 bits, of which lo keeps 11: |e| <= 2^-23 |a|.
// Product   a b ~ hi hi + hi lo + lo hi. What is missing, lo lo and the two e, is at most
//           (2^-22 + 2 2^-23 + small) |a b| < 2^-20.9 |a b|; each of the three products is exact in 22 bits.
// Sum       one mma.sync adds 8 products to its accumulator. Its rounding is not specified; we assume that each of the
//           9 terms is cut to 24 bits of the largest, and so is the result: an error below 10 2^-23 of the sum of the
//           magnitudes.
// Hence     a sum of K products, in 3 ceil(K / 8) steps of 20 2^-24 each and 9 2^-24 of the split, errs by at most
//               (8 K + 70) 2^-24 sum |a_k| |b_k|.
// Range     |a| below 2^-102 loses lo to underflow; an infinity becomes NaN, as infinity - infinity does.
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

__device__ inline uint32_t to_tf32(float a);

template <int N>
__device__ __forceinline__ Split<N> split(const float (&a)[N]) {
  Split<N> s;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    s.hi[i] = to_tf32(a[i]);
    s.lo[i] = __float_as_uint(a[i] - __uint_as_float(s.hi[i])) & 0xffffe000u;
  }
  return s;
}

#ifdef OTK_CUDA_ON_HOST

inline uint32_t to_tf32(float a) {  // to nearest, ties away from zero; NaN and infinity stay
  const uint32_t bits = __float_as_uint(a);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}

inline float reciprocal(float x) { return 1 / x; }

#else

__device__ inline uint32_t to_tf32(float a) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(a));
  return bits;
}

// 1 / x within 1 ulp, for normal x.
__device__ inline float reciprocal(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

#endif

// c += a b at float32 accuracy, the small terms first.
__device__ __forceinline__ void multiply_add(float (&c)[4], const Split<4>& a, const Split<2>& b) {
  otk::multiply_add<Tf32>(c, a.lo, b.hi[0], b.hi[1]);
  otk::multiply_add<Tf32>(c, a.hi, b.lo[0], b.lo[1]);
  otk::multiply_add<Tf32>(c, a.hi, b.hi[0], b.hi[1]);
}

}  // namespace otk::forest
