// cpu.cpp - assignment on one instruction set (see assign.h).
#include "assign/assign.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <new>

#include "assign/auction.h"
#include "assign/dense.h"
#include "assign/paths.h"
#include "common/memory.h"
#include "common/thread.h"

namespace otk::OTK_ISA {
namespace {

int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

constexpr double kLargest = 1e150;  // of a coordinate: squares beyond it leave float64 (LARGEST of certificate.py)
constexpr int64_t kLow = 4;  // dimensions in which points have many neighbours of about one distance
constexpr double kThreadedWork = 4e6;  // multiply-adds below which a second thread costs more than it brings

// y as doubles in panels of kCols points, the last one's place filled with its last point.
template <class T>
void pack(const T* y, const T* potential, int64_t m, int64_t d, int64_t stride, double* panels, double* offset) {
  constexpr int C = kCols<double>;
  for (int64_t j = 0; j < stride; ++j) {
    const T* point = y + std::min(j, m - 1) * d;
    double* to = panels + j / C * C * d + j % C;
    for (int64_t k = 0; k < d; ++k) to[k * C] = double(point[k]);
    offset[j] = j >= m ? -kFar : potential ? double(potential[j]) : 0;
  }
}

template <class T>
bool usable(const T* values, int64_t count) {
  bool all = true;
  for (int64_t k = 0; k < count; ++k) all &= std::abs(double(values[k])) <= kLargest;  // no early exit: it vectorizes
  return all;
}

template <class T>
void solve_dense(const Assign<T>& p, int64_t entry, int threads) {
  const int64_t n = p.n, m = p.m, d = p.d, stride = round_up(m, kCols<double>);
  const T *x = p.x + entry * p.x_stride, *y = p.y + entry * p.y_stride;
  const T* potential = p.potential ? p.potential + entry * p.potential_stride : nullptr;
  if (!usable(x, n * d) || !usable(y, m * d) || (potential && !usable(potential, m))) {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    std::fill_n(p.index + entry * n, n, int64_t(-1));
    std::fill_n(p.u + entry * n, n, kNan), std::fill_n(p.v + entry * m, m, kNan);
    p.primal[entry] = p.dual[entry] = kNan;
    return;
  }
  Scratch<double> doubles(n * stride + stride * d + 4 * stride + m);
  Scratch<int64_t> integers(2 * stride + 2 * n + m + n);
  double *const cost = doubles.get(), *const panels = cost + n * stride, *const offset = panels + stride * d;
  pack(y, potential, m, d, stride, panels, offset);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t from = 0; from < n; from += kRows)
    dense_costs(x, panels, offset, from, std::min(from + kRows, n), d, stride, cost);
  Dense dense{};
  dense.cost = cost, dense.n = n, dense.m = m, dense.stride = stride;
  dense.v = offset + stride, dense.distance = dense.v + stride, dense.closed_at = dense.distance + stride;
  dense.owner = integers.get(), dense.from = dense.owner + stride;
  dense.match = dense.from + stride, dense.free = dense.match + n, dense.closed = dense.free + n;
  // Wars of prices pay in many dimensions, the more so the more points there are; in few they make searches longer.
  dense.most_steps = d <= kLow ? n : n * std::clamp<int64_t>(n / 64, 1, 16);
  dense.solve();
  double mean = 0;
  if (n == m)
    for (int64_t j = 0; j < m; ++j) mean += dense.v[j] / double(m);
  double primal = 0, dual = 0;
  for (int64_t j = 0; j < m; ++j) dual += p.v[entry * m + j] = dense.v[j] -= mean;
  for (int64_t i = 0; i < n; ++i) {
    dual += p.u[entry * n + i] = dense.best_two(i).least;
    primal += cost[i * stride + (p.index[entry * n + i] = dense.match[i])];
  }
  p.primal[entry] = primal, p.dual[entry] = dual;
}

}  // namespace

template <class T>
void assign_dense(const Assign<T>& p, int threads) {
  const double work = double(p.n) * double(p.m) * double(p.d);
  if (p.batch < 2) {
    for (int64_t entry = 0; entry < p.batch; ++entry) solve_dense(p, entry, work < kThreadedWork ? 1 : threads);
    return;
  }
  const int outer = (work + 64.0 * double(p.n) * double(p.m)) * double(p.batch) < kThreadedWork ? 1 : threads;
  bool out_of_memory = false;  // an exception must not leave the parallel loop
#pragma omp parallel for schedule(dynamic) num_threads(outer) if (outer > 1)
  for (int64_t entry = 0; entry < p.batch; ++entry) try {
      solve_dense(p, entry, 1);
    } catch (const std::bad_alloc&) {
#pragma omp atomic write
      out_of_memory = true;
    }
  if (out_of_memory) throw std::bad_alloc();
}

template <class T>
void assign_list(const AssignLists<T>& p, const int64_t* rows, int64_t count, const int64_t* found, int64_t k,
                 const double* unlisted, double* u, int threads) {
  make_lists(p, rows, count, found, k, unlisted, u, double(count) * double(k * p.d) < kThreadedWork ? 1 : threads);
}

template <class T>
AssignRest assign_auction(const AssignLists<T>& p, double epsilon, double reach, int64_t* queue, int64_t count,
                          int64_t* stale, int64_t most_stale, int64_t most_steps) {
  return auction(p, epsilon, reach, queue, count, stale, most_stale, most_steps);
}

template <class T>
AssignRest assign_paths(const AssignLists<T>& p, bool defer, int64_t* queue, int64_t count, const AssignSearch& search,
                        const AssignAsk& ask) {
  return Paths<T>(p, defer, search, ask).solve(queue, count);
}

#define OTK_INSTANTIATE(T)                                                                                             \
  template void assign_dense<T>(const Assign<T>&, int);                                                                \
  template void assign_list<T>(const AssignLists<T>&, const int64_t*, int64_t, const int64_t*, int64_t, const double*, \
                               double*, int);                                                                          \
  template AssignRest assign_auction<T>(const AssignLists<T>&, double, double, int64_t*, int64_t, int64_t*, int64_t,   \
                                        int64_t);                                                                      \
  template AssignRest assign_paths<T>(const AssignLists<T>&, bool, int64_t*, int64_t, const AssignSearch&,             \
                                      const AssignAsk&);
OTK_INSTANTIATE(float)
OTK_INSTANTIATE(double)
#undef OTK_INSTANTIATE

}  // namespace otk::OTK_ISA
