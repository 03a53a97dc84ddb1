// mma.h - sm_80's asynchronous copies and tensor cores: cp.async, ldmatrix, mma.sync.
//
// Fragments (PTX ISA, "Matrix Fragments for mma"), lane = 4 g + q, words of 32 bits, a step is 32 bytes of a row:
//     A 16 x step   a[0] (g, word q), a[1] (g + 8, q), a[2] (g, q + 4), a[3] (g + 8, q + 4)
//     B step x 8    b[0] (column g, word q), b[1] (g, q + 4), from columns stored as rows
//     C 16 x 8      c[0], c[1] (g, 2 q), (g, 2 q + 1); c[2], c[3] the same of row g + 8
// A word holds two bfloat16 or binary16, the first in its lower half, or one tf32, so all element types load alike with
// ldmatrix, whose 8 x 8 matrices of 16-bit elements are 8 rows of 16 bytes.
#pragma once
#include "common/cuda.h"

namespace otk {

struct Bf16 {
  static constexpr int kBytes = 2;
};
struct Fp16 {
  static constexpr int kBytes = 2;
};
struct Tf32 {
  static constexpr int kBytes = 4;
};

}  // namespace otk

#ifdef OTK_CUDA_ON_HOST
#include "cuda_on_host/device_mma.h"
#else

namespace otk {

// 16 bytes from global to shared memory; both addresses are multiples of 16.
__device__ inline void copy_async16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}

// One float.
__device__ inline void copy_async4(void* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from) : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most kPending of this thread's committed groups are under way.
template <int kPending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8 x 16-byte matrices; lane 8 i + r passes the address of row r of matrix i. matrix[i] is word q of row g.
__device__ inline void load_matrices(uint32_t (&matrix)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
               : "r"(shared_address(row))
               : "memory");
}

// c += A B
template <class Element>
__device__ inline void multiply_add(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ inline void multiply_add<Bf16>(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ inline void multiply_add<Fp16>(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ inline void multiply_add<Tf32>(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace otk
#endif

namespace otk {

// Until all of this thread's copies have landed.
__device__ inline void finish_copies() {
  commit_copies();
  wait_copies<0>();
}

}  // namespace otk
