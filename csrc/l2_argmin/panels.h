// panels.h - points packed for products, what a product may err by, and the sweep of all rows over all columns (see
// l2_argmin.h for the bound). l2_argmin and l2_topk differ in what becomes of a tile of products.
//
// y is packed chunk by chunk (kChunkBytes, so memory stays bounded) in panels of kCols points; a task is a few panels of
// kRows rows of x. A y panel stays in L1 while a task's rows pass over it.
#pragma once
#include <algorithm>
#include <cmath>
#include <new>

#include "common/memory.h"
#include "common/thread.h"
#include "l2_argmin/differences.h"
#include "l2_argmin/product.h"

namespace otk::OTK_ISA {

constexpr int64_t kNothing = -1, kNaN = -2;  // index while no candidate was seen, after a NaN cost
constexpr int64_t kChunkBytes = 2 << 20;  // packed y at a time
constexpr int64_t kTaskBytes = 96 << 10;  // packed x of one task: stays in L2
constexpr int64_t kCentreRows = 32;  // rows of y that the centre is averaged over
constexpr int64_t kProbeRows = 64;  // rows that decide whether bfloat16 candidates pay
constexpr int64_t kBf16Dimension = 16;  // below, the products are too short to win anything
constexpr double kThreadedWork = 4e6;  // multiply-adds below which a second thread costs more than it brings

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

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
struct Panels : Points<T> {
  using Points<T>::x, Points<T>::y, Points<T>::potential, Points<T>::d;
  using Points<T>::potential_of;

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
  int64_t considered = 0;  // pairs settled by differences

  static constexpr int C = kCols<T>, L = simd<T>::lanes;
  static constexpr int kPanelFacts = C + 3, kRowFacts = 5;

  static int64_t words_of(int64_t d) { return Product::words(d); }

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

  // Packs rows row_at(0).. of x; start(r) may raise the L_i of row r.
  template <class RowAt, class Start>
  void pack(RowAt&& row_at, int64_t count, const T* centre, Start&& start) {
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
        if (r < count) start(r);
      }
    }
  }

  // A lower bound of s_i of row r from a settled pair of cost v and potential p; NaN where they overflow.
  T settled_bound(int64_t r, T v, T p) const {
    const T square = x_square[r];
    return (square - v) / 2 - slack * (square + std::abs(v) + std::abs(p)) - absolute;
  }

  // `count` packed rows against columns [first, last), which stand from panel `panel` on. Tiles with a score not below
  // L_i - e_ij go to visit(tile, first row, rows, first column, columns, e of each row).
  template <class Visit>
  void scan_tiles(int64_t count, int64_t panel, int64_t first, int64_t last, Visit&& visit) {
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
        if (hit) visit(tile, r0, std::min<int64_t>(kRows, count - r0), first, std::min<int64_t>(C, last - first), error);
      }
    }
  }
};

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

// Rows [from, to) of prototype.x over all its columns: task(solver, row_at, count, first, last) for each task's rows and
// each chunk of columns, in ascending order. Returns how many candidates were looked at.
template <class Solver, class T, class Task>
int64_t sweep(const Solver& prototype, const Points<T>& points, int64_t from, int64_t to, int threads, Task&& task_on) {
  constexpr int64_t C = Solver::C, L = Solver::L;
  const int64_t n = to - from, m = prototype.columns.count, d = points.d, words = Solver::words_of(points.d),
                bytes = words * int64_t(sizeof(T));
  if (n <= 0) return 0;
  const int64_t chunk_panels = std::clamp<int64_t>(kChunkBytes / (C * bytes), 1, divide_up(m, C));
  const int64_t per_thread = divide_up(n, int64_t(threads) * (threads > 1 ? 4 : 1));
  const int64_t task_rows = round_up(std::min(std::clamp<int64_t>(kTaskBytes / bytes, L, 128), per_thread), kRows);
  const int64_t tasks = divide_up(n, task_rows), packed_rows = round_up(task_rows, L);

  const int64_t thread_size = packed_rows * (words + Solver::kRowFacts);
  Scratch<T> scratch(chunk_panels * (C * words + Solver::kPanelFacts) + d + threads * thread_size);
  Solver shared = prototype;
  static_cast<Points<T>&>(shared) = points;
  shared.set_bound();
  T* const centre = shared.place_panels(scratch.get(), chunk_panels);
  find_centre(points, shared.columns, centre);

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
        const int64_t i0 = from + task * task_rows;
        const auto row_at = [i0](int64_t r) { return i0 + r; };
        const int64_t count = std::min(task_rows, to - i0);
        mine.pack_rows(row_at, count, centre);
        task_on(mine, row_at, count, start, end);
      }
    }
    considered += mine.considered;
  }
  return considered;
}

// Whether `considered` re-sums cost less than what float32 products would have cost more than bfloat16's: a product takes
// d / 32 cycles more, a re-sum d / 4 + 60. `allowed` of them are not counted.
inline bool pays(int64_t considered, int64_t allowed, double pairs, int64_t d) {
  return double(considered) <= double(allowed) + pairs * double(d) / double(8 * d + 2000);
}

// Solves rows [done, n) in the best precision: solve_rows(Product(), from, to) returns how many pairs were settled, of
// which `allowed` a row are due whatever the products are like.
template <class T, class SolveRows>
void in_best_precision(const Points<T>& p, [[maybe_unused]] int64_t m, int64_t done, [[maybe_unused]] int64_t allowed,
                       SolveRows&& solve_rows) {
#if defined(__AVX512BF16__)
  if constexpr (sizeof(T) == 4) {
    if (p.d >= kBf16Dimension) {
      const int64_t rest = p.n - done, probe = rest < 16 * kProbeRows ? rest : kProbeRows;
      const int64_t considered = solve_rows(Bf16(), done, done + probe);
      done += probe;
      if (pays(considered, allowed * probe, double(probe) * double(m), p.d)) {
        solve_rows(Bf16(), done, p.n);
        return;
      }
    }
  }
#endif
  solve_rows(Plain<T>(), done, p.n);
}

// solve(entry, threads) for each entry of a batch of problems of `work` multiply-adds: a thread each where they are many
// and small, one after the other on all threads else.
template <class Solve>
void for_each_entry(int64_t batch, double work, int threads, Solve&& solve) {
  if (batch >= std::max(threads, 2) && work < 64 * kThreadedWork) {
    const int outer = work * double(batch) < kThreadedWork ? 1 : threads;
    bool out_of_memory = false;  // an exception must not leave the parallel loop
#pragma omp parallel for schedule(dynamic) num_threads(outer) if (outer > 1)
    for (int64_t entry = 0; entry < batch; ++entry) try {
        solve(entry, 1);
      } catch (const std::bad_alloc&) {
#pragma omp atomic write
        out_of_memory = true;
      }
    if (out_of_memory) throw std::bad_alloc();
  } else {
    for (int64_t entry = 0; entry < batch; ++entry) solve(entry, work < kThreadedWork ? 1 : threads);
  }
}

}  // namespace otk::OTK_ISA
