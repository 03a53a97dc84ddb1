// cuda_tangents.h - a row of z with a tangent: shares, weights and values of trees, and their derivatives along it.
//
// double_backward.h has the formulas. Here values come weighted: h(leaf) = mu v and its tangent dh(leaf) = dmu v + mu dv, which
// nodes sum over the leaves below them; a node's gradient is then q dh(left) - p dh(right) - dp (h(left) + h(right)).
#pragma once
#include "soft_forest/cuda_nodes.h"

namespace otk::forest {

struct TangentShares {
  float left, right, dleft;  // shares p and q, and the tangent of p
};

template <bool kStaged>
struct TangentRow {
  Row<kStaged> row;
  const float* dz;
  const float* dthresholds;  // or null

  __device__ TangentShares at(int node) const { return at(node, row.feature(node)); }
  __device__ TangentShares at(int node, int feature) const {
    const Shares s = shares(row.z[feature] - __ldg(row.thresholds + node));
    const float dlogit = dz[feature] - (dthresholds ? __ldg(dthresholds + node) : 0.0f);
    return {s.left, s.right, s.left * s.right * dlogit};
  }

  // What arrives at the root of subtree `subtree`, and its tangent.
  __device__ float2 path(int subtree) const {
    const Trees& trees = row.trees;
    const int above = trees.depth - trees.levels, tree = subtree >> above, within = subtree - (tree << above);
    float reach = 1, dreach = 0;
#pragma unroll 1  // several levels at a time would take too many registers
    for (int level = 0; level < above; ++level) {
      const TangentShares s = at(tree * trees.nodes + (1 << level) - 1 + (within >> (above - level)));
      const bool right = within >> (above - 1 - level) & 1;
      dreach = right ? dreach * s.right - reach * s.dleft : dreach * s.left + reach * s.dleft;
      reach *= right ? s.right : s.left;
    }
    return make_float2(reach, dreach);
  }
};

// A subtree of 2^levels leaves in registers.
struct Subtree {
  float mu[kSubtree] = {}, dmu[kSubtree] = {};
  TangentShares nodes[kSubtree - 1] = {};

  // Weights of the leaves from those of the root.
  template <bool kStaged>
  __device__ __forceinline__ void descend(const TangentRow<kStaged>& row, int subtree) {
    const Trees& trees = row.row.trees;
    const int above = trees.depth - trees.levels, tree = subtree >> above, within = subtree - (tree << above);
    const float2 reach = row.path(subtree);
    mu[0] = reach.x, dmu[0] = reach.y;
    const int root = tree * trees.nodes + (1 << above) - 1 + within;
    const int step = (1 << above) + within;  // the first nodes of levels v and v + 1 of the subtree are 2^v of it apart
    if (trees.levels > 0) level<0>(row, root);
    if (trees.levels > 1) level<1>(row, root + step);
    if (trees.levels > 2) level<2>(row, root + 3 * step);
  }

  template <int kLevel, bool kStaged>
  __device__ __forceinline__ void level(const TangentRow<kStaged>& row, int first) {
    static_assert(1 << kLevel <= kAhead);
    const int feature_of_first = row.row.feature(first);
#pragma unroll
    for (int i = (1 << kLevel) - 1; i >= 0; --i) {  // downwards: a node's children overwrite what is done
      const TangentShares s = row.at(first + i, row.row.feature(first, feature_of_first, i));
      const float here = mu[i], dhere = dmu[i], moved = here * s.dleft;
      nodes[(1 << kLevel) - 1 + i] = s;
      mu[2 * i + 1] = here * s.right, dmu[2 * i + 1] = dhere * s.right - moved;
      mu[2 * i] = here * s.left, dmu[2 * i] = dhere * s.left + moved;
    }
  }

  // Values v and dv of the leaves to h and dh.
  __device__ __forceinline__ void weigh(float (&v)[kSubtree], float (&dv)[kSubtree]) const {
#pragma unroll
    for (int i = 0; i < kSubtree; ++i) {
      dv[i] = dmu[i] * v[i] + mu[i] * dv[i];
      v[i] = mu[i] * v[i];
    }
  }

