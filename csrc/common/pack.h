// pack.h - row-major points to panels: panel[k * width + r] holds word k of point r, `width` points to a panel.
//
// A word is what one step of a product eats: a T, or a pair of bfloat16. Blocks of `lanes` points are transposed in
// registers. `Fetch` makes the words: fetch(r, k) is the vector of words k.. of point r, zeros past the end.
#pragma once
#include <algorithm>
#include <cstring>
#include <utility>

#include "common/tile.h"

namespace otk::OTK_ISA {

// Stores lanes [part, part + piece) of v. Through registers: an address of v would push whole blocks to the stack.
template <class T, int piece, int... lane>
inline void store_part(T* to, vec<T> v, int part, std::integer_sequence<int, lane...>) {
  static_assert(simd<T>::lanes <= 2 * piece, "part is the first or the last piece");
  typedef T some __attribute__((vector_size(piece * sizeof(T))));
  some kept = __builtin_shufflevector(v, v, lane...);
  if constexpr (piece < simd<T>::lanes)
    if (part) kept = __builtin_shufflevector(v, v, (simd<T>::lanes - piece + lane)...);
  std::memcpy(to, &kept, sizeof(kept));
}

// Points [first, first + lanes) of a panel group whose panels are `width` points wide and `words` words long.
template <class T, int width, class Fetch>
inline void pack_block(int64_t first, int64_t words, T* panels, Fetch&& fetch) {
  constexpr int L = simd<T>::lanes, piece = width < L ? width : L;
  for (int64_t k = 0; k < words; k += L) {
    vec<T> block[L];
#pragma GCC unroll 16
    for (int r = 0; r < L; ++r) block[r] = fetch(r, k);
    transpose<T>(block);
    const int64_t count = words - k < L ? words - k : L;
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      if (i >= count) break;
#pragma GCC unroll 16
      for (int part = 0; part < L; part += piece) {
        const int64_t point = first + part;
        T* to = panels + (point / width) * width * words + (k + i) * width + point % width;
        store_part<T, piece>(to, block[i], part, std::make_integer_sequence<int, piece>());
      }
    }
  }
}

// Words [k, k + lanes) of a dense row of d elements, zeros past the end.
template <class T>
inline vec<T> load_tail(const T* row, int64_t k, int64_t d) {
  if (k + simd<T>::lanes <= d) return load<T>(row + k);
  return k < d ? load_first<T>(row + k, d - k) : vec<T>{};
}

// rows [count <= R, width] row-major -> columns [width, R], zero rows past the end
template <class T>
inline void to_columns(const T* rows, int64_t count, int64_t width, T* columns) {
  constexpr int V = simd<T>::lanes;
  for (int64_t first = 0; first < kCols<T>; first += V)
    if (first + V <= count && width % V == 0)
      pack_block<T, kCols<T>>(first, width, columns,
                              [&](int r, int64_t k) { return load<T>(rows + (first + r) * width + k); });
    else
      pack_block<T, kCols<T>>(first, width, columns, [&](int r, int64_t k) {
        return first + r < count ? load_tail<T>(rows + (first + r) * width, k, width) : vec<T>{};
      });
}

// columns [width, R] -> rows [count <= R, width] row-major
template <class T>
inline void to_rows(const T* columns, int64_t count, int64_t width, T* rows) {
  constexpr int V = simd<T>::lanes;
  for (int64_t first = 0; first < count; first += V)
    for (int64_t k = 0; k < width; k += V) {
      const int64_t valid = std::min<int64_t>(V, width - k), points = std::min<int64_t>(V, count - first);
      vec<T> block[V];
#pragma GCC unroll 16
      for (int i = 0; i < V; ++i) block[i] = i < valid ? load<T>(columns + (k + i) * kCols<T> + first) : vec<T>{};
      transpose<T>(block);
#pragma GCC unroll 16
      for (int r = 0; r < V; ++r) {
        if (r >= points) break;
        T* to = rows + (first + r) * width + k;
        const vec<T> row = block[r];
        if (valid == V)
          store<T>(to, row);
        else
          for (int i = 0; i < valid; ++i) to[i] = row[i];
      }
    }
}

}  // namespace otk::OTK_ISA
