// cuda_node_sums.h - the sums of a group's node gradients: over the nodes of a feature (grad_z), over rows
// (grad_thresholds).
#pragma once
#include "soft_forest/cuda_nodes.h"

namespace otk::forest {

// A group's listed nodes in shared memory: where their gradients are, and which comes next with the same feature.
struct NodeList {
  static constexpr int kRanges = 16, kNone = 255;
  static constexpr int kBytes = kRanges * int(sizeof(int)) + kColumns + kListed;
  static_assert(kColumns <= kNone && kListed <= kNone);

  const Group& group;
  int* features;  // of the first node of each range
  unsigned char* columns;  // of node x
  unsigned char* next;  // the next node with x's feature

  __device__ NodeList(const Group& g, void* shared)
      : group(g),
        features(static_cast<int*>(shared)),
        columns(reinterpret_cast<unsigned char*>(features + kRanges)),
        next(columns + kColumns) {}

  __device__ int feature(int x) const { return int(group.trees.features.remainder(uint32_t(group.listed(x).id))); }

  // The first node of range `range` or later that compares `feature`.
  __device__ int find(int feature, int range) const {
    const int d = int(group.trees.features.d);
    for (const int ranges = group.nodes > 0 ? group.ranges() : 0; range < ranges; ++range) {
      const int ahead = feature - features[range], x = group.range_start(range) + (ahead < 0 ? ahead + d : ahead);
      if (x < group.range_start(range + 1)) return x;
    }
    return kNone;
  }

  // By all threads, which then wait for each other.
  __device__ void make(int threads) const {
    for (int r = int(threadIdx.x); r < group.ranges() && group.nodes > 0; r += threads)
      features[r] = feature(group.range_start(r));
    __syncthreads();
    for (int x = int(threadIdx.x); x < group.nodes; x += threads) {
      const int range = group.range_of(x), again = x + int(group.trees.features.d);
      columns[x] = static_cast<unsigned char>(group.listed(x).column);
      next[x] = static_cast<unsigned char>(again < group.range_start(range + 1) ? again : find(feature(x), range + 1));
    }
    __syncthreads();
  }

  // grad_z [rows, d] = or, where `add`, += the sums over each feature's nodes of `value` [rows, stride], in order. A thread
  // keeps its feature from row to row.
  __device__ void add_features(const float* value, int stride, int rows, float* grad_z, bool add, int threads) const {
    const int d = int(group.trees.features.d), teams = d < threads ? threads / d : 1;
    const int team = d < threads ? int(threadIdx.x) / d : 0;
    if (team >= teams) return;
    for (int feature = int(threadIdx.x) - team * d; feature < d; feature += threads) {
      const int first = find(feature, 0), second = first == kNone ? kNone : next[first];
      const int column = first == kNone ? 0 : columns[first];
      const float* row = value + team * stride;
      float* to = grad_z + int64_t(team) * d + feature;
      for (int r = team; r < rows; r += teams, row += teams * stride, to += int64_t(teams) * d) {
        float sum = add ? *to : 0;
        if (first != kNone) sum += row[column];
        for (int x = second; x != kNone; x = next[x]) sum += row[columns[x]];
        *to = sum;
      }
    }
  }

  // sums [nodes] = or, where `add`, += minus the sums of `value` over the rows, in order.
  template <int kRows>
  __device__ void add_thresholds(const float* value, int stride, float* sums, bool add, int threads) const {
    for (int x = threads - 1 - int(threadIdx.x); x < group.nodes; x += threads) {
      const float before = add ? sums[x] : 0, *column = value + columns[x];
      float sum = 0;
#pragma unroll 16
      for (int r = 0; r < kRows; ++r) sum += column[r * stride];
      sums[x] = before - sum;
    }
  }
};

}  // namespace otk::forest
