// cpu.cpp - l2_argmin on one instruction set (see l2_argmin.h for the bound that makes it exact).
//
// y is packed chunk by chunk (kChunkBytes, so memory stays bounded) in panels of kCols points; a task is a few panels of
// kRows rows of x. Points of up to kLowDimension coordinates go their own way (low_dimension.h). Large problems are first
// asked, by samples, for copies of points and for clusters (duplicates.h, groups.h); what is left is solved by candidates
// (candidates.h). Where the machine multiplies bfloat16, these come from there: twice the rate. On clouds whose neighbours
// lie closer than bfloat16 resolves, the first rows' candidates tell, and float32 takes over.
//
// 4096 x 4096 points on two threads of an AMD EPYC with AVX512_BF16, d = 128 and 512, in ms, with a bound of
// 2^-8 (|x|^2 + |y|^2) and all columns -> with measured losses, settled pairs' bounds, copies and clusters left out: ten
// clusters about centres from N(0, 3^2), spread 1: 22 and 78 -> 3.3 and 8.7, spread 0.05: 33 and 129 -> 3.2 and 8.9; 64 copies
// of each point: 25 and 86 -> 0.5 and 2.5; normal points: 12 and 42 both times.
#include "l2_argmin/l2_argmin.h"

#include <algorithm>

#include "common/memory.h"
#include "common/thread.h"
#include "l2_argmin/groups.h"
#include "l2_argmin/low_dimension.h"

namespace otk::OTK_ISA {
namespace {

constexpr int64_t kChunkBytes = 2 << 20;  // packed y at a time
constexpr int64_t kTaskBytes = 96 << 10;  // packed x of one task: stays in L2
constexpr int64_t kCentreRows = 32;  // rows of y that the centre is averaged over
constexpr int64_t kProbeRows = 64;  // rows that decide whether bfloat16 candidates pay
constexpr int64_t kBf16Dimension = 16;  // below, the products are too short to win anything
constexpr int64_t kGroupProbe = 512;  // rows of x that do so for groups
constexpr double kLargeWork = 1 << 28;  // multiply-adds from which looking for duplicates and clusters costs little
constexpr double kThreadedWork = 4e6;  // multiply-adds below which a second thread costs more than it brings

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// The mean of a few points of y, whose distance to all others keeps the norms small.
template <class T>
void find_centre(const Points<T>& p, const Columns& columns, T* centre) {
  const int64_t rows = std::min(columns.count, kCentreRows), step = columns.count / rows;
  for (int64_t k = 0; k < p.d; ++k) centre[k] = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < p.d; ++k) centre[k] += p.y[columns[r * step] * p.d + k];
  const T scale = T(1) / T(rows);
  for (int64_t k = 0; k < p.d; ++k) {
    const T mean = centre[k] * scale;
    centre[k] = mean - mean == 0 ? mean : T(0);  // NaN or overflowed: any centre is correct
  }
}

// Solves rows [from, to) and returns how many candidates were looked at.
template <class Product, class T>
int64_t solve_rows(const Points<T>& points, const Columns& columns, int64_t from, int64_t to, int threads) {
  constexpr int64_t C = kCols<T>, L = simd<T>::lanes;
  using Solver = Candidates<T, Product>;
  const int64_t n = to - from, m = columns.count, d = points.d, words = Product::words(d),
                bytes = words * int64_t(sizeof(T));
  if (n <= 0) return 0;
  const int64_t chunk_panels = std::clamp<int64_t>(kChunkBytes / (C * bytes), 1, divide_up(m, C));
  const int64_t per_thread = divide_up(n, int64_t(threads) * (threads > 1 ? 4 : 1));
  const int64_t task_rows = round_up(std::min(std::clamp<int64_t>(kTaskBytes / bytes, L, 128), per_thread), kRows);
  const int64_t tasks = divide_up(n, task_rows), packed_rows = round_up(task_rows, L);

  const int64_t thread_size = packed_rows * (words + Solver::kRowFacts);
  Scratch<T> scratch(chunk_panels * (C * words + Solver::kPanelFacts) + d + threads * thread_size);
  Solver shared{};
  static_cast<Points<T>&>(shared) = points;
  shared.columns = columns;
  shared.set_bound();
  T* const centre = shared.place_panels(scratch.get(), chunk_panels);
  find_centre(points, columns, centre);
  std::fill(points.index + from, points.index + to, kNothing);

  int64_t considered = 0;
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(+ : considered)
  {
    Solver mine = shared;
    mine.place_rows(centre + d + thread_number() * thread_size, packed_rows);
    for (int64_t start = 0; start < m; start += chunk_panels * C) {
      const int64_t end = std::min(start + chunk_panels * C, m);
#pragma omp for schedule(static)
      for (int64_t first = start; first < end; first += C)
        mine.pack_panel((first - start) / C, first, std::min(C, end - first), centre);
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < tasks; ++task) {
        const int64_t i0 = from + task * task_rows, count = std::min(task_rows, to - i0);
        const auto row_at = [i0](int64_t r) { return i0 + r; };
        mine.pack_rows(row_at, count, centre);
        mine.scan(row_at, count, 0, start, end);
      }
    }
    considered += mine.considered;
  }
  for (int64_t i = from; i < to; ++i)
    if (points.index[i] == kNaN) points.index[i] = -1;
  return considered;
}

