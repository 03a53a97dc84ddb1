// duplicates.h - points of y that are there several times, bit for bit (a repeated image, a collapsed generator): the first
// of them attains whatever the others do, so the others need not be looked at.
//
// A sample says whether there are any worth looking for. Memory O(m).
#pragma once
#include <algorithm>
#include <cstring>

#include "common/memory.h"
#include "l2_argmin/candidates.h"

namespace otk::OTK_ISA {

constexpr int64_t kDuplicateSample = 256;

// Number s of `samples` columns spread over all `count`, in no step that data could share.
inline int64_t spread_column(int64_t s, int64_t samples, int64_t count) {
  const int64_t stride = count / samples;
  return s * stride + int64_t(uint64_t(s) * 0x9E3779B97F4A7C15u >> 33) % stride;
}

template <class T>
inline uint64_t hash_point(const Points<T>& p, int64_t j) {
  constexpr uint64_t factor = 0x9FB21C651E98DF25u;
  const char* bytes = reinterpret_cast<const char*>(p.y + j * p.d);
  const int64_t size = p.d * int64_t(sizeof(T));
  uint64_t lane[4] = {1, 2, 3, 4}, word[4];
  int64_t at = 0;
  for (; at + 32 <= size; at += 32) {
    std::memcpy(word, bytes + at, 32);
#pragma GCC unroll 4
    for (int l = 0; l < 4; ++l) lane[l] = (lane[l] ^ word[l]) * factor, lane[l] ^= lane[l] >> 29;
  }
  std::fill_n(word, 4, 0);
  std::memcpy(word, bytes + at, size - at);
  const T potential = p.potential_of(j);
  uint64_t hash = 0;
  std::memcpy(&hash, &potential, sizeof(T));
  for (int l = 0; l < 4; ++l) hash = (hash ^ lane[l] ^ word[l]) * factor, hash ^= hash >> 32;
  return hash;
}

template <class T>
inline bool same_point(const Points<T>& p, int64_t a, int64_t b) {
  return std::memcmp(p.y + a * p.d, p.y + b * p.d, p.d * sizeof(T)) == 0 &&
         (!p.potential || std::memcmp(p.potential + a, p.potential + b, sizeof(T)) == 0);
}

// Whether a sample of y's points holds a few that are equal.
template <class T>
bool has_duplicates(const Points<T>& p) {
  if (p.m < kDuplicateSample) return false;
  uint64_t hashes[kDuplicateSample];
  for (int64_t s = 0; s < kDuplicateSample; ++s) hashes[s] = hash_point(p, spread_column(s, kDuplicateSample, p.m));
  std::sort(hashes, hashes + kDuplicateSample);
  int repeated = 0;
  for (int64_t s = 1; s < kDuplicateSample; ++s) repeated += hashes[s] == hashes[s - 1];
  return repeated > 1;
}

// Lists the first of all equal points in ascending order in list [m] and returns how many these are.
template <class T>
int64_t list_distinct(const Points<T>& p, int64_t* list, int threads) {
  int64_t slots = 2;
  while (slots < 2 * p.m) slots *= 2;
  Scratch<int64_t> table(slots);
  Scratch<uint64_t> hashes(p.m);
  std::fill_n(table.get(), slots, int64_t(-1));
  uint64_t* const hash = hashes.get();
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t j = 0; j < p.m; ++j) hash[j] = hash_point(p, j);
  int64_t count = 0;
  for (int64_t j = 0; j < p.m; ++j) {
    int64_t at = int64_t(hash[j] & uint64_t(slots - 1)), first;
    while ((first = table.get()[at]) >= 0 && !(hash[first] == hash[j] && same_point(p, first, j)))
      at = (at + 1) & (slots - 1);
    if (first >= 0) continue;
    table.get()[at] = j;
    list[count++] = j;
  }
  return count;
}

}  // namespace otk::OTK_ISA
