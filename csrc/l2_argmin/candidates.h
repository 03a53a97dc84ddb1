// candidates.h - which columns may be a row's nearest, by products, and their settling by differences (see l2_argmin.h for
// the bound).
//
// A y panel stays in L1 while a task's rows pass over it. Most tiles end after one comparison per vector. In the others a
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
#include <algorithm>
#include <cmath>

#include "l2_argmin/differences.h"
#include "l2_argmin/product.h"

namespace otk::OTK_ISA {

constexpr int64_t kNothing = -1, kNaN = -2;  // index while no candidate was seen, after a NaN cost

template <class T>
constexpr T kInf = std::numeric_limits<T>::infinity();

template <class T>
struct Points {
  const T* x;
  const T* y;
  const T* potential;
  T* value;
  int64_t* index;
  int64_t n, m, d;

  T potential_of(int64_t j) const { return potential ? potential[j] : T(0); }

  // The pair's cost into the row's value and index: the lower wins, of equal ones the lower index, a NaN for good.
  void take(int64_t i, int64_t j, T cost) {
    if (index[i] == kNaN) return;
    if (cost != cost) {
      index[i] = kNaN;
      value[i] = cost;
    } else if (index[i] == kNothing || cost < value[i] || (cost == value[i] && j < index[i])) {
      index[i] = j;
      value[i] = cost;
    }
  }

  void consider(int64_t i, int64_t j) {
    if (index[i] != kNaN) take(i, j, squared_distance(x + i * d, y + j * d, d) - potential_of(j));
  }
};

// The y points to choose from: all, or the `count` of a list.
struct Columns {
  const int64_t* list;
  int64_t count;

  int64_t operator[](int64_t c) const { return list ? list[c] : c; }
};

template <class T, class Product>
struct Candidates : Points<T> {
  using Points<T>::x, Points<T>::y, Points<T>::potential, Points<T>::value, Points<T>::index, Points<T>::d;
  using Points<T>::potential_of, Points<T>::consider, Points<T>::take;

  Columns columns;
  T grow, unit, slack, absolute;  // of the bound: see set_bound

  // The chunk's y, panel after panel.
  T* panels;
  T* half;  // -(|y'_j|^2 - potential_j) / 2, -inf beyond the last column
  T* along;  // what |x'| is multiplied by in e_ij, per panel
  T* norm;  // what |r_x| is multiplied by
  T* fixed;  // the rest
  // This thread's rows of x.
  T* x_panels;
  T* x_square;
  T* x_norm;
  T* x_lost;  // |r_x|
  T* x_fixed;
  T* lower;  // L_i; +inf for rows past the end, which have no candidates
  int64_t considered = 0;

  static constexpr int C = kCols<T>, L = simd<T>::lanes;
  static constexpr int kTogether = L < 8 ? 2 : L / 4;  // candidates of a row in a tile that are worth a vector
  static constexpr int kPanelFacts = C + 3, kRowFacts = 5;

  // Where e_ij (l2_argmin.h) takes its constants from.
  void set_bound() {
    constexpr T epsilon = std::numeric_limits<T>::epsilon();
    grow = 1 + (T(d) + 16) * epsilon;
    // Beyond d u = 1/8 the bound's proof ends: then every column is a candidate.
    unit = T(d) * epsilon < T(0.25) ? T(0.625) * (T(d) + 16) * epsilon : kInf<T>;
    slack = (T(d) + 16) * epsilon / 2;
    absolute = 4 * (T(d) + 1) * Product::kFlush;
  }

  // The square roots or more, where squares may have vanished.
  vec<T> lengths(vec<T> squares) const { return grow * square_root<T>(squares + T(d) * std::numeric_limits<T>::min()); }

  T* place_panels(T* memory, int64_t count) {
    panels = memory;
    half = panels + count * C * Product::words(d);
    along = half + count * C, norm = along + count, fixed = norm + count;
    return fixed + count;
  }

