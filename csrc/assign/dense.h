// dense.h - one assignment problem with its whole cost matrix: Jonker & Volgenant's method (1987).
//
// Column reduction, reduction transfer and two rounds of augmenting row reduction (each free row takes its best column and
// lowers that column's v until the second best is as good) find most pairs; shortest augmenting paths (Dijkstra's algorithm
// over columns) find the rest. A step of a search is one pass over a row of the matrix, a vector at a time.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include "common/tile.h"

namespace otk::OTK_ISA {

constexpr double kFar = std::numeric_limits<double>::infinity();
using Doubles = vec<double>;
using Longs = simd<double>::ints;

// Costs of rows [from, to) from differences: cost [.., stride], +inf beyond column m. panels: y as doubles, kCols a panel.
template <class T>
void dense_costs(const T* x, const double* panels, const double* offset, int64_t from, int64_t to, int64_t d,
                 int64_t stride, double* cost) {
  constexpr int C = kCols<double>, L = simd<double>::lanes;
  for (int64_t i = from; i < to; i += kRows) {
    const T* row[kRows];
    for (int r = 0; r < kRows; ++r) row[r] = x + std::min(i + r, to - 1) * d;
    for (int64_t panel = 0; panel * C < stride; ++panel) {
      Tile<double> tile;
      tile.zero();
      const double* b = panels + panel * C * d;
      for (int64_t k = 0; k < d; ++k, b += C) {
        const Doubles b0 = load<double>(b), b1 = load<double>(b + L);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const double a = double(row[r][k]);
          const Doubles difference0 = a - b0, difference1 = a - b1;
          tile.acc[r][0] += difference0 * difference0;
          tile.acc[r][1] += difference1 * difference1;
        }
      }
      const Doubles o0 = load<double>(offset + panel * C), o1 = load<double>(offset + panel * C + L);
      for (int r = 0; r < std::min<int64_t>(kRows, to - i); ++r) {
        store<double>(cost + (i + r) * stride + panel * C, tile.acc[r][0] - o0);
        store<double>(cost + (i + r) * stride + panel * C + L, tile.acc[r][1] - o1);
      }
    }
  }
}

// The least two of a row's c_ij - v_j, and the column of the least (the lowest of equal ones).
struct BestTwo {
  double least, second;
  int64_t column;
};

struct Dense {
  const double* cost;  // [n, stride], +inf beyond m
  int64_t n, m, stride;
  double* v;  // [stride]
  int64_t* match;  // [n]
  int64_t* owner;  // [stride]; beyond m never looked at
  double* distance;  // [stride]
  int64_t* from;  // [stride]: the row that a column was reached from
  int64_t* closed;  // [m]: columns whose distance is final, in order of closing
  double* closed_at;  // [m]: their distances
  int64_t* free;  // [n]
  int64_t most_steps;  // of reduce_rows

  static Longs counting() {
    Longs lane;
    for (int l = 0; l < simd<double>::lanes; ++l) lane[l] = l;
    return lane;
  }

  BestTwo best_two(int64_t i) const {
    constexpr int L = simd<double>::lanes;
    Doubles least = broadcast<double>(kFar), second = least;
    Longs where{}, column = counting();
    const double* row = cost + i * stride;
    for (int64_t j = 0; j < stride; j += L, column += L) {
      const Doubles w = load<double>(row + j) - load<double>(v + j);
      const auto lower = w < least;
      const Doubles loser = lower ? least : w;
      second = loser < second ? loser : second;
      where = lower ? column : where;
      least = lower ? w : least;
    }
    BestTwo best{kFar, kFar, 0};
    for (int l = 0; l < L; ++l) {
      if (least[l] < best.least || (least[l] == best.least && where[l] < best.column)) {
        best.second = best.least;
        best.least = least[l], best.column = where[l];
      } else {
        best.second = std::min(best.second, least[l]);
      }
    }
    for (int l = 0; l < L; ++l) best.second = std::min(best.second, second[l]);
    return best;
  }

  void give(int64_t j, int64_t i) { owner[j] = i, match[i] = j; }

