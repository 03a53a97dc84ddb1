// cuda_partials.h - the gradients of thresholds and leaves that each block summed over its rows, and their sum.
#pragma once
#include <algorithm>
#include <string>

#include "soft_forest/cuda_routing.h"

namespace otk::forest {

// data [batch, parts, size]: a block's leaves [all leaves, width], then its thresholds [all nodes].
struct Partials {
  static constexpr int64_t kMostBytes = 512 << 20;

  int64_t batch = 0, nodes = 0, d_out = 0, size = 0;
  int leaves = 0, width = 0, parts = 0;  // width: d_out in whole eighths; parts: blocks of one batch entry
  float scale = 0;                       // of the leaves' sums

  Partials() = default;

  // At most a block per multiprocessor and per tile of rows, fewer where their sums would take more than kMostBytes.
  Partials(const SoftForest<float>& f, const Trees& trees, int64_t tiles, int multiprocessors)
      : batch(f.batch),
        nodes(f.trees * trees.nodes),
        d_out(f.d_out),
        leaves(trees.leaves),
        width(int(divide_up(f.d_out, 8) * 8)),
        scale(trees.scale) {
    size = divide_up(int64_t(leaves) * width + nodes, 4) * 4;
    const int64_t entries = std::max<int64_t>(1, batch), bytes = entries * size * int64_t(sizeof(float));
    const int64_t affordable = kMostBytes / std::max<int64_t>(1, bytes);
    parts = int(std::min(tiles, std::max<int64_t>(1, std::min(multiprocessors / entries, affordable))));
  }

  int64_t bytes() const { return int64_t(sizeof(float)) * batch * parts * size; }
};

// grad_thresholds [batch, nodes] and grad_leaves [batch, leaves, d_out]: the sums over the parts, in fixed order.
void reduce(const Partials& partials, const float* data, float* grad_thresholds, float* grad_leaves,
            const std::string& what, void* stream);

}  // namespace otk::forest