  T* place_rows(T* memory, int64_t count) {
    x_panels = memory;
    x_square = x_panels + count * Product::words(d);
    x_norm = x_square + count, x_lost = x_norm + count, x_fixed = x_lost + count, lower = x_fixed + count;
    return lower + count;
  }

  // Columns [first, first + count) as panel number `panel`.
  void pack_panel(int64_t panel, int64_t first, int64_t count, const T* centre) {
    T square = 0, rest = 0, lost = 0;
    for (int64_t begin = 0; begin < C; begin += L) {
      const Norms<T> norms = pack_points<Product, C>([&](int64_t c) { return y + columns[first + c] * d; }, begin, count, d,
                                                     centre, panels + panel * C * Product::words(d));
      for (int l = 0; l < L; ++l) {
        const int64_t c = begin + l;
        const T p = c < count ? potential_of(columns[first + c]) : T(0);
        half[panel * C + c] = c < count ? (p - norms.squares[l]) / 2 : -kInf<T>;
        // A NaN need not enlarge these: its own column's scores are NaN, candidates whatever the bound.
        square = std::max(square, norms.squares[l]);
        rest = std::max(rest, norms.squares[l] + (p < 0 ? -p : p));
        if constexpr (Product::kRounds) lost = std::max(lost, norms.lost[l]);
      }
    }
    const vec<T> longest = lengths(vec<T>{square, lost});
    norm[panel] = T(1.01) * longest[0];
    along[panel] = unit * longest[0] + (Product::kRounds ? T(1.01) * longest[1] : T(0));
    fixed[panel] = unit * rest + absolute;
  }

  // Packs rows row_at(0).. of x; their L_i follow from the values that they have.
  template <class RowAt>
  void pack_rows(RowAt&& row_at, int64_t count, const T* centre) {
    const int64_t padded = (count + kRows - 1) / kRows * kRows;
    for (int64_t first = 0; first < padded; first += L) {
      const Norms<T> norms =
          pack_points<Product, kRows>([&](int64_t r) { return x + row_at(r) * d; }, first, count, d, centre, x_panels);
      store<T>(x_square + first, norms.squares);
      store<T>(x_norm + first, lengths(norms.squares));
      store<T>(x_lost + first, Product::kRounds ? lengths(norms.lost) : vec<T>{});
      store<T>(x_fixed + first, 2 * std::numeric_limits<T>::epsilon() * norms.squares);
      for (int64_t r = first; r < first + L; ++r) {
        lower[r] = r < count ? -kInf<T> : kInf<T>;
        if (r < count) raise(r, row_at(r));
      }
    }
  }

  // L_i from the distance of the best pair so far: no larger than the true maximum of s_i.
  void raise(int64_t r, int64_t i) {
    if (index[i] < 0) return;
    const T v = value[i], p = potential_of(index[i]), square = x_square[r];
    const T bound = (square - v) / 2 - slack * (square + std::abs(v) + std::abs(p)) - absolute;
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
    const int64_t words = Product::words(d);
    for (; first < last; first += C, ++panel) {
      const T* b = panels + panel * C * words;
      const vec<T> h0 = load<T>(half + panel * C), h1 = load<T>(half + panel * C + L);
      for (int64_t r0 = 0; r0 < count; r0 += kRows) {
        Tile<T> tile;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) tile.acc[r][0] = h0, tile.acc[r][1] = h1;
        Product::multiply_add(tile, x_panels + r0 * words, b, words);
        T error[kRows], bar[kRows];
        for (int r = 0; r < kRows; ++r) {
          error[r] = along[panel] * x_norm[r0 + r] + norm[panel] * x_lost[r0 + r] + (x_fixed[r0 + r] + fixed[panel]);
          bar[r] = lower[r0 + r] - error[r];
        }
        uint32_t hit = 0;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) hit |= not_less<T>(tile.acc[r][0], bar[r]) | not_less<T>(tile.acc[r][1], bar[r]);
        if (hit)
          visit(tile, row_at, r0, std::min<int64_t>(kRows, count - r0), first, std::min<int64_t>(C, last - first), error);
      }
    }
  }
};

}  // namespace otk::OTK_ISA
