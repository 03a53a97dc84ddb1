// cpu.cpp - l2_argmin on one instruction set (see l2_argmin.h for the bound that makes it exact).
//
// y is packed chunk by chunk (kChunkBytes, so memory stays bounded) in panels of kCols points; a task is a few panels of
// kRows rows of x. Points of up to kLowDimension coordinates go their own way (low_dimension.h). A y panel stays in L1
// while a task's rows pass over it. Most tiles end after one comparison per vector.
// Where the machine multiplies bfloat16, candidates come from there: twice the rate, and on clouds whose neighbours lie
// closer than bfloat16 resolves (kProbeRows tell) float32 takes over.
//
// Where points tie (a collapsed generator, a codebook of zeros) every column stays a candidate. kTogether and more of a
// row in a tile are settled a vector at a time: the candidates' lanes are added up for all of them at once (sum_each), in
// the order and to the bits of one alone, so ties still go to the lowest index. N = M = 2048, all y equal, one thread of an
// AMD EPYC with AVX512_BF16, one by one -> together, in ms (random points in brackets): d = 5: 170 -> 10.7 (1.1),
// 16: 47 -> 10.2 (1.7), 64: 54 -> 27 (3.6), 128: 68 -> 41 (6.2), 784: 227 -> 200 (35). Plain differences by torch.cdist
// took 14 to 27, 28 and 144 at d = 5, 16 and 64.
#include "l2_argmin/l2_argmin.h"

#include <algorithm>

#include "common/memory.h"
#include "common/thread.h"
#include "l2_argmin/low_dimension.h"
#include "l2_argmin/product.h"

