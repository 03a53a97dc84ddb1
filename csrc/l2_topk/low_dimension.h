// low_dimension.h - l2_topk for d <= kLowDimension (see l2_argmin/low_dimension.h): all costs are summed from differences.
//
// A row keeps the columns whose cost is below its bar, and the first k whatever they cost. When there is no room left, it
// thins them out: the bar becomes a cost that k of the kept ones reach, those above leave, and of equal ones the later. So a
// column costs no more than its share of a thinning out, in whatever order columns come. Finite input only.
#pragma once
#include "l2_argmin/low_dimension.h"
#include "l2_topk/select.h"

namespace otk::OTK_ISA {

// The columns that `rows` rows keep, in ascending order, and the negated costs of these.
template <class T>
struct Kept {
  int64_t k, room;
  T* gain;  // [rows, room]
  int64_t* column;  // [rows, room]
  int64_t* count;  // [rows]
  T* bar;  // [rows]: later columns that cost as much or more are not wanted

  // Makes room for a vector.
  __attribute__((noinline)) void thin(int64_t r) {
    T* const gains = gain + r * room;
    const Threshold<T> threshold = threshold_of(gains, count[r], k, k + k / 8 + 1);
    count[r] = keep_best(gains, column + r * room, count[r], threshold);
    bar[r] = -threshold.at;
  }

  void append(int64_t r, vec<T> cost, uint32_t mask, int64_t first) {
    if (count[r] + simd<T>::lanes > room) {
      thin(r);
      mask &= ~not_less<T>(cost, bar[r]);
    }
    const int64_t at = r * room + count[r];
    store_chosen<T>(gain + at, -cost, mask);
    count[r] += store_chosen_columns(column + at, first, mask);
  }

  void write(int64_t r, T* value, int64_t* index) {
    write_sorted(gain + r * room, column + r * room, count[r], k, value, index);
  }
};

// Rows x [kLowRows, d], which are rows r0.. of `kept`, against `count` columns from column `start` on.
template <int d, class T>
void keep_from_planes(Kept<T>& kept, int64_t r0, int64_t rows, const T* x, const T* planes, int64_t plane, const T* offset,
                      int64_t start, int64_t count) {
  constexpr int64_t L = simd<T>::lanes;
  constexpr uint32_t all = (uint64_t(1) << L) - 1;
  T bar[kLowRows];
  for (int64_t r = 0; r < kLowRows; ++r) bar[r] = r < rows ? kept.bar[r0 + r] : -kInf<T>;
  for (int64_t j = 0; j < count; j += L) {
    const vec<T> taken = load<T>(offset + j);
    vec<T> cost[kLowRows];
    uint32_t mask[kLowRows], any = 0;
#pragma GCC unroll 8
    for (int r = 0; r < kLowRows; ++r) {
      cost[r] = plane_costs<d, T>(x + r * d, planes + j, plane, taken);
      any |= mask[r] = all & ~not_less<T>(cost[r], bar[r]);
    }
    const int64_t due = kept.k - (start + j);  // of the first k columns
    if (!any && due <= 0) continue;
    const uint32_t exist = count - j < L ? (1u << (count - j)) - 1 : all;
    const uint32_t first = due >= L ? all : due > 0 ? (1u << due) - 1 : 0;
    for (int64_t r = 0; r < rows; ++r) {
      const uint32_t wanted = (mask[r] | first) & exist;
      if (!wanted) continue;
      kept.append(r0 + r, cost[r], wanted, start + j);
      bar[r] = kept.bar[r0 + r];
    }
  }
}

// All rows of finite x [n, d] against finite y [m, d]: blocks of rows, so that memory stays small.
template <int d, class T>
void solve_low(const Points<T>& p, int64_t k, int threads) {
  constexpr int64_t L = simd<T>::lanes;
  const int64_t plane = round_up(std::min(p.m, kLowChunk), L), room = room_for(k);
  const int64_t block = std::min(p.n, kBlockEntries / room);
  Scratch<T> scratch((d + 1) * plane + block * (room + 1));
  Scratch<int64_t> numbers(block * (room + 1));
  T *const planes = scratch.get(), *const offset = planes + d * plane, *const gains = offset + plane;
  const Kept<T> shared{k, room, gains, numbers.get(), numbers.get() + block * room, gains + block * room};
#pragma omp parallel num_threads(threads) if (threads > 1)
  for (int64_t from = 0; from < p.n; from += block) {
    Kept<T> kept = shared;
    const int64_t rows = std::min(block, p.n - from);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; ++r) kept.count[r] = 0, kept.bar[r] = kInf<T>;
    for (int64_t start = 0; start < p.m; start += kLowChunk) {
      const int64_t count = std::min(kLowChunk, p.m - start);
#pragma omp for schedule(static)
      for (int64_t j = 0; j < round_up(count, L); ++j) {
        const int64_t at = start + std::min(j, count - 1);
        for (int c = 0; c < d; ++c) planes[c * plane + j] = p.y[at * d + c];
        offset[j] = p.potential ? p.potential[at] : T(0);
      }
#pragma omp for schedule(dynamic, 16)
      for (int64_t r = 0; r < rows; r += kLowRows) {
        const int64_t there = std::min<int64_t>(kLowRows, rows - r);
        T points[kLowRows * d];
        for (int64_t c = 0; c < kLowRows * d; ++c) points[c] = p.x[(from + r) * d + std::min(c, there * d - 1)];
        keep_from_planes<d, T>(kept, r, there, points, planes, plane, offset, start, count);
        if (start + count < p.m) continue;
        for (int64_t i = r; i < r + there; ++i) kept.write(i, p.value + (from + i) * k, p.index + (from + i) * k);
      }
    }
  }
}

}  // namespace otk::OTK_ISA
