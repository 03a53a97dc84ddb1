// plan.h - sizes and places of the CUDA kernels of fit_transport, for host and device; tested on the host.
#pragma once
#include <algorithm>
#include <cstdint>

#include "fit_transport/fit_transport.h"

namespace otk {

OTK_HOST_DEVICE inline int64_t whole(int64_t size, int64_t of) { return (size + of - 1) / of * of; }

// The cluster kernel: block `rank` of a cluster owns `width` columns of leaves, moments, F, G and z_r, and all of mu. All in
// its shared memory, as floats at these places; points (columns j) are the dense dimension, padded so that float4 rows of
// eight neighbours lie in different banks.
struct ClusterPlan {
  static constexpr int kThreads = 256, kGroups = 4;  // groups of threads that share a product's long sum

  int64_t blocks, width, real_stride, point_stride;
  int64_t mu, leaves, exp_avg, exp_avg_sq, f, pull, z_r, scores, index, small, floats;

  template <class T>
  OTK_HOST_DEVICE ClusterPlan(const FitTransport<T>& p, int64_t blocks_)
      : blocks(blocks_),
        width(whole((p.d_out + blocks_ - 1) / blocks_, 4)),
        real_stride(whole(p.n, 8) + 4),
        point_stride(whole(p.m, 8) + 4) {
    const int64_t all = whole(p.trees << p.depth, 4), shares = width * kGroups;
    mu = 0;
    leaves = mu + all * point_stride;
    exp_avg = leaves + all * width;
    exp_avg_sq = exp_avg + all * width;
    f = exp_avg_sq + all * width;
    pull = f + width * point_stride;
    z_r = pull + width * point_stride;
    scores = z_r + width * real_stride;  // [n, points], or the groups' shares of F [kGroups width, points]
    index = scores + (p.n > shares ? p.n : shares) * point_stride;
    small = index + whole(p.n, 4);
    floats = small + 64;
  }

  OTK_HOST_DEVICE int64_t bytes() const { return 4 * floats; }
};

// Blocks of the smallest cluster whose blocks hold 16 columns each or fewer; 0 where no cluster holds the problem.
template <class T>
int cluster_blocks(const FitTransport<T>& p, int capability, int64_t shared_bytes) {
  const int most = capability >= 90 ? 8 : 1;
  int blocks = 1;
  while (blocks < most && p.d_out > 16 * blocks) blocks *= 2;
  for (; blocks <= most; blocks *= 2)
    if (ClusterPlan(p, blocks).bytes() <= shared_bytes) return blocks;
  return 0;
}

// The grid kernel: everything in a workspace in device memory, all of a batch at once.
struct GridPlan {
  static constexpr int kThreads = 256, kTile = 64;

  int64_t parts;  // of the points, searched apart
  int64_t mu, f, pull, row_cost, part_value, part_index, bytes;

  template <class T>
  OTK_HOST_DEVICE GridPlan(const FitTransport<T>& p, int64_t blocks) {
    const int64_t rows = p.batch * ((p.n + kTile - 1) / kTile), columns = (p.m + kTile - 1) / kTile;
    const int64_t wanted = (blocks + rows - 1) / rows;
    parts = wanted < 1 ? 1 : wanted > columns ? columns : wanted;
    mu = 0;
    f = place(mu, p.batch * (p.trees << p.depth) * p.m * 4);
    pull = place(f, p.batch * p.m * p.d_out * 4);
    row_cost = place(pull, p.batch * p.m * p.d_out * 4);
    part_value = place(row_cost, p.batch * p.n * 4);
    part_index = place(part_value, p.batch * p.n * parts * 4);
    bytes = place(part_index, p.batch * p.n * parts * 8);
  }

 private:
  OTK_HOST_DEVICE static int64_t place(int64_t before, int64_t size) { return whole(before + size, 256); }
};

}  // namespace otk
