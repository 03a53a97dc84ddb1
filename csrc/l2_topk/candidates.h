// candidates.h - which columns may be among a row's k nearest, by products, and their settling by differences (see l2_topk.h
// for the proof).
//
// A row has a buffer of columns with the bounds of their scores, and the best pairs settled so far, which stand in the result.
// When the buffer is full, L_i rises to its k-th largest lower bound and the columns below leave. Where too many remain (ties,
// neighbours that the products cannot tell apart) all are settled, and L_i follows from the k best of these. So a column is
// settled at most once, and shares a thinning out with a tile of others, in whatever order columns come.
#pragma once
#include "l2_topk/select.h"

namespace otk::OTK_ISA {

// A block of rows, whose state outlasts a chunk of columns.
template <class T>
struct Buffers {
  int64_t from, k, room;
  T *low, *high;  // [rows, room]: lower and upper bounds of scores
  int64_t* column;  // [rows, room]
  int64_t* count;  // [rows]: of kept columns
  int64_t* settled;  // [rows]: pairs in the result, kNaN after a NaN cost
  T* bar;  // [rows]: L_i
};

template <class T, class Product>
struct TopCandidates : Panels<T, Product> {
  using Base = Panels<T, Product>;
  using Base::C, Base::considered, Base::d, Base::index, Base::L, Base::lower, Base::potential, Base::potential_of,
      Base::value, Base::x, Base::y;

  Buffers<T> kept;

  template <class RowAt>
  void pack_rows(RowAt&& row_at, int64_t count, const T* centre) {
    Base::pack_rows(row_at, count, centre);
    for (int64_t r = 0; r < count; ++r) lower[r] = kept.bar[row_at(r) - kept.from];
  }

  // The costs of `count` kept columns of row i, as l2_argmin sums them, behind `list`; whether none is NaN.
  bool sum(int64_t i, const int64_t* columns, int64_t count, Neighbour<T>* list) {
    considered += count;
    for (int64_t first = 0; first < count; first += L) {
      const T* points[L];
      vec<T> offsets{};
      const int64_t last = std::min<int64_t>(L, count - first) - 1;
      for (int64_t c = 0; c < L; ++c) {
        const int64_t j = columns[first + std::min(c, last)];
        points[c] = y + j * d;
        if (potential) offsets[c] = potential[j];
      }
      const vec<T> cost = squared_distances<T>(x + i * d, points, d) - offsets;
      for (int64_t c = 0; c <= last; ++c) {
        if (cost[c] != cost[c]) return false;
        list[first + c] = {cost[c], columns[first + c]};
      }
    }
    return true;
  }

  // Moves the kept columns of row r of the task into the result, where the k best stay, in no order; raises L_i.
  __attribute__((noinline)) void settle(int64_t r, int64_t i) {
    const int64_t at = i - kept.from, k = kept.k;
    int64_t &settled = kept.settled[at], count = settled;
    if (settled == kNaN) {
      kept.count[at] = 0;
      return;
    }
    Neighbour<T> list[kMostNeighbours + kMostRoom];
    T* const costs = value + i * k;
    int64_t* const columns = index + i * k;
    for (int64_t c = 0; c < count; ++c) list[c] = {costs[c], columns[c]};
    const bool known = sum(i, kept.column + at * kept.room, kept.count[at], list + count);
    count += kept.count[at];
    kept.count[at] = 0;
    if (!known) {
      settled = kNaN;
      return;
    }
    settled = std::min(count, k);
    if (count > k) std::nth_element(list, list + k - 1, list + count);
    T bound = kInf<T>;
    for (int64_t c = 0; c < settled; ++c) {
      costs[c] = list[c].cost, columns[c] = list[c].j;
      const T lowest = this->settled_bound(r, list[c].cost, potential_of(list[c].j));
      bound = lowest >= bound ? bound : lowest;
    }
    if (settled == k && bound > lower[r] && bound < kInf<T>) lower[r] = bound;
  }

  // Makes room for a tile's columns in row r's buffer.
  __attribute__((noinline)) void thin(int64_t r, int64_t i) {
    const int64_t at = i - kept.from, count = kept.count[at];
    T *const low = kept.low + at * kept.room, *const high = kept.high + at * kept.room;
    int64_t* const column = kept.column + at * kept.room;
    if (count >= kept.k) {
      T keys[kMostRoom];
      std::copy_n(low, count, keys);
      const T bound = threshold_of(keys, count, kept.k).at;
      if (bound > lower[r] && bound < kInf<T>) lower[r] = bound;
    }
    int64_t left = 0;
    for (int64_t c = 0; c < count; ++c) {
      low[left] = low[c], high[left] = high[c], column[left] = column[c];
      left += !(high[c] < lower[r]);
    }
    kept.count[at] = left;
    if (left > kept.room - 2 * C) settle(r, i);
  }

  // Keeps the columns `mask` of a tile's row.
  void keep(int64_t r, int64_t i, const vec<T>* scores, uint64_t mask, int64_t first, T error) {
    const int64_t row = i - kept.from;
    if (kept.count[row] + C > kept.room) {
      thin(r, i);
      mask &= not_less<T>(scores[0], lower[r] - error) | uint64_t(not_less<T>(scores[1], lower[r] - error)) << L;
    }
    T score[C];
    store<T>(score, scores[0]), store<T>(score + L, scores[1]);
    int64_t at = row * kept.room + kept.count[row];
    for (; mask; mask &= mask - 1, ++at) {
      const int c = __builtin_ctzll(mask);
      const T low = score[c] - error, high = score[c] + error;
      kept.low[at] = low > -kInf<T> ? low : -kInf<T>;  // of a NaN -inf
      kept.high[at] = high < kInf<T> ? high : kInf<T>;
      kept.column[at] = first + c;
    }
    kept.count[row] = at - row * kept.room;
  }

  // `count` packed rows against columns [first, last), which stand from panel `panel` on.
  template <class RowAt>
  void scan(RowAt&& row_at, int64_t count, int64_t panel, int64_t first, int64_t last) {
    this->scan_tiles(count, panel, first, last,
                     [&](const Tile<T>& tile, int64_t r0, int64_t rows, int64_t column, int64_t columns, const T* error) {
                       const uint64_t exist = (uint64_t(2) << (columns - 1)) - 1;
                       for (int64_t r = 0; r < rows; ++r) {
                         const T bar = lower[r0 + r] - error[r];
                         const uint64_t mask =
                             (not_less<T>(tile.acc[r][0], bar) | uint64_t(not_less<T>(tile.acc[r][1], bar)) << L) & exist;
                         if (mask) keep(r0 + r, row_at(r0 + r), tile.acc[r], mask, column, error[r]);
                       }
                     });
    for (int64_t r = 0; r < count; ++r) kept.bar[row_at(r) - kept.from] = lower[r];
  }

  // Settles what row r of the task still keeps and sorts its result.
  void finish(int64_t r, int64_t i) {
    thin(r, i);
    if (kept.count[i - kept.from] > 0) settle(r, i);
    const int64_t k = kept.k;
    if (kept.settled[i - kept.from] == kNaN) {
      std::fill_n(value + i * k, k, std::numeric_limits<T>::quiet_NaN());
      std::fill_n(index + i * k, k, int64_t(-1));
      return;
    }
    Neighbour<T> list[kMostNeighbours];
    for (int64_t c = 0; c < k; ++c) list[c] = {value[i * k + c], index[i * k + c]};
    std::sort(list, list + k);
    for (int64_t c = 0; c < k; ++c) value[i * k + c] = list[c].cost, index[i * k + c] = list[c].j;
  }
};

}  // namespace otk::OTK_ISA
