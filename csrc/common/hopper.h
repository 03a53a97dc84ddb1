// hopper.h - sm_90a's own instructions: barriers that count bytes, bulk copies, warpgroup products.
//
// A warpgroup is four warps, the first a multiple of four. Its product takes A [64, step] and B [128, step] from shared
// memory (a step is 32 bytes of a row), each stored as 8-row atoms of 8 x 128 bytes whose 16-byte pieces are swizzled:
// piece p of row r lies at piece p ^ (r % 8). An atom starts at a multiple of 1024, the next 8 rows lie 1024 bytes on;
// a step to the right inside the atom advances the start address by 32. Lane 4 g + q of warp w holds rows 16 w + g and
// + 8, columns 8 k + 2 q and + 1: acc[4 k], acc[4 k + 1], and acc[4 k + 2], acc[4 k + 3] (PTX ISA, wgmma, "Register
// fragments").
#pragma once
#include <type_traits>

#include "common/mma.h"

// Code that only Hopper's own instruction set can run; elsewhere such a kernel is empty and is never launched.
#if defined(OTK_CUDA_ON_HOST) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define OTK_HOPPER 1
#else
#define OTK_HOPPER 0
#endif

namespace otk {

using BytesBarrier = uint64_t;  // in shared memory

// A matrix in shared memory as wgmma reads it: address and 8-row stride in units of 16 bytes, 128-byte swizzle.
__device__ inline uint64_t matrix_descriptor(uint32_t address) {
  return uint64_t(address >> 4) | uint64_t(1) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

}  // namespace otk

#ifdef OTK_CUDA_ON_HOST
#include "cuda_on_host/device_hopper.h"
#elif OTK_HOPPER

namespace otk {

__device__ inline void init_barrier(BytesBarrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// After the inits, before the block's __syncthreads.
__device__ inline void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ inline void arrive(BytesBarrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// One arrival, and `bytes` more that bulk copies will bring before the phase ends.
__device__ inline void arrive_expecting(BytesBarrier* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Until the phase of this parity has ended. A new barrier is in phase 0, as if a phase of parity 1 had ended.
__device__ inline void wait_barrier(BytesBarrier* barrier, int parity) {
  uint32_t done = 0;
  while (!done)
    asm volatile(
        "{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.u32 %0, 1, 0, done;\n}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
}

// Global to shared memory, by one thread; addresses and bytes are multiples of 16.
__device__ inline void copy_bulk(void* to, const void* from, uint32_t bytes, BytesBarrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

// Registers a thread of this warpgroup may use from here on; a multiple of 8. The block's sum must fit.
template <int kRegisters>
__device__ inline void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Before the first product of a group: the accumulators' earlier uses are over.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until at most kPending groups are under way, whose accumulators must not be touched.
template <int kPending>
__device__ inline void wait_earlier_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// The same where this accumulator's groups are not among them: it may be read.
template <int kPending>
__device__ inline void wait_products(float (&acc)[64]) {
  wait_earlier_products<kPending>();
#pragma unroll
  for (int k = 0; k < 64; ++k) asm volatile("" : "+f"(acc[k])::"memory");  // no read moves before the wait
}

#define OTK_FOUR(a, k) "+f"(a[k]), "+f"(a[k + 1]), "+f"(a[k + 2]), "+f"(a[k + 3])
#define OTK_SIXTEEN(a, k) OTK_FOUR(a, k), OTK_FOUR(a, k + 4), OTK_FOUR(a, k + 8), OTK_FOUR(a, k + 12)
#define OTK_WARPGROUP_PRODUCT(shape, tail)                                                    \
  asm volatile(                                                                               \
      "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"                                        \
      "wgmma.mma_async.sync.aligned." shape                                                   \
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "              \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "      \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "      \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "     \
      "%64, %65, add, 1, 1" tail ";\n}"                                                       \
      : OTK_SIXTEEN(acc, 0), OTK_SIXTEEN(acc, 16), OTK_SIXTEEN(acc, 32), OTK_SIXTEEN(acc, 48) \
      : "l"(a), "l"(b), "r"(int(add)))

// acc = A B^T, or += where `add`; asynchronous. Element is Bf16 or Fp16 (16 coordinates a step) or Tf32 (8).
template <class Element>
__device__ __forceinline__ void warpgroup_multiply(float (&acc)[64], uint64_t a, uint64_t b, bool add) {
  if constexpr (std::is_same_v<Element, Bf16>)
    OTK_WARPGROUP_PRODUCT("m64n128k16.f32.bf16.bf16", ", 0, 0");
  else if constexpr (std::is_same_v<Element, Fp16>)
    OTK_WARPGROUP_PRODUCT("m64n128k16.f32.f16.f16", ", 0, 0");
  else
    OTK_WARPGROUP_PRODUCT("m64n128k8.f32.tf32.tf32", "");
}

#undef OTK_WARPGROUP_PRODUCT
#undef OTK_SIXTEEN
#undef OTK_FOUR

}  // namespace otk
#endif
