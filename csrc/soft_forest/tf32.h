// tf32.h - float32 products on tensor cores (sm_80+), and asynchronous copies into shared memory.
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
#include "common/cuda.h"

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

// The lanes meet twice: when every fragment is there, and when every lane has read what it needs.
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  host_cuda::Warp& warp = host_cuda::warp();
  const unsigned lane = host_cuda::lane(), g = lane / 4, t = lane % 4;
  std::memcpy(warp.slot[lane], a, sizeof a);
  std::memcpy(warp.slot[lane] + sizeof a, b, sizeof b);
  host_cuda::wait(warp.barrier);
  const auto element = [&](unsigned from, unsigned i) {
    float value;
    std::memcpy(&value, warp.slot[from] + 4 * i, sizeof value);
    return double(__uint_as_float(__float_as_uint(value) & 0xffffe000u));
  };
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = i / 2, column = 2 * t + i % 2;  // row g + 8 row
    double sum = c[i];
    for (unsigned k = 0; k < 8; ++k)
      sum += element(4 * g + k % 4, k / 4 * 2 + row) * element(4 * column + k % 4, 4 + k / 4);
    const float nearest = float(sum);  // then cut towards zero, as the hardware does
    c[i] = std::abs(double(nearest)) > std::abs(sum) ? std::nextafter(nearest, 0.0f) : nearest;
  }
  host_cuda::wait(warp.barrier);
}

inline float reciprocal(float x) { return 1 / x; }

inline void copy_async(float* to, const float* from, int floats) {
  host_cuda::current->groups.back().push_back({to, from, sizeof(float) * size_t(floats), 0});
}
inline void copy_commit() { host_cuda::current->groups.emplace_back(); }
inline void copy_wait() {
  auto& groups = host_cuda::current->groups;
  for (const auto& group : groups)
    for (const host_cuda::Copy& copy : group) std::memcpy(copy.to, copy.from, copy.bytes);
  groups.assign(1, {});
}

#else

__device__ inline uint32_t to_tf32(float a) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(a));
  return bits;
}

__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 1 / x within 1 ulp, for normal x.
__device__ inline float reciprocal(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// One float, or four that are aligned to 16 bytes on both sides.
__device__ inline void copy_async(float* to, const float* from, int floats) {
  if (floats == 4)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ inline void copy_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#endif

// c += a b at float32 accuracy, the small terms first.
__device__ __forceinline__ void multiply_add(float (&c)[4], const Split<4>& a, const Split<2>& b) {
  multiply_add(c, a.lo, b.hi);
  multiply_add(c, a.hi, b.lo);
  multiply_add(c, a.hi, b.hi);
}

}  // namespace otk::forest
