// half.h - float32 to the nearest binary16 and back, as the words that tensor cores multiply.
#pragma once
#include "common/cuda.h"

namespace otk {

#ifdef OTK_CUDA_ON_HOST

inline uint32_t to_half(float v) {
  const uint32_t bits = __float_as_uint(v), sign = bits >> 31 << 15;
  if (v != v) return 0x7e00;
  if (std::abs(v) < 0x1p-14f) return sign | uint32_t(std::nearbyint(std::abs(v) * 0x1p24f));  // subnormal, or 2^-14
  const uint32_t half = ((bits & 0x7fffffffu) + 0xfff + (bits >> 13 & 1) - (112u << 23)) >> 13;
  return sign | (half < 0x7c00 ? half : 0x7c00);
}

inline float from_half(uint32_t word) {
  const uint32_t exponent = word >> 10 & 31, mantissa = word & 1023;
  const float size = exponent == 31  ? __uint_as_float(0x7f800000u | mantissa << 13)
                     : exponent == 0 ? std::ldexp(float(mantissa), -24)
                                     : std::ldexp(float(1024 + mantissa), int(exponent) - 25);
  return word >> 15 ? -size : size;
}

#else

__device__ inline uint32_t to_half(float v) {
  uint16_t word;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(word) : "f"(v));
  return word;
}

__device__ inline float from_half(uint32_t word) {
  float v;
  asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(uint16_t(word)));
  return v;
}

#endif

}  // namespace otk