template <class T>
bool finite(const Points<T>& p) {
  return all_finite(p.x, p.n * p.d) && all_finite(p.y, p.m * p.d) && (!p.potential || all_finite(p.potential, p.m));
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

// Whether `considered` re-sums cost less than what float32 products would have cost more than bfloat16's: a product takes
// d / 32 cycles more, a re-sum d / 4 + 60.
[[maybe_unused]] bool pays(int64_t considered, int64_t rows, double pairs, int64_t d) {
  return double(considered) <= 16 * double(rows) + pairs * double(d) / double(8 * d + 2000);
}

// Solves rows [done, n) in the best precision.
template <class T>
void solve_from(const Points<T>& points, const Columns& columns, int64_t done, int threads) {
#if defined(__AVX512BF16__)
  if constexpr (sizeof(T) == 4) {
    if (points.d >= kBf16Dimension) {
      const int64_t rest = points.n - done, probe = rest < 16 * kProbeRows ? rest : kProbeRows;
      const int64_t considered = solve_rows<Bf16>(points, columns, done, done + probe, threads);
      done += probe;
      if (pays(considered, probe, double(probe) * double(columns.count), points.d)) {
        solve_rows<Bf16>(points, columns, done, points.n, threads);
        return;
      }
    }
  }
#endif
  solve_rows<Plain<T>>(points, columns, done, points.n, threads);
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
        rounded = pays(considered, count, block.pairs, p.d);
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
  if (p.batch >= std::max(threads, 2) && work < 64 * kThreadedWork) {  // many small problems: one thread each
    const int outer = work * double(p.batch) < kThreadedWork ? 1 : threads;
    bool out_of_memory = false;  // an exception must not leave the parallel loop
#pragma omp parallel for schedule(dynamic) num_threads(outer) if (outer > 1)
    for (int64_t entry = 0; entry < p.batch; ++entry) try {
        solve(at(p, entry), 1);
      } catch (const std::bad_alloc&) {
#pragma omp atomic write
        out_of_memory = true;
      }
    if (out_of_memory) throw std::bad_alloc();
  } else {
    for (int64_t entry = 0; entry < p.batch; ++entry) solve(at(p, entry), work < kThreadedWork ? 1 : threads);
  }
}

template void l2_argmin<float>(const L2Argmin<float>&, int);
template void l2_argmin<double>(const L2Argmin<double>&, int);

}  // namespace otk::OTK_ISA
