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

  static constexpr uint32_t all = (uint64_t(1) << L) - 1;
  static constexpr int64_t kMostPairs = kMostNeighbours + kMostRoom + L;

  Buffers<T> kept;

  template <class RowAt>
  void pack_rows(RowAt&& row_at, int64_t count, const T* centre) {
    Base::pack(row_at, count, centre, [&](int64_t r) { lower[r] = kept.bar[row_at(r) - kept.from]; });
  }

  // The negated costs, as l2_argmin sums them, of row i and these columns; whether none is NaN.
  bool sum(int64_t i, const int64_t* columns, int64_t count, T* gains) {
    considered += count;
    bool known = true;
    for (int64_t first = 0; first < count; first += L) {
      const T* points[L];
      vec<T> offsets{};
      for (int64_t c = 0; c < L; ++c) {
        const int64_t j = columns[std::min(first + c, count - 1)];
        points[c] = y + j * d;
        if (potential) offsets[c] = potential[j];
      }
      const vec<T> cost = squared_distances<T>(x + i * d, points, d) - offsets;
      for (int64_t c = 0; c < L; ++c) known &= cost[c] == cost[c];
      store<T>(gains + first, -cost);
    }
    return known;
  }

  // The pairs of row i in the result, and behind them, summed now, those of the columns that it keeps: in ascending order
  // of columns. Returns how many, or kNaN.
  int64_t gather(int64_t i, T* gains, int64_t* columns) {
    const int64_t row = i - kept.from, settled = kept.settled[row], count = kept.count[row];
    kept.count[row] = 0;
    if (settled == kNaN) return kNaN;
    for (int64_t c = 0; c < settled; ++c) gains[c] = -value[i * kept.k + c], columns[c] = index[i * kept.k + c];
    std::copy_n(kept.column + row * kept.room, count, columns + settled);
    const bool known = sum(i, columns + settled, count, gains + settled);
    return known ? settled + count : kNaN;
  }

  // Moves the kept columns of row r of the task into the result, where the k best stay; raises L_i.
  __attribute__((noinline)) void settle(int64_t r, int64_t i) {
    T gains[kMostPairs];
    int64_t columns[kMostPairs];
    const int64_t k = kept.k, row = i - kept.from;
    int64_t count = gather(i, gains, columns);
    if (count > k) count = keep_best(gains, columns, count, threshold_of(gains, count, k, k));
    kept.settled[row] = count;
    T bound = kInf<T>;
    bool known = count == k;
    for (int64_t c = 0; c < count; ++c) {
      value[i * k + c] = -gains[c], index[i * k + c] = columns[c];
      if (gains[c] == kInf<T>) continue;  // of a potential of +inf: above every bound
      const T lowest = this->settled_bound(r, -gains[c], potential_of(columns[c]));
      known &= lowest == lowest;
      bound = std::min(bound, lowest);
    }
    if (known) raise(r, bound);
  }

  void raise(int64_t r, T bound) {
    if (bound > lower[r] && bound < kInf<T>) lower[r] = bound;
  }

  // Makes room for a tile's columns in row r's buffer.
  __attribute__((noinline)) void thin(int64_t r, int64_t i) {
    const int64_t at = i - kept.from, count = kept.count[at];
    T *const low = kept.low + at * kept.room, *const high = kept.high + at * kept.room;
    int64_t* const column = kept.column + at * kept.room;
    if (count >= kept.k) {
      T keys[kMostRoom];
      std::copy_n(low, count, keys);
      raise(r, threshold_of(keys, count, kept.k, kept.k + kept.k / 8 + 1).at);
    }
    int64_t left = 0;
    for (int64_t c = 0; c < count; c += L) {
      const uint32_t exist = count - c < L ? (1u << (count - c)) - 1 : all;
      const vec<T> lows = load<T>(low + c), highs = load<T>(high + c);
      const uint32_t chosen = not_less<T>(highs, lower[r]) & exist;
      store_chosen<T>(low + left, lows, chosen), store_chosen<T>(high + left, highs, chosen);
      store_chosen_numbers(column + left, column + c, chosen);
      left += __builtin_popcount(chosen);
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
    const vec<T> lowest = broadcast<T>(-kInf<T>), highest = broadcast<T>(kInf<T>);
    for (int half = 0; half < 2; ++half) {
      const uint32_t chosen = uint32_t(mask >> half * L) & all;
      const vec<T> low = scores[half] - error, high = scores[half] + error;
      const int64_t at = row * kept.room + kept.count[row];
      store_chosen<T>(kept.low + at, low > lowest ? low : lowest, chosen);  // of a NaN -inf
      store_chosen<T>(kept.high + at, high < highest ? high : highest, chosen);
      kept.count[row] += store_chosen_columns(kept.column + at, first + half * L, chosen);
    }
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
    T gains[kMostPairs];
    int64_t columns[kMostPairs];
    const int64_t k = kept.k, count = gather(i, gains, columns);
    if (count == kNaN) {
      std::fill_n(value + i * k, k, std::numeric_limits<T>::quiet_NaN());
      std::fill_n(index + i * k, k, int64_t(-1));
    } else {
      write_sorted(gains, columns, count, k, value + i * k, index + i * k);
    }
  }
};

}  // namespace otk::OTK_ISA
