// device_mma.h - csrc/common/mma.h on the host.
//
// cp.async lands as late as the rules allow, when its group is waited for: a buffer that is used too early gives other
// numbers. Sums in a tensor core are cut towards zero, as the kernels' bounds allow for.
#pragma once
#include "common/cuda.h"

namespace host_cuda {

template <class Word>
Word word_at(const unsigned char* p) {
  Word word;
  std::memcpy(&word, p, sizeof(Word));
  return word;
}

inline float factor_at(otk::Bf16, const unsigned char* p) {
  return std::bit_cast<float>(uint32_t(word_at<uint16_t>(p)) << 16);
}

// binary16: 5 bits of exponent, 10 of mantissa; products take its subnormal numbers as they are.
inline float factor_at(otk::Fp16, const unsigned char* p) {
  const uint32_t word = word_at<uint16_t>(p), sign = word >> 15 << 31, exponent = word >> 10 & 31, mantissa = word & 1023;
  if (exponent == 0) return std::copysign(float(mantissa) * 0x1p-24f, std::bit_cast<float>(sign));
  return std::bit_cast<float>(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13);
}

// The 19 bits of a float that a tensor core reads as tf32.
inline float factor_at(otk::Tf32, const unsigned char* p) { return std::bit_cast<float>(word_at<uint32_t>(p) & ~0x1fffu); }

// The 16 or 8 factors in 32 bytes.
template <class Element>
void factors(const unsigned char* bytes, float* out) {
  for (int k = 0; k < 32 / Element::kBytes; ++k) out[k] = factor_at(Element{}, bytes + Element::kBytes * k);
}

inline float cut(double exact) {
  const float near = float(exact);
  return std::abs(double(near)) > std::abs(exact) && std::isfinite(near) ? std::nextafterf(near, 0.0f) : near;
}

template <class Element>
float dot(float start, const float* a, const float* b) {
  double sum = start;
  for (int k = 0; k < 32 / Element::kBytes; ++k) sum += double(a[k]) * double(b[k]);
  return cut(sum);
}

inline void land(const Copy& copy) {
  std::memcpy(copy.to, copy.from, copy.bytes);
  std::memset(static_cast<unsigned char*>(copy.to) + copy.bytes, 0, copy.zeros);
}

inline void check_aligned16(const void* to, const void* from, size_t bytes) {
  const Block& b = *current->block;
  const unsigned char* at = static_cast<const unsigned char*>(to);
  if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16 || bytes % 16)
    give_up("an asynchronous copy is not aligned to 16 bytes");
  if (at < b.shared || at + bytes > b.shared + b.shared_bytes) give_up("an asynchronous copy leaves shared memory");
}

// Gives up unless this thread knows that the bulk copy of the 16 bytes at p, if there was one, has ended.
inline void expect_landed(const void* p) {
  const Block& b = *current->block;
  if (b.async.pieces.empty()) return;
  const Piece& piece = b.async.pieces[size_t(static_cast<const unsigned char*>(p) - b.shared) / 16];
  if (piece.barrier >= 0 && current->knows.of(piece.barrier) < 2 + piece.phase)
    give_up("shared memory is read by a thread that has not waited for the bulk copy to it");
}

}  // namespace host_cuda

namespace otk {

inline void copy_async16(void* to, const void* from) {
  host_cuda::check_aligned16(to, from, 16);
  host_cuda::current->groups.back().push_back({to, from, 16, 0});
}

inline void copy_async4(void* to, const void* from) { host_cuda::current->groups.back().push_back({to, from, 4, 0}); }

inline void commit_copies() { host_cuda::current->groups.emplace_back(); }

template <int kPending>
void wait_copies() {
  auto& groups = host_cuda::current->groups;
  for (unsigned k = 0; k < host_cuda::current->index / 32 % 4; ++k) host_cuda::yield();  // warps do not go in step
  while (groups.size() > kPending + 1) {
    for (const host_cuda::Copy& copy : groups.front()) host_cuda::land(copy);
    groups.erase(groups.begin());
  }
}

inline void load_matrices(uint32_t (&matrix)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16) host_cuda::give_up("ldmatrix: a row is not aligned to 16 bytes");
  const void* rows[32];
  host_cuda::gather(row, rows);
  host_cuda::expect_landed(row);
  const unsigned lane = host_cuda::lane();
  for (unsigned i = 0; i < 4; ++i)
    std::memcpy(&matrix[i], static_cast<const unsigned char*>(rows[8 * i + lane / 4]) + 4 * (lane % 4), 4);
}

template <class Element>
void multiply_add(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Fragment {
    uint32_t a[4], b[2];
  } all[32];
  host_cuda::gather({{a[0], a[1], a[2], a[3]}, {b0, b1}}, all);
  const unsigned g = host_cuda::lane() / 4, q = host_cuda::lane() % 4;
  const auto row = [&](unsigned low, unsigned high, float* out) {  // row g of A: words 0 .. 3 and 4 .. 7
    uint32_t words[8];
    for (unsigned k = 0; k < 4; ++k) words[k] = all[4 * g + k].a[low], words[4 + k] = all[4 * g + k].a[high];
    host_cuda::factors<Element>(reinterpret_cast<const unsigned char*>(words), out);
  };
  float top[16], bottom[16], column[16];
  row(0, 2, top);
  row(1, 3, bottom);
  for (unsigned side = 0; side < 2; ++side) {
    uint32_t words[8];
    for (unsigned k = 0; k < 8; ++k) words[k] = all[4 * (2 * q + side) + k % 4].b[k / 4];
    host_cuda::factors<Element>(reinterpret_cast<const unsigned char*>(words), column);
    c[side] = host_cuda::dot<Element>(c[side], top, column);
    c[2 + side] = host_cuda::dot<Element>(c[2 + side], bottom, column);
  }
}

}  // namespace otk
