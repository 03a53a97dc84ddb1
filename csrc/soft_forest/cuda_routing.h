// cuda_routing.h - what the CUDA kernels of soft_forest share: the trees' sizes, shares, leaf weights, staging of rows.
//
// The leaves of all trees are numbered k = t 2^depth + l, its nodes t (2^depth - 1) + node. A subtree is the 2^levels
// leaves [s 2^levels, (s + 1) 2^levels) below one node, levels = min(depth, 3): what one thread handles in registers.
#pragma once
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/cuda.h"
#include "soft_forest/soft_forest.h"
#include "soft_forest/tf32.h"

namespace otk::forest {

constexpr int kSubtreeLevels = 3, kSubtree = 1 << kSubtreeLevels;

// Remainders of x < 2^31 by multiplication: q = floor(x ceil(2^(31 + s) / d) / 2^(31 + s)), 2^(s - 1) < d <= 2^s. The
// factor exceeds 2^(31 + s) / d by less than 1, the product x 2^(31 + s) / d by less than 2^31 <= 2^(31 + s) / d: q is
// exact.
struct Divisor {
  uint32_t d, factor;
  int shift;

  explicit Divisor(int64_t divisor) : d(uint32_t(divisor)), shift(31) {
    while ((int64_t(1) << (shift - 31)) < divisor) ++shift;
    factor = uint32_t(((uint64_t(1) << shift) + d - 1) / d);
  }
  __device__ uint32_t remainder(uint32_t x) const { return x - d * uint32_t(uint64_t(x) * factor >> shift); }
};

struct Trees {
  Divisor features;
  int depth, levels, nodes;  // of a tree; levels of a subtree
  int leaves;                // of all trees
  float scale;               // 1 / trees

  explicit Trees(const SoftForest<float>& f)
      : features(f.d),
        depth(int(f.depth)),
        levels(depth < kSubtreeLevels ? depth : kSubtreeLevels),
        nodes((1 << depth) - 1),
        leaves(int(f.trees << f.depth)),
        scale(1.0f / float(f.trees)) {}
};

struct Shares {
  float left, right;
};

// sigmoid(x) and sigmoid(-x), each with its own relative precision.
__device__ inline Shares shares(float x) {
  const float e = expf(-fabsf(x)), larger = reciprocal(1.0f + e), smaller = e * larger;
  return x < 0 ? Shares{smaller, larger} : Shares{larger, smaller};
}

// The features of consecutive nodes follow each other, but the first comes after the last. Rows in shared memory are
// staged with their first kAhead features (of d < kAhead: again and again) behind the last, so that a few nodes need one
// remainder.
constexpr int kAhead = 4;

// One row of z, in shared memory if kStaged, and the thresholds of all trees.
template <bool kStaged>
struct Row {
  const Trees& trees;
  const float* z;
  const float* thresholds;

  __device__ int feature(int node) const { return int(trees.features.remainder(uint32_t(node))); }
  // The feature of node first + i, i < kAhead, from that of node `first`.
  __device__ int feature(int first, int feature_of_first, int i) const {
    return kStaged ? feature_of_first + i : feature(first + i);
  }
  __device__ Shares at(int node) const { return shares(z[feature(node)] - __ldg(thresholds + node)); }

  // The product of the shares from the root of its tree to subtree `subtree`.
  __device__ float path(int subtree) const {
    const int above = trees.depth - trees.levels, tree = subtree >> above, within = subtree - (tree << above);
    float reach = 1;
    for (int level = 0; level < above; ++level) {
      const Shares s = at(tree * trees.nodes + (1 << level) - 1 + (within >> (above - level)));
      reach *= within >> (above - 1 - level) & 1 ? s.right : s.left;
    }
    return reach;
  }

  // weights[0] holds the reach of the subtree's root and becomes its leaves' weights; visit(k, reach, shares) sees its
  // nodes.
  template <class Visit>
  __device__ __forceinline__ void descend(int subtree, float (&weights)[kSubtree], Visit visit) const {
    const int above = trees.depth - trees.levels, tree = subtree >> above, within = subtree - (tree << above);
    const int root = tree * trees.nodes + (1 << above) - 1 + within;
    const int step = (1 << above) + within;  // the first nodes of levels v and v + 1 of the subtree are 2^v of it apart
    if (trees.levels > 0) level<0>(root, weights, visit);
    if (trees.levels > 1) level<1>(root + step, weights, visit);
    if (trees.levels > 2) level<2>(root + 3 * step, weights, visit);
  }

