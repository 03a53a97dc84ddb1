// cpu.cpp - soft_forest and its gradients on one instruction set.
//
// A block is kCols rows. Their routing weights mu [leaves, rows] stay in L1 and feed the register tile of common/tile.h:
//   out^T    = leaves^T mu            (leaves packed by kRows outputs)
//   value    = leaves grad_out^T      (leaves packed by kRows leaves), reversed through the trees by routing.h
//   grad_leaf += mu grad_out          (summed per chunk of rows, chunks in order)
// Trees are taken in groups of kGroupLeaves leaves, so deep forests need no more memory.
#include "soft_forest/soft_forest.h"

#include <algorithm>

#include "common/memory.h"
#include "common/pack.h"
#include "common/thread.h"
#include "soft_forest/routing.h"

namespace otk::OTK_ISA {
namespace {

constexpr int64_t kGroupLeaves = 256;         // a multiple of kRows
constexpr int64_t kChunks = 16;               // of rows, for the gradients' partial sums
constexpr int64_t kPartialBytes = 256 << 20;  // fewer chunks where their sums would take more
constexpr double kThreadedWork = 2e6;         // multiply-adds below which a second thread costs more than it brings

int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// panels[(p * steps + k) * kRows + i] = scale * source[p * kRows + i, k], a [rows, steps] matrix with these strides.
template <class T>
void pack_panels(const T* source, int64_t rows, int64_t row_stride, int64_t steps, int64_t step_stride, T scale,
                 T* panels) {
  for (int64_t p = 0; p < round_up(rows, kRows); p += kRows)
    for (int64_t k = 0; k < steps; ++k)
      for (int64_t i = 0; i < kRows; ++i)
        *panels++ = p + i < rows ? scale * source[(p + i) * row_stride + k * step_stride] : T(0);
}

template <class T>
struct Sizes {
  static constexpr int64_t R = kCols<T>, V = simd<T>::lanes;
  int64_t leaves, nodes, all_leaves, group_trees, group_leaves, blocks;

  explicit Sizes(const SoftForest<T>& f)
      : leaves(int64_t(1) << f.depth),
        nodes(leaves - 1),
        all_leaves(f.trees * leaves),
        group_trees(std::min(std::max<int64_t>(1, kGroupLeaves / leaves), f.trees)),
        group_leaves(round_up(group_trees * leaves, kRows)),
        blocks((f.n + R - 1) / R) {}
};

template <class T>
void forward_block(const SoftForest<T>& f, const Sizes<T>& s, const T* z, const T* thresholds, const T* panels,
                   int64_t count, T* out, T* scratch) {
  constexpr int64_t R = kCols<T>, V = simd<T>::lanes;
  T *columns = scratch, *mu = columns + f.d * R, *result = mu + s.group_leaves * R;
  to_columns<T>(z, count, f.d, columns);
  const Routing<T> routing{f.d, s.nodes, columns, thresholds};
  for (int64_t tree = 0; tree < f.trees; tree += s.group_trees) {
    const int64_t trees = std::min(s.group_trees, f.trees - tree), steps = trees * s.leaves;
    routing.forward(tree, trees, mu, nullptr, nullptr);
    for (int64_t c = 0; c < f.d_out; c += kRows) {
      Tile<T> tile;
      tile.zero();
      tile.template multiply_add<1, kRows>(panels + c * s.all_leaves + tree * s.leaves * kRows, mu, steps, R);
      for (int i = 0; i < kRows; ++i)
        for (int part = 0; part < 2; ++part) {
          T* to = result + (c + i) * R + part * V;
          store<T>(to, tree ? load<T>(to) + tile.acc[i][part] : tile.acc[i][part]);
        }
    }
  }
  to_rows<T>(result, count, f.d_out, out);
}

template <class T>
struct Backward {
  const SoftForest<T>& f;
  const Sizes<T>& s;
  const T *z, *thresholds, *panels, *grad_out;
  T *grad_z, *grad_thresholds,
      *grad_leaves;  // of z's rows; this chunk's sums [trees * nodes, V], [all leaves, width] or null
  int64_t width;  // d_out in whole tiles

  static constexpr int64_t R = kCols<T>, V = simd<T>::lanes;

