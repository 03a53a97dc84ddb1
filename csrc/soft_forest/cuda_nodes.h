// cuda_nodes.h - where the backward kernel keeps the gradients of a group of leaves' nodes.
//
// A group is whole trees (up to depth 7) or one subtree of 128 leaves, below `above` nodes of a longer path. Per row a
// block has 144 columns, of which subtree s of 2^levels leaves owns 2^levels: first the values of its leaves, then the
// gradients of its 2^levels - 1 nodes and the weighted value h of its root. Nodes above subtrees have columns behind.
// A group's nodes are listed as x = 0, 1, ..: the path's nodes downwards, then tree by tree in heap order.
#pragma once
#include "soft_forest/cuda_routing.h"

namespace otk::forest {

constexpr int kGroup = 144;  // columns of leaves: 9 fragments of 16
constexpr int kHeight = 7;   // of a group's subtree in deep trees
constexpr int kUpper = (1 << (kHeight - kSubtreeLevels)) - 1, kPath = 16 - kHeight;
constexpr int kColumns = kGroup + kUpper + kPath;
constexpr int kListed = 136;  // nodes of a group at most: 127 of a subtree and 9 above it, 135 of 9 whole trees
static_assert(kListed >= (1 << kHeight) - 1 + kPath && kListed >= kGroup / 16 * 15);

struct Groups {
  int above, height;  // above + height = depth
  int leaves, count;

  explicit Groups(const Trees& t)
      : above(t.depth > kHeight ? t.depth - kHeight : 0),
        height(t.depth - above),
        leaves(above ? 1 << kHeight : kGroup >> height << height),
        count(int(divide_up(t.leaves, leaves))) {}
};

struct Node {
  int id, column;
};

__device__ inline int floor_log2(int x) {
  int log = 0;
  while (x >> (log + 1)) ++log;
  return log;
}

struct Group {
  const Trees& trees;
  int above, height, bottom;  // bottom: levels above the group's subtrees
  int first, leaves;          // of all trees
  int tree, within;           // the first tree; which of its subtrees (0 for whole trees)
  int nodes;                  // listed

  __device__ Group(const Trees& t, const Groups& g, int index)
      : trees(t), above(g.above), height(g.height), bottom(g.height - t.levels), first(index * g.leaves) {
    leaves = t.leaves - first < g.leaves ? t.leaves - first : g.leaves;
    tree = first >> t.depth;
    within = (first - (tree << t.depth)) >> height;
    nodes = above + (leaves >> height) * ((1 << height) - 1);
  }

  __device__ int upper() const { return above + (leaves >> height) * ((1 << bottom) - 1); }
  __device__ int root_column(int subtree) const { return ((subtree + 1) << trees.levels) - 1; }

  __device__ Node on_path(int level) const {
    return {tree * trees.nodes + (1 << level) - 1 + (within >> (above - level)), kGroup + kUpper + level};
  }

  // Node k, in heap order, of the group's tree number `local`.
  __device__ Node inside(int local, int k) const {
    const int level = floor_log2(k + 1), i = k + 1 - (1 << level), deeper = level - bottom;
    const int id = (tree + local) * trees.nodes + (1 << (above + level)) - 1 + (within << level) + i;
    if (deeper < 0) return {id, kGroup + local * ((1 << bottom) - 1) + k};
    const int subtree = (local << bottom) + (i >> deeper), rest = i & ((1 << deeper) - 1);
    return {id, (subtree << trees.levels) + (1 << deeper) - 1 + rest};
  }

  __device__ Node listed(int x) const {
    if (x < above) return on_path(x);
    const int size = (1 << height) - 1, local = (x - above) / size;
    return inside(local, x - above - local * size);
  }

  // Ranges of the list whose ids are consecutive: all of it, or level by level. Range r ends where r + 1 starts.
  __device__ int ranges() const { return above ? above + height : 1; }
  __device__ int range_start(int r) const {
    if (above == 0) return r * nodes;
    return r < above ? r : above + (1 << (r - above)) - 1;
  }
  __device__ int range_of(int x) const {
    if (above == 0) return 0;
    return x < above ? x : above + floor_log2(x - above + 1);
  }
};

// Where a node's gradient is: as node x of the list of each of 2^levels groups from `group` on.
struct Place {
  int group, levels, x;
};

__device__ inline Place place_of(const Trees& t, const Groups& g, int id) {
  const int tree = id / t.nodes, k = id - tree * t.nodes;
  if (g.above == 0) {
    const int of_group = g.leaves >> g.height, group = tree / of_group;
    return {group, 0, (tree - group * of_group) * t.nodes + k};
  }
  const int level = floor_log2(k + 1), i = k + 1 - (1 << level), below = g.above - level, first = tree << g.above;
  if (below > 0) return {first + (i << below), below, level};
  return {first + (i >> -below), 0, g.above + (1 << -below) - 1 + (i & ((1 << -below) - 1))};
}

// A node above the group's subtrees, and which of these are below it: count from start on, the first `half` on its left.
struct Upper {
  Node node;
  int start, count, half;
};

__device__ inline Upper upper_node(const Group& group, int x) {
  if (x < group.above) {
    const int count = group.leaves >> group.trees.levels;
    return {group.on_path(x), 0, count, group.within >> (group.above - x - 1) & 1 ? 0 : count};
  }
  const int size = (1 << group.bottom) - 1, local = (x - group.above) / size, k = x - group.above - local * size;
  const int level = floor_log2(k + 1), count = 1 << (group.bottom - level);
  return {group.inside(local, k), (local << group.bottom) + (k + 1 - (1 << level)) * count, count, count / 2};
}

// The gradient of node `x`, above the group's subtrees, of one row: q h(left) - p h(right), shares p and q. On the path
// this is the group's part of it, for the other groups below the node add theirs.
template <bool kStaged>
__device__ inline float upper_gradient(const Group& group, int x, const Row<kStaged>& row, const float* columns) {
  const Upper upper = upper_node(group, x);
  float left = 0, right = 0;
  for (int s = 0; s < upper.count; ++s) (s < upper.half ? left : right) += columns[group.root_column(upper.start + s)];
  const Shares share = row.at(upper.node.id);
  return share.right * left - share.left * right;
}

// The column of upper node x (as the list of upper nodes numbers them: the path, then tree by tree).
__device__ inline int upper_column(const Group& group, int x) {
  return x < group.above ? kGroup + kUpper + x : kGroup + x - group.above;
}

}  // namespace otk::forest