namespace otk::OTK_ISA {
namespace {

constexpr int64_t kChunkBytes = 2 << 20;     // packed y at a time
constexpr int64_t kTaskBytes = 96 << 10;     // packed x of one task: stays in L2
constexpr int64_t kCentreRows = 32;          // rows of y that the centre is averaged over
constexpr int64_t kProbeRows = 64;           // rows that decide whether bfloat16 candidates pay
constexpr int64_t kBf16Dimension = 16;       // below, the products are too short to win anything
constexpr double kThreadedWork = 4e6;        // multiply-adds below which a second thread costs more than it brings
constexpr int64_t kNothing = -1, kNaN = -2;  // index while no candidate was seen, after a NaN cost

template <class T>
constexpr T kInf = std::numeric_limits<T>::infinity();

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// |x_i - y_j|^2 from differences, in the same order for every pair: what each lane adds up, and the sum.
template <class T>
inline vec<T> lane_sums(const T* x, const T* y, int64_t d) {
  constexpr int lanes = simd<T>::lanes;
  vec<T> sum[4] = {};
  int64_t k = 0;
  for (; k + 4 * lanes <= d; k += 4 * lanes)
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const vec<T> difference = load<T>(x + k + part * lanes) - load<T>(y + k + part * lanes);
      sum[part] += difference * difference;
    }
  for (; k < d; k += lanes) {
    const vec<T> difference = load_tail<T>(x, k, d) - load_tail<T>(y, k, d);
    sum[0] += difference * difference;
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

template <class T>
T squared_distance(const T* x, const T* y, int64_t d) {
  return sum_lanes<T>(lane_sums<T>(x, y, d));
}

template <class T>
struct Points {
  const T* x;
  const T* y;
  const T* potential;
  T* value;
  int64_t* index;
  int64_t n, m, d;
};

template <class T, class Product>
struct Solver : Points<T> {
  using Points<T>::x, Points<T>::y, Points<T>::potential, Points<T>::value, Points<T>::index;
  using Points<T>::n, Points<T>::m, Points<T>::d;

  T relative, absolute;  // e_ij = relative (|x'_i|^2 + |y'_j|^2 + |p_j|) + absolute, apart for rows and panels
  T* centre;    // [d]
  T* panels;    // the chunk's y, panel after panel
  T* half;      // -(|y_j|^2 - potential_j) / 2, -inf beyond m
  T* spread;    // relative * max (|y'_j|^2 + |p_j|) + absolute, per panel
  T* lower;     // [n] L_i, then kRows times +inf: rows past the end have no candidates
  T* x_panels;  // this thread's packed rows
  T* x_error;   // relative * |x'_i|^2
  int64_t considered = 0;

  static constexpr int C = kCols<T>, L = simd<T>::lanes;
  static constexpr int kTogether = L < 8 ? 2 : L / 4;  // candidates of a row in a tile that are worth a vector

  void find_centre() {
    const int64_t rows = std::min(m, kCentreRows), step = m / rows;
    for (int64_t k = 0; k < d; ++k) centre[k] = 0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t k = 0; k < d; ++k) centre[k] += y[r * step * d + k];
    const T scale = T(1) / T(rows);
    for (int64_t k = 0; k < d; ++k) {
      const T mean = centre[k] * scale;
      centre[k] = mean - mean == 0 ? mean : T(0);  // NaN or overflowed: any centre is correct
    }
  }

  void pack_y(int64_t start, int64_t panel) {
    const int64_t j0 = start + panel * C, count = std::min<int64_t>(C, m - j0);
    T largest = 0;
    for (int64_t first = 0; first < C; first += L) {
      const vec<T> norm =
          pack_points<Product, C>(y + j0 * d, first, count, d, centre, panels + panel * C * Product::words(d));
      for (int l = 0; l < L; ++l) {
        const int64_t c = first + l;
        const T p = potential && c < count ? potential[j0 + c] : T(0);
        half[panel * C + c] = c < count ? (p - norm[l]) / 2 : -kInf<T>;
        // A NaN need not enlarge this: its own column's scores are NaN, candidates whatever the bound.
        largest = std::max(largest, norm[l] + (p < 0 ? -p : p));
      }
    }
    spread[panel] = relative * largest + absolute;
  }

  void consider(int64_t i, int64_t j) {
    if (index[i] == kNaN) return;
    const T cost = squared_distance(x + i * d, y + j * d, d) - (potential ? potential[j] : T(0));
    if (cost != cost) {
      index[i] = kNaN;
      value[i] = cost;
    } else if (index[i] == kNothing || cost < value[i]) {
      index[i] = j;
      value[i] = cost;
    }
  }

  // consider() for one column a lane, in ascending order (the last may be repeated): the same sums, to the bit.
  void consider_together(int64_t i, const int64_t* columns) {
    if (index[i] == kNaN) return;
    vec<T> sums[L], offsets{};
    if (d <= L) {  // what lane_sums does there, without its loops: all but one of its sums are zeros
      const vec<T> own = load_tail<T>(x + i * d, 0, d);
      for (int c = 0; c < L; ++c) {
        const vec<T> difference = own - load_tail<T>(y + columns[c] * d, 0, d);
        sums[c] = difference * difference;
      }
    } else {
      for (int c = 0; c < L; ++c) sums[c] = lane_sums<T>(x + i * d, y + columns[c] * d, d);
    }
    if (potential)
      for (int c = 0; c < L; ++c) offsets[c] = potential[columns[c]];
    const vec<T> cost = sum_each<T>(sums) - offsets, gain = -cost;
    if (not_less<T>(gain, kInf<T>)) {  // a NaN, or a potential of +inf
      for (int c = 0; c < L; ++c) consider(i, columns[c]);
      return;
    }
    const T best = max_lane<T>(gain);
    const int lane = __builtin_ctz(not_less<T>(gain, best));
    if (index[i] == kNothing || cost[lane] < value[i]) index[i] = columns[lane], value[i] = cost[lane];
  }

  // Settles the columns j0 + (each bit of `candidates`), lowest first.
  void settle(int64_t i, int64_t j0, uint64_t candidates) {
    const int total = __builtin_popcountll(candidates);
    considered += total;
    if (total < kTogether) {
      for (; candidates; candidates &= candidates - 1) consider(i, j0 + __builtin_ctzll(candidates));
      return;
    }
    while (candidates) {
      int64_t columns[L];
      for (int c = 0; c < L; ++c) {
        columns[c] = candidates ? j0 + __builtin_ctzll(candidates) : columns[c - 1];
        candidates &= candidates - 1;
      }
      consider_together(i, columns);
    }
  }

  // The rare path: raise L_i by this tile, then look at each column that may still be nearest, in order.
  __attribute__((noinline)) void visit(const Tile<T>& tile, int64_t i0, int64_t rows, int64_t j0, int64_t count,
                                       const T* error, const T* bar) {
    for (int64_t r = 0; r < rows; ++r) {
      const vec<T> s0 = tile.acc[r][0], s1 = tile.acc[r][1];
      if (!(not_less<T>(s0, bar[r]) | not_less<T>(s1, bar[r]))) continue;
      const T best = max_lane<T>(s0 > s1 ? s0 : s1);
      T& low = lower[i0 + r];
      if (best - error[r] > low) low = best - error[r];
      uint64_t candidates = not_less<T>(s0, low - error[r]) | uint64_t(not_less<T>(s1, low - error[r])) << L;
      if (count < C) candidates &= (uint64_t(1) << count) - 1;
      if (candidates) settle(i0 + r, j0, candidates);
    }
  }

  // Rows [i0, i0 + count) against every panel of the chunk that starts at column `start`.
  void scan(int64_t i0, int64_t count, int64_t start, int64_t panel_count) {
    const int64_t words = Product::words(d), groups = divide_up(count, kRows);
    for (int64_t first = 0; first < groups * kRows; first += L) {
      const vec<T> norm = pack_points<Product, kRows>(x + i0 * d, first, count, d, centre, x_panels);
      store<T>(x_error + first, relative * norm);
    }
    for (int64_t panel = 0; panel < panel_count; ++panel) {
      const T* b = panels + panel * C * words;
      const vec<T> h0 = load<T>(half + panel * C), h1 = load<T>(half + panel * C + L);
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t row = i0 + g * kRows, rows = std::min<int64_t>(kRows, count - g * kRows);
        Tile<T> tile;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) tile.acc[r][0] = h0, tile.acc[r][1] = h1;
        Product::multiply_add(tile, x_panels + g * kRows * words, b, words);
        T error[kRows], bar[kRows];
        for (int r = 0; r < kRows; ++r) {
          error[r] = x_error[g * kRows + r] + spread[panel];
          bar[r] = lower[row + r] - error[r];
        }
        uint32_t hit = 0;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) hit |= not_less<T>(tile.acc[r][0], bar[r]) | not_less<T>(tile.acc[r][1], bar[r]);
        if (hit) visit(tile, row, rows, start + panel * C, std::min<int64_t>(C, m - start - panel * C), error, bar);
      }
    }
  }
};