  static int64_t scratch_size(const SoftForest<T>& f, const Sizes<T>& s, int64_t width) {
    return R * (2 * f.d + f.d_out + width + 2 * s.group_leaves + 2 * s.group_trees * s.nodes);
  }

  void block(int64_t first, int64_t count, T* scratch) const {
    T *columns = scratch, *grad_columns = columns + f.d * R, *out_columns = grad_columns + f.d * R;
    T *out_rows = out_columns + f.d_out * R, *mu = out_rows + width * R, *value = mu + s.group_leaves * R;
    T *left = value + s.group_leaves * R, *slope = left + s.group_trees * s.nodes * R;
    to_columns<T>(z + first * f.d, count, f.d, columns);
    to_columns<T>(grad_out + first * f.d_out, count, f.d_out, out_columns);
    std::fill(grad_columns, grad_columns + f.d * R, T(0));
    std::fill(out_rows, out_rows + width * R, T(0));
    for (int64_t r = 0; r < count; ++r)
      std::memcpy(out_rows + r * width, grad_out + (first + r) * f.d_out, f.d_out * sizeof(T));
    const Routing<T> routing{f.d, s.nodes, columns, thresholds};
    for (int64_t tree = 0; tree < f.trees; tree += s.group_trees) {
      const int64_t trees = std::min(s.group_trees, f.trees - tree), begin = tree * s.leaves,
                    count_leaves = trees * s.leaves;
      routing.forward(tree, trees, mu, left, slope);
      for (int64_t k = count_leaves; k < round_up(count_leaves, kRows); ++k) std::fill(mu + k * R, mu + (k + 1) * R, T(0));
      for (int64_t k = 0; k < count_leaves; k += kRows) {
        pull_value(begin + k, out_columns, value + k * R);
        if (grad_leaves) push_leaves(begin + k, mu + k * R, out_rows);
      }
      routing.backward(tree, trees, left, slope, value, grad_columns, grad_thresholds);
    }
    to_rows<T>(grad_columns, count, f.d, grad_z + first * f.d);
  }

  // value of kRows leaves for the block's rows
  void pull_value(int64_t leaf, const T* out_columns, T* value) const {
    Tile<T> tile;
    tile.zero();
    tile.template multiply_add<1, kRows>(panels + leaf * f.d_out, out_columns, f.d_out, R);
    for (int i = 0; i < kRows; ++i)
      for (int part = 0; part < 2; ++part) store<T>(value + i * R + part * V, tile.acc[i][part]);
  }

  // this block's share of the gradient of kRows leaves
  void push_leaves(int64_t leaf, const T* mu, const T* out_rows) const {
    for (int64_t c = 0; c < width; c += R) {
      Tile<T> tile;
      T* to = grad_leaves + leaf * width + c;
      for (int i = 0; i < kRows; ++i)
        for (int part = 0; part < 2; ++part) tile.acc[i][part] = load<T>(to + i * width + part * V);
      tile.template multiply_add<R, 1>(mu, out_rows + c, R, width);
      for (int i = 0; i < kRows; ++i)
        for (int part = 0; part < 2; ++part) store<T>(to + i * width + part * V, tile.acc[i][part]);
    }
  }
};

template <class T>
int useful_threads(const SoftForest<T>& f, const Sizes<T>& s, int threads) {
  return double(f.batch) * double(f.n) * double(s.all_leaves) * double(f.d_out) < kThreadedWork ? 1 : threads;
}

}  // namespace

template <class T>
void soft_forest(const SoftForest<T>& f, T* out, int threads) {
  if (f.batch == 0 || f.n == 0) return;
  constexpr int64_t R = kCols<T>;
  const Sizes<T> s(f);
  threads = useful_threads(f, s, threads);
  const int64_t forests = f.leaves_stride ? f.batch : 1, padded = round_up(f.d_out, kRows);
  Scratch<T> panels(forests * padded * s.all_leaves);
  const int64_t size = R * (f.d + s.group_leaves + padded);
  Scratch<T> scratch(threads * size);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static)
    for (int64_t entry = 0; entry < forests; ++entry)
      pack_panels<T>(f.leaves + entry * f.leaves_stride, f.d_out, 1, s.all_leaves, f.d_out, T(1) / T(f.trees),
                     panels.get() + entry * padded * s.all_leaves);
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < f.batch * s.blocks; ++task) {
      const int64_t entry = task / s.blocks, row = task % s.blocks * R;
      forward_block<T>(f, s, f.z + entry * f.z_stride + row * f.d, f.thresholds + entry * f.thresholds_stride,
                       panels.get() + (forests > 1 ? entry : 0) * padded * s.all_leaves, std::min(R, f.n - row),
                       out + (entry * f.n + row) * f.d_out, scratch.get() + thread_number() * size);
    }
  }
}

