// cpu_double_backward.cpp - the double backward of soft_forest on one instruction set.
//
// A block is kCols rows. double_backward_routing.h takes its rows through a group of trees, down and up; between the
// two, and after, the products run on the register tile of common/tile.h:
//   value            = leaves grad_out^T, dvalue = dleaves grad_out^T
//   grad_leaf       += dmu grad_out                      (summed per chunk of rows, chunks in order)
//   grad_grad_out^T  = leaves^T dmu + dleaves^T mu
// Leaves are packed once, by kRows leaves: [panel][outputs in whole tiles][kRows], which serves the products both ways.
#include <algorithm>

#include "common/memory.h"
#include "common/pack.h"
#include "common/thread.h"
#include "soft_forest/double_backward.h"
#include "soft_forest/double_backward_routing.h"

namespace otk::OTK_ISA {
namespace {

constexpr int64_t kGroupLeaves = 64;          // a multiple of kRows
constexpr int64_t kChunks = 16;               // of rows, for the gradients' partial sums
constexpr int64_t kPartialBytes = 256 << 20;  // fewer chunks where their sums would take more
constexpr double kThreadedWork = 1e6;         // leaf weights times outputs below which one thread is enough

int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

template <class T>
struct Problem {
  static constexpr int64_t R = kCols<T>, V = simd<T>::lanes;
  const SoftForest<T>& f;
  const T *grad_out, *dz, *dthresholds, *dleaves;
  T *grad_grad_out, *grad_z;

  int64_t leaves = int64_t(1) << f.depth, nodes = leaves - 1;
  int64_t all_leaves = f.trees * leaves, leaf_rows = round_up(all_leaves, kRows);
  int64_t group_trees = std::min(std::max<int64_t>(1, kGroupLeaves / leaves), f.trees);
  int64_t group_leaves = round_up(group_trees * leaves, kRows);
  int64_t blocks = (f.n + R - 1) / R;
  int64_t outputs = round_up(f.d_out, kRows), width = round_up(f.d_out, R);  // in whole tiles: rows, columns
  int64_t panels = leaf_rows * outputs;                                      // elements of the packed leaves
  int64_t partial = leaf_rows * width + f.trees * nodes * V;                 // of a chunk's sums
  int64_t scratch =
      R * (3 * f.d + f.d_out + width + outputs + 4 * group_leaves + DoubleRouting<T>::kKept * group_trees * nodes);
};

// packed[(k / kRows * outputs + c) * kRows + k % kRows] = source[k, c] / trees, zeros past the last leaf and output.
template <class T>
void pack_leaves(const Problem<T>& p, const T* source, T* packed) {
  const T scale = T(1) / T(p.f.trees);
  for (int64_t k = 0; k < p.leaf_rows; k += kRows)
    for (int64_t c = 0; c < p.outputs; ++c)
      for (int64_t i = k; i < k + kRows; ++i)
        *packed++ = i < p.all_leaves && c < p.f.d_out ? scale * source[i * p.f.d_out + c] : T(0);
}

// The blocks of one entry of the batch; sums of one chunk of rows.
template <class T>
class Blocks {
  static constexpr int64_t R = kCols<T>, V = simd<T>::lanes;

 public:
  Blocks(const Problem<T>& p, int64_t entry, const T* leaves, const T* dleaves, T* sums, T* scratch)
      : p_(p),
        entry_(entry),
        leaves_(leaves),
        dleaves_(dleaves),
        grad_leaves_(sums),
        grad_thresholds_(sums + p.leaf_rows * p.width),
        z_(scratch),
        dz_(z_ + p.f.d * R),
        grad_z_(dz_ + p.f.d * R),
        out_columns_(grad_z_ + p.f.d * R),
        out_rows_(out_columns_ + p.f.d_out * R),
        result_(out_rows_ + p.width * R),
        mu_(result_ + p.outputs * R),
        dmu_(mu_ + p.group_leaves * R),
        value_(dmu_ + p.group_leaves * R),
        dvalue_(value_ + p.group_leaves * R),
        kept_(dvalue_ + p.group_leaves * R) {}

