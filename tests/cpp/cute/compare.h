// compare.h - what the comparisons with CuTe (witness.h) share: our element types by CuTe's names, launches on the host.
#pragma once
#include <cstring>
#include <functional>
#include <map>
#include <string>

#include "check.h"
#include "common/hopper.h"
#include "cute/witness.h"

namespace cute_test {

using witness::At;
using witness::Operand;

template <class Element>
constexpr witness::Element kElement;
template <>
inline constexpr witness::Element kElement<otk::Bf16> = witness::Element::bf16;
template <>
inline constexpr witness::Element kElement<otk::Fp16> = witness::Element::fp16;
template <>
inline constexpr witness::Element kElement<otk::Tf32> = witness::Element::tf32;

// Coordinates in a step of 32 bytes, in a chunk of 128.
template <class Element>
constexpr int kStep = 32 / Element::kBytes;
template <class Element>
constexpr int kChunk = 128 / Element::kBytes;

// The element that stands for a number which it can hold, as CuTe decodes it.
template <class Element>
uint32_t word_of(float number) {
  if (Element::kBytes == 4) return std::bit_cast<uint32_t>(number);
  static const std::map<float, uint32_t> words = [] {
    std::map<float, uint32_t> all;
    for (uint32_t word = 0; word < 65536; ++word) all.emplace(witness::value(kElement<Element>, word), word);
    return all;
  }();
  return words.at(number);
}

// Element k of what lies at p.
template <class Element>
uint32_t element_at(const void* p, int k) {
  uint32_t word = 0;
  std::memcpy(&word, static_cast<const unsigned char*>(p) + k * Element::kBytes, Element::kBytes);
  return word;
}

template <class Element>
void put(void* p, int k, uint32_t word) {
  std::memcpy(static_cast<unsigned char*>(p) + k * Element::kBytes, &word, Element::kBytes);
}

// Writes `number(row, k)` for all elements of a block of 128 rows where CuTe's layout has them.
template <class Element>
void fill_block(unsigned char* block, int chunks, const std::function<uint32_t(int, int)>& word) {
  for (int row = 0; row < 128; ++row)
    for (int k = 0; k < chunks * kChunk<Element>; ++k)
      put<Element>(block + witness::packed_offset(kElement<Element>, row, k), 0, word(row, k));
}

// One block of threads, in both orders.
inline void on_host(int threads, size_t shared_bytes, const std::function<void()>& thread) {
  for (const bool backward : {false, true}) {
    host_cuda::backward = backward;
    host_cuda::run({"a comparison with CuTe", 1, threads, shared_bytes, nullptr}, thread);
  }
  host_cuda::backward = false;
}

}  // namespace cute_test
