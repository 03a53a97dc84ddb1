// select.h - the k best of a few hundred columns, which stand in ascending order: by a threshold, then sorted.
#pragma once
#include <algorithm>

#include "l2_argmin/panels.h"
#include "l2_topk/l2_topk.h"

namespace otk::OTK_ISA {

// Room for the columns that a row keeps: whole vectors.
inline int64_t room_for(int64_t k) { return round_up(2 * k + 64, 16); }
inline constexpr int64_t kMostRoom = 2 * kMostNeighbours + 64;
inline constexpr int64_t kBlockEntries = 1 << 20;  // kept columns of the rows that are solved at a time
inline constexpr int kHalvings = 16;

// Stores the lanes of v that `mask` names one after the other, and what it likes behind them, a vector in all.
template <class T>
inline void store_chosen(T* to, vec<T> v, uint32_t mask) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm512_storeu_ps(to, _mm512_maskz_compress_ps(__mmask16(mask), (__m512)v));
  else
    _mm512_storeu_pd(to, _mm512_maskz_compress_pd(__mmask8(mask), (__m512d)v));
#else
  for (; mask; mask &= mask - 1) *to++ = v[__builtin_ctz(mask)];
#endif
}

// The same of the numbers first + lane; returns how many.
inline int64_t store_chosen_columns(int64_t* to, int64_t first, uint32_t mask) {
  const int64_t count = __builtin_popcount(mask);
#if defined(__AVX512F__)
  const __m512i lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
  for (; mask; mask >>= 8, first += 8) {
    const __m512i columns = _mm512_add_epi64(_mm512_set1_epi64(first), lanes);
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi64(__mmask8(mask & 255), columns));
    to += __builtin_popcount(mask & 255);
  }
#else
  for (; mask; mask &= mask - 1) *to++ = first + __builtin_ctz(mask);
#endif
  return count;
}

// Those of `lanes` numbers at `from`, which may lie a little behind `to`.
inline void store_chosen_numbers(int64_t* to, const int64_t* from, uint32_t mask) {
#if defined(__AVX512F__)
  for (; mask; mask >>= 8, from += 8) {
    const __m512i chosen = _mm512_maskz_compress_epi64(__mmask8(mask & 255), _mm512_loadu_si512(from));
    _mm512_storeu_si512(to, chosen);
    to += __builtin_popcount(mask & 255);
  }
#else
  for (; mask; mask &= mask - 1) *to++ = from[__builtin_ctz(mask)];
#endif
}

// What a key must exceed, or equal as one of the first `ties` that do.
template <class T>
struct Threshold {
  T at;
  int64_t ties;
};

// A threshold that k to `most` of `count` keys (k <= count, no NaN) pass. Pads the keys to whole vectors with -inf. Halving
// the range of the keys soon finds one, unless they lie far apart from each other or tie; then the k-th is looked for.
template <class T>
Threshold<T> threshold_of(T* keys, int64_t count, int64_t k, int64_t most) {
  constexpr int64_t L = simd<T>::lanes;
  const int64_t vectors = divide_up(count, L);
  for (int64_t c = count; c < vectors * L; ++c) keys[c] = -kInf<T>;
  vec<T> high = load<T>(keys), low = high;
  for (int64_t v = 1; v < vectors; ++v) {
    const vec<T> next = load<T>(keys + v * L);
    high = next > high ? next : high;
    if (v * L + L <= count) low = next < low ? next : low;  // without the last: a start that is too high costs a halving
  }
  T above = max_lane<T>(high), below = -max_lane<T>(-low);
  for (int step = 0; step < kHalvings && below < above; ++step) {
    const T middle = below / 2 + above / 2;
    int64_t reached = 0;
    for (int64_t v = 0; v < vectors; ++v) reached += __builtin_popcount(not_less<T>(load<T>(keys + v * L), middle));
    if (reached >= k && reached <= most && middle > -kInf<T>) return {middle, count};
    (reached >= k ? below : above) = middle;
  }
  struct Key {
    T key;
    bool operator<(const Key& other) const { return key > other.key; }
  } sorted[kMostNeighbours + kMostRoom];
  for (int64_t c = 0; c < count; ++c) sorted[c].key = keys[c];
  std::nth_element(sorted, sorted + k - 1, sorted + count);
  Threshold<T> threshold{sorted[k - 1].key, 0};
  for (int64_t c = 0; c < k; ++c) threshold.ties += sorted[c].key == threshold.at;
  return threshold;
}

// Keeps the keys that pass, padded as threshold_of does, and their columns, in their order; returns how many.
template <class T>
int64_t keep_best(T* keys, int64_t* columns, int64_t count, Threshold<T> threshold) {
  constexpr int64_t L = simd<T>::lanes;
  int64_t left = 0, ties = threshold.ties;
  if (ties >= count) {
    for (int64_t c = 0; c < count; c += L) {
      const vec<T> own = load<T>(keys + c);
      const uint32_t mask = not_less<T>(own, threshold.at);  // the padding never passes
      store_chosen<T>(keys + left, own, mask);
      store_chosen_numbers(columns + left, columns + c, mask);
      left += __builtin_popcount(mask);
    }
    return left;
  }
  for (int64_t c = 0; c < count; ++c) {
    const bool tie = keys[c] == threshold.at, stays = (keys[c] > threshold.at) | (tie & (ties > 0));
    ties -= tie;
    keys[left] = keys[c], columns[left] = columns[c];
    left += stays;
  }
  return left;
}

// The k best of `count` columns by (-gain, column) into value and index, sorted. A column's place is the number of those
// before it: for so few, counting them a vector at a time beats exchanging them.
template <class T>
void write_sorted(T* gains, int64_t* columns, int64_t count, int64_t k, T* value, int64_t* index) {
  if (count > k) count = keep_best(gains, columns, count, threshold_of(gains, count, k, k));
  for (int64_t c = 0; c < k; ++c) {
    const T own = gains[c];
    int32_t place = 0;
    for (int64_t other = 0; other < c; ++other) place += gains[other] >= own;
    for (int64_t other = c + 1; other < k; ++other) place += gains[other] > own;
    value[place] = -own, index[place] = columns[c];
  }
}

}  // namespace otk::OTK_ISA