// Solves rows [from, to) and returns how many candidates were looked at.
template <class Product, class T>
int64_t solve_rows(const Points<T>& points, int64_t from, int64_t to, int threads) {
  constexpr int64_t C = kCols<T>, L = simd<T>::lanes;
  const int64_t n = to - from, m = points.m, d = points.d, words = Product::words(d), bytes = words * int64_t(sizeof(T));
  if (n <= 0) return 0;
  const int64_t chunk_panels = std::clamp<int64_t>(kChunkBytes / (C * bytes), 1, divide_up(m, C));
  const int64_t per_thread = divide_up(n, int64_t(threads) * (threads > 1 ? 4 : 1));
  const int64_t task_rows = round_up(std::min(std::clamp<int64_t>(kTaskBytes / bytes, L, 128), per_thread), kRows);
  const int64_t tasks = divide_up(n, task_rows), packed_rows = round_up(task_rows, L);

  const int64_t thread_size = packed_rows * (words + 1);
  Scratch<T> scratch(chunk_panels * (C * words + C + 1) + d + n + kRows + threads * thread_size);
  Solver<T, Product> shared{};
  static_cast<Points<T>&>(shared) = points;
  shared.x += from * d, shared.value += from, shared.index += from, shared.n = n;
  constexpr T epsilon = std::numeric_limits<T>::epsilon();
  // Beyond d u = 1/8 the bound's proof ends: then every column is a candidate.
  shared.relative = T(d) * epsilon < T(0.25) ? (T(d) + 16) * epsilon + Product::kRelative : kInf<T>;
  shared.absolute = 4 * (T(d) + 1) * Product::kFlush;
  shared.panels = scratch.get();
  shared.half = shared.panels + chunk_panels * C * words;
  shared.spread = shared.half + chunk_panels * C;
  shared.centre = shared.spread + chunk_panels;
  shared.lower = shared.centre + d;
  shared.find_centre();
  for (int64_t i = 0; i < n; ++i) shared.lower[i] = -kInf<T>, shared.index[i] = kNothing;
  std::fill_n(shared.lower + n, kRows, kInf<T>);

  int64_t considered = 0;
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(+ : considered)
  {
    Solver<T, Product> mine = shared;
    mine.x_panels = shared.lower + n + kRows + thread_number() * thread_size;
    mine.x_error = mine.x_panels + packed_rows * words;
    for (int64_t start = 0; start < m; start += chunk_panels * C) {
      const int64_t panel_count = std::min(chunk_panels, divide_up(m - start, C));
#pragma omp for schedule(static)
      for (int64_t panel = 0; panel < panel_count; ++panel) mine.pack_y(start, panel);
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < tasks; ++task)
        mine.scan(task * task_rows, std::min(task_rows, n - task * task_rows), start, panel_count);
    }
    considered += mine.considered;
  }
  for (int64_t i = 0; i < n; ++i)
    if (shared.index[i] == kNaN) shared.index[i] = -1;
  return considered;
}

// Whether the points are few-dimensional and finite, so that they were solved without candidates.
template <class T, int d = kLowDimension>
bool solved_directly(const Points<T>& p, int threads) {
  if (p.d > d) return false;
  if constexpr (d > 1)
    if (p.d < d) return solved_directly<T, d - 1>(p, threads);
  if (!all_finite(p.x, p.n * d) || !all_finite(p.y, p.m * d) || (p.potential && !all_finite(p.potential, p.m))) return false;
  solve_low<d>(p.x, p.y, p.potential, p.value, p.index, p.n, p.m, threads);
  return true;
}

template <class T>
void solve(const Points<T>& points, int threads) {
  if (solved_directly(points, threads)) return;
  int64_t done = 0;
#if defined(__AVX512BF16__)
  if constexpr (sizeof(T) == 4) {
    if (points.d >= kBf16Dimension) {
      done = points.n < 16 * kProbeRows ? points.n : kProbeRows;
      const int64_t considered = solve_rows<Bf16>(points, 0, done, threads);
      if (considered <= done * (16 + points.m / 64)) {
        solve_rows<Bf16>(points, done, points.n, threads);
        done = points.n;
      }
    }
  }
#endif
  solve_rows<Plain<T>>(points, done, points.n, threads);
}

template <class T>
Points<T> at(const L2Argmin<T>& p, int64_t entry) {
  return {p.x + entry * p.x_stride, p.y + entry * p.y_stride, p.potential ? p.potential + entry * p.potential_stride : nullptr,
          p.value + entry * p.n, p.index + entry * p.n, p.n, p.m, p.d};
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
