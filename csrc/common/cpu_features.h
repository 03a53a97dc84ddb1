// cpu_features.h - which instruction set the CPU kernels use: the widest that was built and that this machine has.
// OTKERNELS_CPU=avx512bf16|avx512|avx2|portable asks for a narrower one (for tests).
#pragma once
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace otk {

enum class Isa { portable, avx2, avx512, avx512bf16 };

inline bool runs(Isa isa) {
  switch (isa) {
#if OTK_HAS_avx512bf16
    case Isa::avx512bf16: return __builtin_cpu_supports("avx512bf16") && runs(Isa::avx512);
#endif
#if OTK_HAS_avx512
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
#if OTK_HAS_avx2
    case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    case Isa::portable: return true;
    default: return false;
  }
}

inline const char* name(Isa isa) {
  constexpr const char* names[] = {"portable", "avx2", "avx512", "avx512bf16"};
  return names[static_cast<int>(isa)];
}

inline Isa chosen_isa() {
  static const Isa isa = [] {
    const char* asked = std::getenv("OTKERNELS_CPU");
    for (Isa candidate : {Isa::avx512bf16, Isa::avx512, Isa::avx2, Isa::portable}) {
      if (asked && std::strcmp(asked, name(candidate)) != 0) continue;
      if (runs(candidate)) return candidate;
    }
    throw std::runtime_error(
        "OTKERNELS_CPU must be avx512bf16, avx512, avx2 or portable, and one that this machine has; got " +
        std::string(asked));
  }();
  return isa;
}

}  // namespace otk

// Calls otk::<isa>::function(arguments) for the chosen instruction set.
#if OTK_HAS_avx512bf16
#define OTK_CASE_avx512bf16(call) \
  case otk::Isa::avx512bf16: return otk::avx512bf16::call;
#else
#define OTK_CASE_avx512bf16(call)
#endif
#if OTK_HAS_avx512
#define OTK_CASE_avx512(call) \
  case otk::Isa::avx512: return otk::avx512::call;
#else
#define OTK_CASE_avx512(call)
#endif
#if OTK_HAS_avx2
#define OTK_CASE_avx2(call) \
  case otk::Isa::avx2: return otk::avx2::call;
#else
#define OTK_CASE_avx2(call)
#endif
#define OTK_ON_CHOSEN_ISA(call)          \
  switch (otk::chosen_isa()) {           \
    OTK_CASE_avx512bf16(call)            \
    OTK_CASE_avx512(call)                \
    OTK_CASE_avx2(call)                  \
    default: return otk::portable::call; \
  }
