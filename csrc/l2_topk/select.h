// select.h - the k best of a few hundred: by a threshold, which need not be sharp, and exactly.
#pragma once
#include <algorithm>

#include "l2_argmin/panels.h"
#include "l2_topk/l2_topk.h"

namespace otk::OTK_ISA {

// Room for the columns that a row keeps, a multiple of a vector: half of it, and a tile more, is there after thinning out.
inline int64_t room_for(int64_t k) { return round_up(2 * k + 64, 16); }
inline constexpr int64_t kMostRoom = 2 * kMostNeighbours + 64;
inline constexpr int64_t kBlockEntries = 1 << 20;  // kept columns of the rows that are solved at a time

// Sorted by (cost, index). Of this namespace, so that the standard library's functions on it are, too.
template <class T>
struct Neighbour {
  T cost;
  int64_t j;

  bool operator<(const Neighbour& other) const { return cost < other.cost || (cost == other.cost && j < other.j); }
};

template <class T>
struct Threshold {
  T at;
  int64_t ties;  // how many of the keys that equal it are wanted
};

template <class T>
inline int64_t count_not_less(const T* keys, int64_t vectors, T at) {
  int64_t count = 0;
  for (int64_t v = 0; v < vectors; ++v) count += __builtin_popcount(not_less<T>(load<T>(keys + v * simd<T>::lanes), at));
  return count;
}

// A threshold that at least k of `count` keys (k <= count, no NaN) reach, and no more than k + (count - k) / 4. Pads the
// keys to whole vectors with -inf. Halving the range of the keys finds one soon, unless they lie far apart from each other.
template <class T>
Threshold<T> threshold_of(T* keys, int64_t count, int64_t k) {
  constexpr int64_t L = simd<T>::lanes;
  const int64_t vectors = divide_up(count, L), most = k + (count - k) / 4;
  for (int64_t c = count; c < vectors * L; ++c) keys[c] = -kInf<T>;
  vec<T> high = load<T>(keys);
  for (int64_t v = 1; v < vectors; ++v) {
    const vec<T> next = load<T>(keys + v * L);
    high = next > high ? next : high;
  }
  T above = max_lane<T>(high), below = keys[0];
  for (int64_t c = 1; c < count; ++c) below = keys[c] < below ? keys[c] : below;
  for (int step = 0; step < 12; ++step) {
    const T middle = below / 2 + above / 2;
    const int64_t reached = count_not_less(keys, vectors, middle);
    if (reached >= k && reached <= most && middle > -kInf<T>) return {middle, count};
    (reached >= k ? below : above) = middle;
  }
  struct Key {
    T key;
    bool operator<(const Key& other) const { return key > other.key; }
  } sorted[kMostRoom];
  for (int64_t c = 0; c < count; ++c) sorted[c].key = keys[c];
  std::nth_element(sorted, sorted + k - 1, sorted + count);
  const T at = sorted[k - 1].key;
  int64_t ties = 0;
  for (int64_t c = 0; c < k; ++c) ties += sorted[c].key == at;
  return {at, ties};
}

}  // namespace otk::OTK_ISA