  void run(int64_t first, int64_t count) {
    const SoftForest<T>& f = p_.f;
    const int64_t row = entry_ * f.n + first;
    stage(first, count);
    const DoubleRouting<T> routing{f.d,
                                   p_.nodes,
                                   z_,
                                   dz_,
                                   f.thresholds + entry_ * f.thresholds_stride,
                                   p_.dthresholds ? p_.dthresholds + entry_ * f.trees * p_.nodes : nullptr};
    for (int64_t tree = 0; tree < f.trees; tree += p_.group_trees) {
      const int64_t trees = std::min(p_.group_trees, f.trees - tree), begin = tree * p_.leaves;
      const int64_t count_leaves = trees * p_.leaves, whole = round_up(count_leaves, kRows);
      routing.forward(tree, trees, mu_, dmu_, kept_);
      std::fill(mu_ + count_leaves * R, mu_ + whole * R, T(0));
      std::fill(dmu_ + count_leaves * R, dmu_ + whole * R, T(0));
      for (int64_t k = 0; k < whole; k += kRows) {
        pull_value(leaves_ + (begin + k) * p_.outputs, value_ + k * R);
        if (dleaves_) pull_value(dleaves_ + (begin + k) * p_.outputs, dvalue_ + k * R);
        push_leaves(begin + k, dmu_ + k * R);
      }
      if (!dleaves_) std::fill(dvalue_, dvalue_ + whole * R, T(0));
      routing.backward(tree, trees, kept_, value_, dvalue_, grad_z_, grad_thresholds_);
      push_result(begin, whole);
    }
    to_rows<T>(grad_z_, count, f.d, p_.grad_z + row * f.d);
    to_rows<T>(result_, count, f.d_out, p_.grad_grad_out + row * f.d_out);
  }

 private:
  void stage(int64_t first, int64_t count) {
    const SoftForest<T>& f = p_.f;
    const int64_t row = entry_ * f.n + first;
    to_columns<T>(f.z + entry_ * f.z_stride + first * f.d, count, f.d, z_);
    to_columns<T>(p_.dz + row * f.d, count, f.d, dz_);
    to_columns<T>(p_.grad_out + row * f.d_out, count, f.d_out, out_columns_);
    std::fill(grad_z_, grad_z_ + f.d * R, T(0));
    std::fill(result_, result_ + p_.outputs * R, T(0));
    std::fill(out_rows_, out_rows_ + p_.width * R, T(0));
    for (int64_t r = 0; r < count; ++r)
      std::memcpy(out_rows_ + r * p_.width, p_.grad_out + (row + r) * f.d_out, f.d_out * sizeof(T));
  }

  // value of one panel of leaves for the block's rows
  void pull_value(const T* panel, T* value) const {
    Tile<T> tile;
    tile.zero();
    tile.template multiply_add<1, kRows>(panel, out_columns_, p_.f.d_out, R);
    write(tile, value, R);
  }

  // this block's share of the gradient of kRows leaves
  void push_leaves(int64_t leaf, const T* dmu) const {
    for (int64_t c = 0; c < p_.width; c += R) {
      Tile<T> tile;
      T* to = grad_leaves_ + leaf * p_.width + c;
      read(tile, to, p_.width);
      tile.template multiply_add<R, 1>(dmu, out_rows_ + c, R, p_.width);
      write(tile, to, p_.width);
    }
  }

  // the part of grad_grad_out that `whole` leaves from `begin` make
  void push_result(int64_t begin, int64_t whole) const {
    for (int64_t c = 0; c < p_.outputs; c += kRows) {
      Tile<T> tile;
      read(tile, result_ + c * R, R);
      for (int64_t k = 0; k < whole; k += kRows) {
        const int64_t at = (begin + k) * p_.outputs + c * kRows;
        tile.template multiply_add<kRows, 1>(leaves_ + at, dmu_ + k * R, kRows, R);
        if (dleaves_) tile.template multiply_add<kRows, 1>(dleaves_ + at, mu_ + k * R, kRows, R);
      }
      write(tile, result_ + c * R, R);
    }
  }

  static void read(Tile<T>& tile, const T* from, int64_t stride) {
    for (int i = 0; i < kRows; ++i)
      for (int part = 0; part < 2; ++part) tile.acc[i][part] = load<T>(from + i * stride + part * V);
  }
  static void write(const Tile<T>& tile, T* to, int64_t stride) {
    for (int i = 0; i < kRows; ++i)
      for (int part = 0; part < 2; ++part) store<T>(to + i * stride + part * V, tile.acc[i][part]);
  }

