// cpu.cpp - l2_argmin on one instruction set (see l2_argmin.h for the bound that makes it exact).
//
// Points of up to kLowDimension coordinates go their own way (low_dimension.h). Large problems are first asked, by samples,
// for copies of points and for clusters (duplicates.h, groups.h); what is left is solved by candidates (candidates.h) in
// packed panels (panels.h). Where the machine multiplies bfloat16, these come from there: twice the rate. On clouds whose
// neighbours lie closer than bfloat16 resolves, the first rows' candidates tell, and float32 takes over.
//
// 4096 x 4096 points on two threads of an AMD EPYC with AVX512_BF16, d = 128 and 512, in ms, with a bound of
// 2^-8 (|x|^2 + |y|^2) and all columns -> with measured losses, settled pairs' bounds, copies and clusters left out: ten
// clusters about centres from N(0, 3^2), spread 1: 22 and 78 -> 3.3 and 8.7, spread 0.05: 33 and 129 -> 3.2 and 8.9; 64 copies
// of each point: 25 and 86 -> 0.5 and 2.5; normal points: 12 and 42 both times.
#include "l2_argmin/l2_argmin.h"

#include <algorithm>

#include "l2_argmin/groups.h"
#include "l2_argmin/low_dimension.h"

namespace otk::OTK_ISA {
namespace {

constexpr int64_t kAllowed = 16;  // candidates a row that cost little
constexpr int64_t kGroupProbe = 512;  // rows of x that do so for groups
constexpr double kLargeWork = 1 << 28;  // multiply-adds from which looking for duplicates and clusters costs little

// Solves rows [from, to) and returns how many candidates were looked at.
template <class Product, class T>
int64_t solve_rows(const Points<T>& points, const Columns& columns, int64_t from, int64_t to, int threads) {
  std::fill(points.index + from, points.index + to, kNothing);
  Candidates<T, Product> solver{};
  solver.columns = columns;
  const int64_t considered =
      sweep(solver, points, from, to, threads, [](auto& mine, auto& row_at, int64_t count, int64_t first, int64_t last) {
        mine.scan(row_at, count, 0, first, last);
      });
  for (int64_t i = from; i < to; ++i)
    if (points.index[i] == kNaN) points.index[i] = -1;
  return considered;
}

// Whether the points are few-dimensional and finite, so that they were solved without candidates.
template <class T, int d = kLowDimension>
bool solved_directly(const Points<T>& p, int threads) {
  if (p.d > d) return false;
  if constexpr (d > 1)
    if (p.d < d) return solved_directly<T, d - 1>(p, threads);
  if (!finite(p)) return false;
  solve_low<d>(p.x, p.y, p.potential, p.value, p.index, p.n, p.m, threads);
  return true;
}

// Solves rows [done, n) in the best precision.
template <class T>
void solve_from(const Points<T>& points, const Columns& columns, int64_t done, int threads) {
  in_best_precision(points, columns.count, done, kAllowed, [&]<class Product>(Product, int64_t from, int64_t to) {
    return solve_rows<Product>(points, columns, from, to, threads);
  });
}

// Solves rows while groups pay; returns how many.
template <class T>
int64_t solve_in_groups(const Points<T>& p, const Columns& columns, Groups<T>& groups, int threads) {
  Scratch<int64_t> order(columns.count);
  form_groups(p, columns, groups, order.get(), threads);
  [[maybe_unused]] bool rounded = p.d >= kBf16Dimension;
  for (int64_t from = 0, count; from < p.n; from += count) {
    count = std::min(from ? kGroupRows : kGroupProbe, p.n - from);
    Block<T> block(p, groups, from, count, threads);
    if (block.pairs > kMostPairs * double(count) * double(columns.count)) return from;
#if defined(__AVX512BF16__)
    if constexpr (sizeof(T) == 4) {
      if (rounded) {
        const int64_t considered = solve_block<Bf16>(p, groups, order.get(), block, threads, kChunkBytes);
        rounded = pays(considered, kAllowed * count, block.pairs, p.d);
        continue;
      }
    }
#endif
    solve_block<Plain<T>>(p, groups, order.get(), block, threads, kChunkBytes);
  }
  return p.n;
}

// The same where it costs little to look for duplicates and clusters first.
template <class T>
__attribute__((noinline)) void solve_large(const Points<T>& points, int threads) {
  const bool listed = has_duplicates(points);
  Scratch<int64_t> list(listed ? points.m : 0);
  const Columns columns{listed ? list.get() : nullptr, listed ? list_distinct(points, list.get(), threads) : points.m};
  Groups<T> groups;
  choose_pivots(points, columns, groups);
  const bool grouped = groups.count > 1 && T(points.d) * std::numeric_limits<T>::epsilon() < T(0.25) && finite(points);
  solve_from(points, columns, grouped ? solve_in_groups(points, columns, groups, threads) : 0, threads);
}

template <class T>
void solve(const Points<T>& points, int threads) {
  if (solved_directly(points, threads)) return;
  if (double(points.n) * double(points.m) * double(points.d) < kLargeWork)
    solve_from(points, {nullptr, points.m}, 0, threads);
  else
    solve_large(points, threads);
}

template <class T>
Points<T> at(const L2Argmin<T>& p, int64_t entry) {
  return {p.x + entry * p.x_stride,
          p.y + entry * p.y_stride,
          p.potential ? p.potential + entry * p.potential_stride : nullptr,
          p.value + entry * p.n,
          p.index + entry * p.n,
          p.n,
          p.m,
          p.d};
}

}  // namespace

template <class T>
void l2_argmin(const L2Argmin<T>& p, int threads) {
  const double work = double(p.n) * double(p.m) * double(p.d);
  for_each_entry(p.batch, work, threads, [&](int64_t entry, int team) { solve(at(p, entry), team); });
}

template void l2_argmin<float>(const L2Argmin<float>&, int);
template void l2_argmin<double>(const L2Argmin<double>&, int);

}  // namespace otk::OTK_ISA