  template <int kLevel, class Visit>
  __device__ __forceinline__ void level(int first, float (&weights)[kSubtree], Visit visit) const {
    static_assert(1 << kLevel <= kAhead);
    const int feature_of_first = feature(first);
#pragma unroll
    for (int i = (1 << kLevel) - 1; i >= 0; --i) {  // downwards: a node's children overwrite what is done
      const Shares s = shares(z[feature(first, feature_of_first, i)] - __ldg(thresholds + first + i));
      const float reach = weights[i];
      visit((1 << kLevel) - 1 + i, reach, s);
      weights[2 * i + 1] = reach * s.right;
      weights[2 * i] = reach * s.left;
    }
  }
};

// 2^levels values at `to`, which is aligned to as many.
__device__ inline void store(float* to, int levels, const float (&values)[kSubtree]) {
  if (levels == kSubtreeLevels) {
    reinterpret_cast<float4*>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
    return;
  }
#pragma unroll
  for (int k = 0; k < kSubtree / 2; ++k)
    if (k < 1 << levels) to[k] = values[k];
}

__device__ inline void load(const float* from, int levels, float (&values)[kSubtree]) {
  if (levels == kSubtreeLevels) {
    const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
    values[0] = a.x, values[1] = a.y, values[2] = a.z, values[3] = a.w;
    values[4] = b.x, values[5] = b.y, values[6] = b.z, values[7] = b.w;
    return;
  }
#pragma unroll
  for (int k = 0; k < kSubtree / 2; ++k)
    if (k < 1 << levels) values[k] = from[k];
}

// Rows of `columns` floats, `vector`: in pieces of four, aligned; zeros from there to `padded`. Team `team` of `teams`
// warps. The copies are asynchronous.
__device__ inline void stage(float* to, int to_stride, const float* from, int64_t from_stride, int rows, int columns,
                             int padded, bool vector, int team, int teams) {
  const int lane = int(threadIdx.x) % 32, step = vector ? 4 : 1;
  to += team * to_stride;
  from += team * from_stride;
#pragma unroll 1  // the addresses would take the registers of the products' sums
  for (int row = team; row < rows; row += teams, to += teams * to_stride, from += teams * from_stride) {
#pragma unroll 1
    for (int c = lane * step; c < columns; c += 32 * step)
      if (vector)
        copy_async16(to + c, from + c);
      else
        copy_async4(to + c, from + c);
#pragma unroll 1
    for (int c = columns + lane; c < padded; c += 32) to[c] = 0;
  }
}

// The features behind the last of each row, by thread `thread` of `threads`.
__device__ inline void stage_ahead(const Trees& trees, float* to, int to_stride, const float* from, int rows, int thread,
                                   int threads) {
  const int d = int(trees.features.d);
  for (int k = thread; k < rows * kAhead; k += threads) {
    const int row = k / kAhead, i = k % kAhead;
    copy_async4(to + row * to_stride + d + i, from + int64_t(row) * d + trees.features.remainder(uint32_t(i)));
  }
}

inline bool aligned(const float* p, int64_t row, int64_t entry) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && row % 4 == 0 && entry % 4 == 0;
}

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The stride of `width` floats in shared memory: rows stay aligned to 16 bytes and start in different banks.
inline int padded_stride(int64_t width) { return int(divide_up(width, 8) * 8 + 4); }

// Shared memory that a block may ask for.
inline int64_t shared_limit(int capability) {
  if (capability == 80 || capability == 87) return 163 << 10;
  return capability == 90 || (capability >= 100 && capability < 120) ? 227 << 10 : 99 << 10;
}

inline What describe(const char* op, const SoftForest<float>& forest) {
  return {op, &forest, [](const char* op, const void* problem) {
            const auto& f = *static_cast<const SoftForest<float>*>(problem);
            const auto size = [](int64_t s) { return std::to_string(s); };
            return std::string(op) + " (cuda) z [" + size(f.batch) + ", " + size(f.n) + ", " + size(f.d) + "], leaves [" +
                   size(f.batch) + ", " + size(f.trees) + ", 2^" + size(f.depth) + ", " + size(f.d_out) + "]";
          }};
}

// Leaves, nodes, features and outputs are numbered in 31 bits, with room to step past the last.
inline void check_sizes(const SoftForest<float>& f, const What& what) {
  const int64_t most = int64_t(1) << 30;
  if (f.depth < 0 || f.depth > 16) throw std::runtime_error(what.text() + ": depth must be 0 to 16");
  if (f.trees < 1 || f.trees > most >> f.depth)
    throw std::runtime_error(what.text() + ": trees must have 1 to 2^30 leaves in all");
  if (f.d < 1 || f.d > most || f.d_out > most)
    throw std::runtime_error(what.text() + ": d must be 1 to 2^30, d_out at most 2^30 - 8");
  if (f.n >> 34)
    throw std::runtime_error(what.text() + ": n must be less than 2^34");  // tiles of 16 rows are numbered as well
}

}  // namespace otk::forest