  const Problem<T>& p_;
  const int64_t entry_;
  const T *leaves_, *dleaves_;               // packed
  T *grad_leaves_, *grad_thresholds_;        // [leaf_rows, width], [trees * nodes, V]
  T *z_, *dz_, *grad_z_;                     // [d, R]
  T *out_columns_, *out_rows_, *result_;     // [d_out, R], [R, width], [outputs, R]
  T *mu_, *dmu_, *value_, *dvalue_, *kept_;  // [group_leaves, R] each; of the group's nodes
};

// grad_leaves and grad_thresholds of leaf or node k of all entries: the chunks' sums in order.
template <class T>
void add_leaf(const Problem<T>& p, const T* sums, int64_t chunks, int64_t k, T* grad_leaves) {
  const T* from = sums + k / p.all_leaves * chunks * p.partial + k % p.all_leaves * p.width;
  for (int64_t c = 0; c < p.f.d_out; ++c) {
    T total = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) total += from[chunk * p.partial + c];
    grad_leaves[k * p.f.d_out + c] = total / T(p.f.trees);
  }
}

template <class T>
void add_threshold(const Problem<T>& p, const T* sums, int64_t chunks, int64_t k, T* grad_thresholds) {
  constexpr int64_t V = simd<T>::lanes;
  const int64_t nodes = p.f.trees * p.nodes;
  const T* from = sums + k / nodes * chunks * p.partial + p.leaf_rows * p.width + k % nodes * V;
  T total = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) total += sum_lanes<T>(load<T>(from + chunk * p.partial));
  grad_thresholds[k] = total;
}

// From the sizes alone, so that the sums are the same on any number of threads.
template <class T>
int64_t count_chunks(const Problem<T>& p) {
  const int64_t batch = std::max<int64_t>(1, p.f.batch);
  const int64_t affordable = std::max<int64_t>(1, kPartialBytes / (batch * p.partial * int64_t(sizeof(T))));
  return std::max<int64_t>(1, std::min({affordable, p.blocks, std::max<int64_t>(1, kChunks / batch)}));
}

}  // namespace

template <class T>
void soft_forest_double_backward(const SoftForest<T>& f, const T* grad_out, const T* dz, const T* dthresholds,
                                 const T* dleaves, T* grad_grad_out, T* grad_z, T* grad_thresholds, T* grad_leaves,
                                 int threads) {
  const Problem<T> p{f, grad_out, dz, dthresholds, dleaves, grad_grad_out, grad_z};
  if (double(f.batch) * double(f.n) * double(p.all_leaves) * double(f.d_out) < kThreadedWork) threads = 1;
  const int64_t forests = f.leaves_stride ? f.batch : 1, chunks = count_chunks(p);
  Scratch<T> leaves(forests * p.panels), tangents(dleaves ? f.batch * p.panels : 0);
  Scratch<T> sums(f.batch * chunks * p.partial), scratch(threads * p.scratch);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static) nowait
    for (int64_t entry = 0; entry < forests; ++entry)
      pack_leaves(p, f.leaves + entry * f.leaves_stride, leaves.get() + entry * p.panels);
#pragma omp for schedule(static)
    for (int64_t entry = 0; entry < (dleaves ? f.batch : 0); ++entry)
      pack_leaves(p, dleaves + entry * p.all_leaves * f.d_out, tangents.get() + entry * p.panels);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < f.batch * chunks; ++task) {
      const int64_t entry = task / chunks, chunk = task % chunks;
      T* mine = sums.get() + task * p.partial;
      std::fill(mine, mine + p.partial, T(0));
      Blocks<T> blocks(p, entry, leaves.get() + (forests > 1 ? entry : 0) * p.panels,
                       dleaves ? tangents.get() + entry * p.panels : nullptr, mine,
                       scratch.get() + thread_number() * p.scratch);
      for (int64_t block = chunk * p.blocks / chunks; block < (chunk + 1) * p.blocks / chunks; ++block)
        blocks.run(block * Problem<T>::R, std::min(Problem<T>::R, f.n - block * Problem<T>::R));
    }
#pragma omp for schedule(static) nowait
    for (int64_t k = 0; k < f.batch * p.all_leaves; ++k) add_leaf(p, sums.get(), chunks, k, grad_leaves);
#pragma omp for schedule(static)
    for (int64_t k = 0; k < f.batch * f.trees * p.nodes; ++k) add_threshold(p, sums.get(), chunks, k, grad_thresholds);
  }
}

#define OTK_INSTANTIATE(T)                                                                                               \
  template void soft_forest_double_backward<T>(const SoftForest<T>&, const T*, const T*, const T*, const T*, T*, T*, T*, \
                                               T*, int);
OTK_INSTANTIATE(float)
OTK_INSTANTIATE(double)

}  // namespace otk::OTK_ISA