  // v_j = min_i c_ij, a column to a row that is its nearest; then rows with one such column give up what they gain by it.
  void reduce_columns() {
    constexpr int L = simd<double>::lanes;
    int64_t* const nearest = from;
    for (int64_t j = 0; j < stride; j += L) {
      Doubles least = load<double>(cost + j);
      Longs where{};
      for (int64_t i = 1; i < n; ++i) {
        const Doubles c = load<double>(cost + i * stride + j);
        const auto lower = c < least;
        where = lower ? Longs{} + i : where;
        least = lower ? c : least;
      }
      store<double>(v + j, least);
      for (int l = 0; l < L; ++l) nearest[j + l] = where[l];
    }
    for (int64_t j = m; j < stride; ++j) v[j] = 0;
    std::fill_n(closed, n, int64_t(0));  // how many columns are nearest to a row
    for (int64_t j = m - 1; j >= 0; --j)
      if (++closed[nearest[j]] == 1) give(j, nearest[j]);
    for (int64_t i = 0; i < n; ++i)
      if (closed[i] == 1) {
        const double own = v[match[i]];
        v[match[i]] = -kFar;  // the least among the others
        const double least = best_two(i).least;
        v[match[i]] = own - (least < kFar ? least : 0);
      }
  }

  // Free rows take their best columns, lowered to where the second best is as good; two rounds, as its authors have it, but
  // rows take columns from each other at most most_steps times: wars of prices would cost more than searches save.
  void reduce_rows() {
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i)
      if (match[i] < 0) free[count++] = i;
    int64_t steps = most_steps;
    for (int round = 0; round < 2; ++round) {
      int64_t next = 0, kept = 0;
      const int64_t all = count;
      while (next < all) {
        const int64_t i = free[next++];
        const BestTwo best = best_two(i);
        const bool lowers = best.second < kFar && best.second > best.least;
        const int64_t other = owner[best.column];
        if (other >= 0 && !(lowers && steps-- > 0)) {
          free[kept++] = i;
          continue;
        }
        if (lowers) v[best.column] -= best.second - best.least;
        give(best.column, i);
        if (other < 0) continue;
        match[other] = -1;
        free[--next] = other;  // its turn at once
      }
      count = kept;
    }
  }

  // Distances through row i, which is reached at base = D - (what its own pair costs), to columns that are still open;
  // returns the nearest of these. Closed columns have distance -inf.
  int64_t relax(int64_t i, double base) {
    constexpr int L = simd<double>::lanes;
    const double* row = cost + i * stride;
    Doubles least = broadcast<double>(kFar);
    Longs where{}, column = counting();
    for (int64_t j = 0; j < stride; j += L, column += L) {
      const Doubles reached = load<double>(row + j) - load<double>(v + j) + base, known = load<double>(distance + j);
      const auto shorter = reached < known;
      Longs before;
      std::memcpy(&before, from + j, sizeof(before));
      before = shorter ? Longs{} + i : before;
      std::memcpy(from + j, &before, sizeof(before));
      const Doubles now = shorter ? reached : known;
      store<double>(distance + j, now);
      const auto lower = (now < least) & (now > -kFar);
      where = lower ? column : where;
      least = lower ? now : least;
    }
    int64_t nearest = where[0];
    double value = least[0];
    for (int l = 1; l < L; ++l)
      if (least[l] < value || (least[l] == value && where[l] < nearest)) value = least[l], nearest = where[l];
    return nearest;
  }

  // The shortest path from a free row to a free column; v falls by what each column on the way was nearer than that.
  void augment(int64_t row) {
    std::fill_n(distance, stride, kFar);
    int64_t count = 0, i = row, j;
    double reached = -kFar, base = 0;
    for (;;) {
      j = relax(i, base);
      const double at = distance[j];
      if (at == reached)  // ties: a free column ends the search
        for (int64_t other = 0; other < m && owner[j] >= 0; ++other)
          if (owner[other] < 0 && distance[other] == at) j = other;
      reached = std::max(reached, at);  // a rounding less would raise v
      if (owner[j] < 0) break;
      closed_at[count] = reached, closed[count++] = j;
      i = owner[j];
      base = reached - (cost[i * stride + j] - v[j]);
      distance[j] = -kFar;
    }
    for (int64_t k = 0; k < count; ++k) v[closed[k]] -= reached - closed_at[k];
    for (i = -1; i != row;) {
      i = from[j];
      const int64_t left = match[i];
      give(j, i);
      j = left;
    }
  }

  void solve() {
    std::fill_n(owner, stride, int64_t(-1));
    std::fill_n(match, n, int64_t(-1));
    std::fill_n(v, stride, 0.0);
    if (n == m) reduce_columns();
    reduce_rows();
    for (int64_t i = 0; i < n; ++i)
      if (match[i] < 0) augment(i);
  }
};

}  // namespace otk::OTK_ISA