template <class T>
void soft_forest_backward(const SoftForest<T>& f, const T* grad_out, T* grad_z, T* grad_thresholds, T* grad_leaves,
                          int threads) {
  constexpr int64_t R = kCols<T>, V = simd<T>::lanes;
  const Sizes<T> s(f);
  threads = useful_threads(f, s, threads);
  const int64_t forests = f.leaves_stride ? f.batch : 1, width = round_up(f.d_out, R), nodes = f.trees * s.nodes;
  const int64_t leaf_rows = round_up(s.all_leaves, kRows), leaf_sums = grad_leaves ? leaf_rows * width : 0;
  const int64_t partial = leaf_sums + nodes * V;
  const int64_t affordable = kPartialBytes / std::max<int64_t>(1, f.batch * partial * int64_t(sizeof(T)));
  // From the sizes alone, so that the sums are the same on any number of threads.
  const int64_t wanted = std::min(s.blocks, std::max<int64_t>(1, kChunks / std::max<int64_t>(1, f.batch)));
  const int64_t chunks = std::clamp<int64_t>(affordable, 1, std::max<int64_t>(1, wanted));

  Scratch<T> panels(forests * leaf_rows * f.d_out), sums(f.batch * chunks * partial);
  const int64_t size = Backward<T>::scratch_size(f, s, width);
  Scratch<T> scratch(threads * size);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static)
    for (int64_t entry = 0; entry < forests; ++entry)
      pack_panels<T>(f.leaves + entry * f.leaves_stride, s.all_leaves, f.d_out, f.d_out, 1, T(1) / T(f.trees),
                     panels.get() + entry * leaf_rows * f.d_out);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < f.batch * chunks; ++task) {
      const int64_t entry = task / chunks, chunk = task % chunks;
      T* mine = sums.get() + task * partial;
      std::fill(mine, mine + partial, T(0));
      const Backward<T> backward{f,
                                 s,
                                 f.z + entry * f.z_stride,
                                 f.thresholds + entry * f.thresholds_stride,
                                 panels.get() + (forests > 1 ? entry : 0) * leaf_rows * f.d_out,
                                 grad_out + entry * f.n * f.d_out,
                                 grad_z + entry * f.n * f.d,
                                 mine + leaf_sums,
                                 grad_leaves ? mine : nullptr,
                                 width};
      for (int64_t block = chunk * s.blocks / chunks; block < (chunk + 1) * s.blocks / chunks; ++block)
        backward.block(block * R, std::min(R, f.n - block * R), scratch.get() + thread_number() * size);
    }
#pragma omp for schedule(static)
    for (int64_t k = 0; k < (grad_leaves ? f.batch * s.all_leaves : 0); ++k) {
      const T* from = sums.get() + k / s.all_leaves * chunks * partial + k % s.all_leaves * width;
      for (int64_t c = 0; c < f.d_out; ++c) {
        T total = 0;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) total += from[chunk * partial + c];
        grad_leaves[k * f.d_out + c] = total / T(f.trees);
      }
    }
#pragma omp for schedule(static)
    for (int64_t k = 0; k < (grad_thresholds ? f.batch * nodes : 0); ++k) {
      const T* from = sums.get() + k / nodes * chunks * partial + leaf_sums + k % nodes * V;
      T total = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) total += sum_lanes<T>(load<T>(from + chunk * partial));
      grad_thresholds[k] = total;
    }
  }
}

#define OTK_INSTANTIATE(T)                                     \
  template void soft_forest<T>(const SoftForest<T>&, T*, int); \
  template void soft_forest_backward<T>(const SoftForest<T>&, const T*, T*, T*, T*, int);
OTK_INSTANTIATE(float)
OTK_INSTANTIATE(double)

}  // namespace otk::OTK_ISA
