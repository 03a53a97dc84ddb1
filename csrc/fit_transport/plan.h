// plan.h - sizes and places of the CUDA kernels of fit_transport, for host and device; tested on the host.
#pragma once
#include <algorithm>
#include <cstdint>

#include "fit_transport/fit_transport.h"

namespace otk {

OTK_HOST_DEVICE inline int64_t whole(int64_t size, int64_t of) { return (size + of - 1) / of * of; }

// Division of a task's number by a size, as one multiplication instead of the forty instructions of an integer division:
// exact while number * divisor < 2^31.
struct Divider {
  uint32_t factor;

  explicit Divider(int64_t divisor) : factor(uint32_t(((int64_t(1) << 31) + divisor - 1) / divisor)) {}
  OTK_HOST_DEVICE int operator()(int number) const { return int(uint64_t(uint32_t(number)) * factor >> 31); }
};

struct TilePlace {
  int column, row;
};

// Tiles dealt in rows of `across`. Where `across` is even, four neighbouring threads take a square of four tiles, so that
// a thread shares each vector that it loads with the thread beside it. The last row may be past the end.
struct TileGrid {
  int across, square;  // square: 1 where tiles are dealt in squares of two by two, else 0
  Divider divider;

  explicit TileGrid(int64_t across_)
      : across(int(across_)), square(across_ % 2 == 0), divider(square ? across_ / 2 : across_) {}
  int64_t count(int64_t rows) const { return across * (square ? whole(rows, 2) : rows); }
  OTK_HOST_DEVICE TilePlace place(int t) const {
    const int s = t >> 2 * square, row = divider(s);
    return {((s - row * (across >> square)) << square) + (t & square), (row << square) + (t >> 1 & square)};
  }
};

// The kernels in shared memory: block `rank` of the `blocks` (a power of two) of a batch entry owns `width` columns of
// leaves, moments, F, G and z_r, and all of mu. Places are counted in floats; points (columns j) are the dense dimension of
// mu, F and G, padded so that float4s of eight neighbouring rows lie in different banks.
struct SlicePlan {
  static constexpr int kMostThreads = 512, kMostBlocks = 16;
  static constexpr int kGroups = 4;  // groups of threads that share the sum of F
  // Leaves of a column that a thread updates, of two columns. The paper's 144 leaves of 16 columns make 384 threads of
  // three leaves, three warps for each of a multiprocessor's four schedulers; with four leaves, nine
  // warps, one has a third more.
  static constexpr int kLeaves = 3;

  int64_t blocks, width, threads, rows;  // rows of z_r that a block searches
  int64_t leaf_stride, real_stride, point_stride;
  TileGrid column_tiles, point_tiles;  // 4 x 4 tiles of F and of the leaves; of distances
  int64_t transform_tiles, transform_tasks, measure_tasks, padded_leaves, update_tasks;
  Divider by_transform_tiles, by_point_tiles, by_points;
  int64_t mu, leaves, moments, f, pull, shares, z_r, index, pairs, small, inbox, floats;
  int64_t shared_mu, shared_inbox, shared_index, shared_cost,
      shared_floats;  // a batch entry's, where blocks meet in memory

  // in_cluster: blocks write into each other's shared memory; else they meet in a workspace.
  template <class T>
  SlicePlan(const FitTransport<T>& p, int64_t blocks_, bool in_cluster)
      : blocks(blocks_),
        width(whole((p.d_out + blocks_ - 1) / blocks_, 4)),
        rows((p.n + blocks_ - 1) / blocks_),
        leaf_stride(width % 16 ? width : width + 8),  // a warp's leaves lie in 32 banks when they are updated
        real_stride(whole(p.n, 8) + 4),
        point_stride(whole(p.m, 8) + 4),
        column_tiles(width / 4),
        point_tiles((p.m + 3) / 4),
        transform_tiles(column_tiles.count((p.m + 3) / 4)),
        transform_tasks(transform_tiles * kGroups),
        measure_tasks(point_tiles.count((p.n + 3) / 4)),
        padded_leaves(whole(p.trees << p.depth, kLeaves)),
        update_tasks(whole(column_tiles.count(padded_leaves / kLeaves), 16) * 2),
        by_transform_tiles(transform_tiles),
        by_point_tiles((p.m + 3) / 4),
        by_points(whole(p.m, 4)) {
    threads = std::max({fewest(transform_tasks), fewest(measure_tasks), fewest(update_tasks)});
    mu = 0;
    leaves = mu + padded_leaves * point_stride;
    moments = leaves + padded_leaves * leaf_stride;
    f = moments + update_tasks * 4 * kLeaves;
    shares = f + width * point_stride;  // of F, [kGroups width, points]
    pull = shares;  // G: made when the shares have been summed, used up before the next
    z_r = shares + kGroups * width * point_stride;
    index = z_r + width * real_stride;
    pairs = index + whole(p.n, 4);  // bit i % 32 of [i / 32, j]: row i is paired with point j
    small = pairs + (p.n + 31) / 32 * point_stride;
    inbox = small + 64;  // squared distances over each block's columns [blocks, rows, points]
    const int64_t scores = blocks * rows * point_stride;
    floats = inbox + (in_cluster ? scores : 0);
    shared_mu = 0;
    shared_inbox = padded_leaves * point_stride;
    shared_index = shared_inbox + blocks * scores;
    shared_cost = shared_index + whole(p.n, 4);
    shared_floats = shared_cost + kMostBlocks;
  }

  // Of shared memory, which must hold the plan. What 227 KB hold is small enough for the dividers: m < 2^12 and n < 2^14.
  int64_t bytes() const { return 4 * floats; }
  int64_t workspace_bytes(int64_t batch) const { return 4 * shared_floats * batch; }

 private:
  // The fewest threads that deal the tasks in as many rounds as kMostThreads would need.
  static int64_t fewest(int64_t tasks) {
    const int64_t rounds = (tasks + kMostThreads - 1) / kMostThreads;
    return whole((tasks + rounds - 1) / rounds, 32);
  }
};

// Blocks of the fewest columns that are worth a block: 16 or fewer, if kMostBlocks allow it.
template <class T>
int preferred_blocks(const FitTransport<T>& p) {
  int blocks = 1;
  while (blocks < SlicePlan::kMostBlocks && p.d_out > 16 * blocks) blocks *= 2;
  return blocks;
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
