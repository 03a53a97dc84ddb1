// witness.h - what NVIDIA's CuTe says about the tensor-core instructions that csrc uses, as plain tables.
//
// witness.cpp evaluates the traits and layouts of CUTLASS's headers. It knows nothing of csrc, and nothing of CUTLASS is
// seen here, since CUDA's own headers and the emulator's (cuda_on_host) exclude each other.
#pragma once
#include <cstdint>
#include <vector>

namespace witness {

enum class Element { bf16, fp16, tf32 };
enum class Operand { a, b, c };

// An element of A [m, k], B [n, k] or C [m, n].
struct At {
  int row, column;
};

constexpr int kChunks = 4;  // of 128 bytes, in a block of 128 packed rows

// mma.sync m16n8k16, of tf32 m16n8k8: entry lane * values + value, where values count through the operand's registers.
std::vector<At> mma(Element element, Operand operand);

// ldmatrix .x4: which lane's row holds bit `bit` of the four destination registers of `lane`, and which bit of that row.
At ldmatrix(int lane, int bit);

// wgmma m64n128k16, of tf32 m64n128k8: entry thread * 64 + register.
std::vector<At> wgmma_accumulators(Element element);

// Where coordinate k of row r of a block lies, in bytes: K-major with a 128-byte swizzle, chunk after chunk.
int packed_offset(Element element, int row, int k);

// The descriptor for rows 64 half .. 64 half + 63 as A, or for all 128 as B, and step `step` of 32 bytes, counted through
// the chunks of a block that starts at `address` in shared memory.
uint64_t descriptor(Element element, Operand operand, int half, int step, uint32_t address);

// The number that the low bits of `word` stand for.
float value(Element element, uint32_t word);

}  // namespace witness