  // h and dh of the leaves become sums, first of all the root's; gradients of the nodes in heap order.
  __device__ __forceinline__ void ascend(int levels, float (&h)[kSubtree], float (&dh)[kSubtree],
                                         float (&grads)[kSubtree]) const {
#pragma unroll
    for (int level = kSubtreeLevels - 1; level >= 0; --level) {
      if (level >= levels) continue;
#pragma unroll
      for (int i = 0; i < 1 << level; ++i) {
        const int k = (1 << level) - 1 + i;
        const float sum = h[2 * i] + h[2 * i + 1], left = dh[2 * i], right = dh[2 * i + 1];
        grads[k] = nodes[k].right * left - nodes[k].left * right - nodes[k].dleft * sum;
        h[i] = sum;
        dh[i] = left + right;
      }
    }
  }
};

// The gradient of node `x`, above the group's subtrees; on the path the group's part of it, as in upper_gradient().
// Of the subtrees' roots, h is in their columns and dh in `droots`.
template <bool kStaged>
__device__ inline float upper_double_gradient(const Group& group, int x, const TangentRow<kStaged>& row,
                                              const float* columns, const float* droots) {
  const Upper upper = upper_node(group, x);
  float sum = 0, left = 0, right = 0;
  for (int s = 0; s < upper.count; ++s) {
    sum += columns[group.root_column(upper.start + s)];
    (s < upper.half ? left : right) += droots[upper.start + s];
  }
  const TangentShares split = row.at(upper.node.id);
  return split.right * left - split.left * right - split.dleft * sum;
}

// result [16, outputs] of a warp: fragments part, part + kParts, .. of 8 outputs.
template <int kTiles, int kParts>
struct Outputs {
  float of[kTiles][4];

  // += weights [16, kStride] leaves [count, stride], count in whole eighths, of which lane (g, t) takes leaves 2 t and
  // 2 t + 1. The number of the warp's fragments is chosen here, for a branch between them would make each wait for itself.
  __device__ __forceinline__ void multiply(const float* weights, const float* leaves, int stride, int count, int part,
                                           int outputs) {
    const int tiles = (outputs - part * 8 + kParts * 8 - 1) / (kParts * 8);
    if (tiles >= kTiles)
      multiply_first<kTiles>(weights, leaves + part * 8, stride, count);
    else if (tiles == 2)
      multiply_first<2>(weights, leaves + part * 8, stride, count);
    else if (tiles == 1)
      multiply_first<1>(weights, leaves + part * 8, stride, count);
  }

  template <int kFirst>
  __device__ __forceinline__ void multiply_first(const float* weights, const float* leaves, int stride, int count) {
    static_assert(kFirst <= kTiles && kTiles <= 3);
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
    for (int k = 2 * t; k < count; k += 8) {
      const float2 upper = *reinterpret_cast<const float2*>(weights + g * kStride + k);
      const float2 lower = *reinterpret_cast<const float2*>(weights + (g + 8) * kStride + k);
      const float rows[4] = {upper.x, lower.x, upper.y, lower.y};
      Split<2> b[kFirst];
#pragma unroll
      for (int i = 0; i < kFirst; ++i) {
        const float* leaf = leaves + k * stride + i * kParts * 8 + g;
        const float pair[2] = {leaf[0], leaf[stride]};
        b[i] = split(pair);
      }
      multiply_add<kFirst>(reinterpret_cast<float (&)[kFirst][4]>(of), split(rows), b);
    }
  }

  // To rows [rows <= 16, outputs] that are `stride` apart, times scale; `add`: to what is there.
  __device__ __forceinline__ void write(float* to, int64_t stride, int rows, int outputs, int part, float scale,
                                        bool add) const {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = g + e / 2 * 8, output = (part + i * kParts) * 8 + 2 * t + e % 2;
        if (row >= rows || output >= outputs) continue;
        float* at = to + row * stride + output;
        *at = (add ? *at : 0.0f) + scale * of[i][e];
      }
  }
};

}  // namespace otk::forest
