// device_mma.h - csrc/common/mma.h and hopper.h on the host.
//
// As late as the rules allow: cp.async lands when its group is waited for, warpgroup products run when theirs is, bulk
// copies land when their barrier is waited for or, in the backward order, at once: a buffer that is used or refilled
// too early gives other numbers. Sums in a tensor core are cut towards zero, as the kernels' bounds allow for.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <map>

#include "common/cuda.h"

namespace host_cuda {

[[noreturn]] inline void give_up(const char* why) {
  std::printf("%s\n", why);
  std::abort();
}

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

// What every lane of the warp passed.
template <class T>
void gather(const T& mine, T (&all)[32]) {
  static_assert(sizeof(T) <= 64);
  Warp& w = warp();
  std::memcpy(w.slot[lane()], &mine, sizeof(T));
  wait(w.barrier);
  for (int from = 0; from < 32; ++from) std::memcpy(&all[from], w.slot[from], sizeof(T));
  wait(w.barrier);
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

// ---- hopper.h -------------------------------------------------------------------------------------------------------

}  // namespace otk

namespace host_cuda {

struct BarrierState {  // in the 8 bytes of the kernel's barrier
  int32_t bytes;       // still to come
  uint8_t phase, magic;
  uint8_t expected, pending;
};

inline std::map<const void*, std::vector<Copy>> in_flight;  // bulk copies, by the barrier that counts them

inline BarrierState load_state(const uint64_t* barrier) {
  const BarrierState s = std::bit_cast<BarrierState>(*barrier);
  if (s.magic != 0x5a) give_up("a barrier is used before it is initialised");
  return s;
}

inline void store_state(uint64_t* barrier, BarrierState s) {
  if (s.pending == 0 && s.bytes == 0) {
    s.phase ^= 1;
    s.pending = s.expected;
    progressed();
  }
  *barrier = std::bit_cast<uint64_t>(s);
}

// Row `row` of the matrix that the descriptor names: its 32 bytes of this step, unswizzled.
inline void read_row(uint64_t descriptor, unsigned row, unsigned char* out) {
  const Block& b = *current->block;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) give_up("wgmma: not a 128-byte swizzle");
  const uint32_t start = uint32_t(descriptor & 0x3fff) << 4, stride = uint32_t(descriptor >> 32 & 0x3fff) << 4;
  for (uint32_t piece = 0; piece < 2; ++piece) {
    uint32_t at = start + row / 8 * stride + row % 8 * 128 + 16 * piece;
    at ^= (at >> 7 & 7) << 4;
    if (at + 16 > b.shared_bytes) give_up("wgmma: a matrix leaves shared memory");
    std::memcpy(out + 16 * piece, b.shared + at, 16);
  }
}

inline void land_and_count(const Copy& copy, uint64_t* barrier) {
  land(copy);
  BarrierState s = load_state(barrier);
  s.bytes -= int32_t(copy.bytes);
  store_state(barrier, s);
}

}  // namespace host_cuda

namespace otk {

inline void init_barrier(uint64_t* barrier, int arrivals) {
  if (!host_cuda::in_flight[barrier].empty()) host_cuda::give_up("a barrier is initialised while copies are under way");
  const uint8_t count = uint8_t(arrivals);
  *barrier = std::bit_cast<uint64_t>(host_cuda::BarrierState{0, 0, 0x5a, count, count});
}

inline void publish_barriers() {}

inline void arrive(uint64_t* barrier) {
  host_cuda::BarrierState s = host_cuda::load_state(barrier);
  if (s.pending == 0) host_cuda::give_up("a barrier has more arrivals than it expects");
  --s.pending;
  host_cuda::store_state(barrier, s);
  host_cuda::yield();  // who waited may go on before this thread does
}

inline void arrive_expecting(uint64_t* barrier, uint32_t bytes) {
  host_cuda::BarrierState s = host_cuda::load_state(barrier);
  if (s.pending == 0) host_cuda::give_up("a barrier has more arrivals than it expects");
  s.bytes += int32_t(bytes);
  --s.pending;
  host_cuda::store_state(barrier, s);
}

inline void wait_barrier(uint64_t* barrier, int parity) {
  while (host_cuda::load_state(barrier).phase == parity) {
    std::vector<host_cuda::Copy> landing;
    landing.swap(host_cuda::in_flight[barrier]);
    for (const host_cuda::Copy& copy : landing) host_cuda::land_and_count(copy, barrier);
    if (host_cuda::load_state(barrier).phase != parity) break;
    host_cuda::yield();
  }
}

inline void copy_bulk(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  host_cuda::check_aligned16(to, from, bytes);
  const host_cuda::Copy copy{to, from, bytes, 0};
  if (host_cuda::backward)
    host_cuda::land_and_count(copy, barrier);
  else
    host_cuda::in_flight[barrier].push_back(copy);
}

template <int>
void fewer_registers() {}
template <int>
void more_registers() {}

inline void begin_products() {}
inline void commit_products() { host_cuda::current->products.emplace_back(); }

template <int kPending>
void wait_products(float (&)[64]) {
  auto& products = host_cuda::current->products;
  while (products.size() > kPending + 1) {
    for (const auto& product : products.front()) product();
    products.erase(products.begin());
  }
  host_cuda::wait(host_cuda::warp().barrier);  // .sync: no lane goes on before the warp's products are done
}

template <class Element>
void warpgroup_multiply(float (&acc)[64], uint64_t a, uint64_t b, bool add) {
  host_cuda::current->products.back().push_back([acc = &acc[0], a, b, add] {
    const unsigned warp = host_cuda::current->index / 32 % 4, g = host_cuda::lane() / 4, q = host_cuda::lane() % 4;
    unsigned char bytes[32];
    float top[16], bottom[16], column[16];
    host_cuda::read_row(a, 16 * warp + g, bytes);
    host_cuda::factors<Element>(bytes, top);
    host_cuda::read_row(a, 16 * warp + g + 8, bytes);
    host_cuda::factors<Element>(bytes, bottom);
    for (unsigned k = 0; k < 16; ++k)
      for (unsigned side = 0; side < 2; ++side) {
        host_cuda::read_row(b, 8 * k + 2 * q + side, bytes);
        host_cuda::factors<Element>(bytes, column);
        float* c = acc + 4 * k + side;
        c[0] = host_cuda::dot<Element>(add ? c[0] : 0.0f, top, column);
        c[2] = host_cuda::dot<Element>(add ? c[2] : 0.0f, bottom, column);
      }
  });
}

}  // namespace otk
