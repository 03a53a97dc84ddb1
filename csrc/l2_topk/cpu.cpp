// cpu.cpp - l2_topk on one instruction set (see l2_topk.h for the proof that it is exact).
//
// As l2_argmin: points of up to kLowDimension coordinates by differences (low_dimension.h), all others by candidates from
// products (candidates.h), in bfloat16 where the machine has it and the first rows say that it pays. k = 1 is l2_argmin.
// Rows are solved a block at a time, so that their buffers (room_for(k) columns each) take some 16 MiB whatever n is.
//
// One thread of a Xeon with AVX512_BF16, CPU time, k = 16, over l2_argmin's, and faiss 1.15's knn over it, normal points:
// 64 x 64 x 128: 1.8 and 1.6; 1024 x 1024 x 128: 1.4 and 2.4; 2048 x 4096 x 128: 1.3 and 2.5; 2048 x 4096 x 2: 5.5 and 6.0.
// 1024 x 4096 points, d = 2 to 128, k = 2 to 128, over normal points in random order: columns in ever better order up to 4
// times, points that are all equal, whose every pair is summed from differences, up to 14 times.
#include "l2_topk/l2_topk.h"

#include "l2_argmin/l2_argmin.h"
#include "l2_topk/candidates.h"
#include "l2_topk/low_dimension.h"

namespace otk::OTK_ISA {

template <class T>
void l2_argmin(const L2Argmin<T>&, int);

namespace {

// Solves rows [from, to) in blocks and returns how many pairs were settled.
template <class Product, class T>
int64_t solve_rows(const Points<T>& points, int64_t k, int64_t from, int64_t to, int threads) {
  const int64_t room = room_for(k), most = std::min(to - from, kBlockEntries / room);
  if (most <= 0) return 0;
  Scratch<T> bounds(most * (2 * room + 1));
  Scratch<int64_t> numbers(most * (room + 2));
  TopCandidates<T, Product> solver{};
  solver.columns = {nullptr, points.m};
  int64_t considered = 0;
  for (int64_t start = from; start < to; start += most) {
    const int64_t end = std::min(start + most, to);
    int64_t* const counts = numbers.get() + most * room;
    solver.kept = {start,
                   k,
                   room,
                   bounds.get(),
                   bounds.get() + most * room,
                   numbers.get(),
                   counts,
                   counts + most,
                   bounds.get() + 2 * most * room};
    std::fill_n(counts, 2 * most, int64_t(0));
    std::fill_n(solver.kept.bar, most, -kInf<T>);
    considered += sweep(solver, points, start, end, threads,
                        [&](auto& mine, auto& row_at, int64_t count, int64_t first, int64_t last) {
                          mine.scan(row_at, count, 0, first, last);
                          if (last == points.m)
                            for (int64_t r = 0; r < count; ++r) mine.finish(r, row_at(r));
                        });
  }
  return considered;
}

// Whether the points are few-dimensional and finite, so that they were solved without candidates.
template <class T, int d = kLowDimension>
bool solved_directly(const Points<T>& p, int64_t k, int threads) {
  if (p.d > d) return false;
  if constexpr (d > 1)
    if (p.d < d) return solved_directly<T, d - 1>(p, k, threads);
  if (!finite(p)) return false;
  solve_low<d>(p, k, threads);
  return true;
}

template <class T>
void solve(const Points<T>& points, int64_t k, int threads) {
  if (solved_directly(points, k, threads)) return;
  in_best_precision(points, points.m, 0, 2 * k + 16, [&]<class Product>(Product, int64_t from, int64_t to) {
    return solve_rows<Product>(points, k, from, to, threads);
  });
}

}  // namespace

template <class T>
void l2_topk(const L2TopK<T>& p, int threads) {
  if (p.k == 1) {
    l2_argmin<T>(
        {p.x, p.y, p.potential, p.value, p.index, p.batch, p.n, p.m, p.d, p.x_stride, p.y_stride, p.potential_stride},
        threads);
    return;
  }
  for_each_entry(p.batch, double(p.n) * double(p.m) * double(p.d), threads, [&](int64_t entry, int team) {
    const Points<T> points{p.x + entry * p.x_stride,
                           p.y + entry * p.y_stride,
                           p.potential ? p.potential + entry * p.potential_stride : nullptr,
                           p.value + entry * p.n * p.k,
                           p.index + entry * p.n * p.k,
                           p.n,
                           p.m,
                           p.d};
    solve(points, p.k, team);
  });
}

template void l2_topk<float>(const L2TopK<float>&, int);
template void l2_topk<double>(const L2TopK<double>&, int);

}  // namespace otk::OTK_ISA
