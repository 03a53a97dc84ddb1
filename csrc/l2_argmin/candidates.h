// candidates.h - which columns may be a row's nearest, by products, and their settling by differences (see l2_argmin.h for
// the bound).
//
// Most tiles end after one comparison per vector. In the others a
// row's best column is settled first: its distance bounds the row's minimum better than any product does, and few of the
// other columns remain.
//
// Where points tie (a collapsed generator, a codebook of zeros) every column stays a candidate. kTogether and more of a
// row in a tile are settled a vector at a time: the candidates' lanes are added up for all of them at once (sum_each), in
// the order and to the bits of one alone, so ties still go to the lowest index. N = M = 2048, all y equal, one thread of an
// AMD EPYC with AVX512_BF16, one by one -> together, in ms (random points in brackets): d = 5: 170 -> 10.7 (1.1),
// 16: 47 -> 10.2 (1.7), 64: 54 -> 27 (3.6), 128: 68 -> 41 (6.2), 784: 227 -> 200 (35). Plain differences by torch.cdist
// took 14 to 27, 28 and 144 at d = 5, 16 and 64.
#pragma once
#include "l2_argmin/panels.h"

namespace otk::OTK_ISA {

template <class T, class Product>
struct Candidates : Panels<T, Product> {
  using Base = Panels<T, Product>;
  using Base::C, Base::columns, Base::considered, Base::consider, Base::L, Base::lower, Base::potential_of, Base::take;
  using Base::x, Base::y, Base::potential, Base::value, Base::index, Base::d;

  static constexpr int kTogether = L < 8 ? 2 : L / 4;  // candidates of a row in a tile that are worth a vector

  // Packs rows row_at(0).. of x; their L_i follow from the values that they have.
  template <class RowAt>
  void pack_rows(RowAt&& row_at, int64_t count, const T* centre) {
    Base::pack(row_at, count, centre, [&](int64_t r) { raise(r, row_at(r)); });
  }

  // L_i from the distance of the best pair so far: no larger than the true maximum of s_i.
  void raise(int64_t r, int64_t i) {
    if (index[i] < 0) return;
    const T bound = this->settled_bound(r, value[i], potential_of(index[i]));
    if (bound > lower[r] && bound < kInf<T>) lower[r] = bound;
  }

  // consider() for one column a lane (the last may be repeated): the same sums, to the bit.
  void consider_together(int64_t i, const int64_t* chosen) {
    if (index[i] == kNaN) return;
    const T* points[L];
    vec<T> offsets{};
    for (int c = 0; c < L; ++c) points[c] = y + chosen[c] * d;
    if (potential)
      for (int c = 0; c < L; ++c) offsets[c] = potential[chosen[c]];
    const vec<T> cost = squared_distances<T>(x + i * d, points, d) - offsets, gain = -cost;
    if (not_less<T>(gain, kInf<T>)) {  // a NaN, or a potential of +inf
      for (int c = 0; c < L; ++c) consider(i, chosen[c]);
      return;
    }
    const int lane = __builtin_ctz(not_less<T>(gain, max_lane<T>(gain)));
    take(i, chosen[lane], cost[lane]);
  }

  // Settles the columns first + (each bit of `candidates`), lowest first.
  void settle(int64_t i, int64_t first, uint64_t candidates) {
    const int total = __builtin_popcountll(candidates);
    considered += total;
    if (total < kTogether) {
      for (; candidates; candidates &= candidates - 1) consider(i, columns[first + __builtin_ctzll(candidates)]);
      return;
    }
    while (candidates) {
      int64_t chosen[L];
      for (int c = 0; c < L; ++c) {
        chosen[c] = candidates ? columns[first + __builtin_ctzll(candidates)] : chosen[c - 1];
        candidates &= candidates - 1;
      }
      consider_together(i, chosen);
    }
  }

  // The rare path: raise L_i by this tile and by its best column, then settle each column that may still be nearest.
  template <class RowAt>
  __attribute__((noinline)) void visit(const Tile<T>& tile, RowAt&& row_at, int64_t r0, int64_t rows, int64_t first,
                                       int64_t count, const T* error) {
    const uint64_t exist = (uint64_t(2) << (count - 1)) - 1;
    for (int64_t k = 0; k < rows; ++k) {
      const int64_t r = r0 + k;
      const vec<T> s0 = tile.acc[k][0], s1 = tile.acc[k][1];
      const auto above = [&](T bar) { return (not_less<T>(s0, bar) | uint64_t(not_less<T>(s1, bar)) << L) & exist; };
      if (!(not_less<T>(s0, lower[r] - error[k]) | not_less<T>(s1, lower[r] - error[k]))) continue;
      const int64_t i = row_at(r);
      const T best = max_lane<T>(s0 > s1 ? s0 : s1);
      if (best - error[k] > lower[r]) lower[r] = best - error[k];
      uint64_t candidates = above(lower[r] - error[k]);
      if (candidates & (candidates - 1)) {
        const uint64_t leader = above(best) & candidates;
        if (leader) {
          const int c = __builtin_ctzll(leader);
          settle(i, first, uint64_t(1) << c);
          raise(r, i);
          candidates &= above(lower[r] - error[k]) & ~(uint64_t(1) << c);
        }
      }
      if (!candidates) continue;
      settle(i, first, candidates);
      raise(r, i);
    }
  }

  // `count` packed rows against columns [first, last), which stand from panel `panel` on.
  template <class RowAt>
  void scan(RowAt&& row_at, int64_t count, int64_t panel, int64_t first, int64_t last) {
    this->scan_tiles(count, panel, first, last,
                     [&](const Tile<T>& tile, int64_t r0, int64_t rows, int64_t column, int64_t columns_there,
                         const T* error) { visit(tile, row_at, r0, rows, column, columns_there, error); });
  }
};

}  // namespace otk::OTK_ISA
