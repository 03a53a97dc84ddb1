// cuda_partials.h - how the backward kernels share the work out, and the partial sums that this leaves to add up.
//
// Of each entry of the batch a block takes one of `parts` of the tiles of rows and one of `ranges` of the groups of
// leaves. It works group by group, through its tiles each time, so that a group's sums stay with it meanwhile.
// Plan      at most one block per multiprocessor (or one per entry). A step is one tile of one group, and what a pass costs
//           each group besides, to fetch its sums and put them back, is about another. Of the parts and ranges that take
//           the fewest steps, those that write the fewest bytes.
// Memory    sums over a part's rows: gradients of all leaves and nodes, once for each part. Sums over a range's leaves:
//           gradients of rows, once for each range if there are several; the rows then come in passes, a launch each.
//           Each of the two is at most kBytes per multiprocessor (one part and one range are always allowed).
#pragma once
#include <algorithm>
#include <string>

#include "soft_forest/cuda_nodes.h"

namespace otk::forest {

struct Partials {
  static constexpr int64_t kBytes = 512 << 10;

  int64_t batch = 0, n = 0, d_out = 0;
  int64_t size = 0, leaf_sums = 0;  // floats of a part: of leaves (SumsLayout), then of nodes [groups, kListed]
  int tiles = 0, pass = 0;  // of `rows` rows; so many in a pass
  int groups = 0, width = 0, rows = 0, parts = 0, ranges = 1;

  Partials() = default;

  // row_floats: of a row's gradients
  Partials(const SoftForest<float>& f, const Groups& g, int tile_rows, int64_t row_floats, int multiprocessors)
      : batch(f.batch),
        n(f.n),
        d_out(f.d_out),
        tiles(int(divide_up(f.n, tile_rows))),
        groups(g.count),
        width(int(divide_up(f.d_out, 8) * 8)),
        rows(tile_rows) {
    leaf_sums = divide_up(f.trees << f.depth, 2) * 2 * width;
    size = leaf_sums + int64_t(groups) * kListed;
    const int64_t entries = std::max<int64_t>(1, batch), blocks = std::max<int64_t>(1, multiprocessors / entries);
    const int64_t most = kBytes * multiprocessors / int64_t(sizeof(float)) / entries;
    const int64_t tile = rows * std::max<int64_t>(1, row_floats);
    int64_t fewest_steps = 0, fewest_floats = 0;
    for (int64_t p = std::min({blocks, int64_t(tiles), std::max<int64_t>(1, most / size)}); p >= 1; --p) {
      const int64_t r = std::clamp<int64_t>(std::min(blocks / p, most / (p * tile)), 1, groups);
      const int64_t in_pass = r > 1 ? std::min<int64_t>(tiles, most / (r * tile) / p * p) : tiles;
      const int64_t steps = (divide_up(tiles, p) + divide_up(tiles, in_pass)) * divide_up(groups, r);
      const int64_t floats = p * size + (r > 1 ? r * tiles * tile : 0);
      if (parts > 0 && (steps > fewest_steps || (steps == fewest_steps && floats >= fewest_floats))) continue;
      fewest_steps = steps, fewest_floats = floats;
      parts = int(p), ranges = int(r), pass = int(in_pass);
    }
  }

  int64_t blocks() const { return batch * ranges * parts; }
  __device__ int first_group(int range) const { return int(int64_t(range) * groups / ranges); }
  int64_t leaf_bytes() const { return int64_t(sizeof(float)) * batch * parts * size; }
  // Of the rows of a pass, `floats` each: [ranges, batch, rows of a pass, floats].
  int64_t row_bytes(int64_t floats) const {
    return ranges > 1 ? divide_up(int64_t(sizeof(float)) * ranges * batch * pass * rows * floats, 16) * 16 : 0;
  }
};

// Sums [ranges, batch, rows, width] over leaves as a kernel writes them: of a pass's rows from `first` on, or, where there
// is one range, all rows of the result.
struct RowSums {
  float* data = nullptr;
  int64_t first = 0, rows = 0, width = 0;

  // Row `row` of entry `entry` of the batch, for range `range` (0 where there is one).
  __device__ float* at(int64_t range, int64_t batch, int64_t entry, int64_t row) const {
    return data + ((range * batch + entry) * rows + row - first) * width;
  }
};

// grad_thresholds [batch, nodes] and grad_leaves [batch, leaves, d_out]: the sums over the parts, in fixed order.
void reduce(const Partials& partials, const Trees& trees, const float* data, float* grad_thresholds, float* grad_leaves,
            const What& what, void* stream);

// Where the rows' gradients of the pass from row `first` on go.
inline RowSums rows_of_pass(const Partials& p, float* partial, float* result, int64_t first, int64_t width) {
  return p.ranges > 1 ? RowSums{partial, first, int64_t(p.pass) * p.rows, width} : RowSums{result, 0, p.n, width};
}

// The rows that `sums` has of result [batch, n, width]: the sums over the ranges, in order, times scale.
void reduce_rows(const RowSums& sums, int ranges, int64_t batch, int64_t n, float scale, float* result, const What& what,
                 void* stream);

}  // namespace otk::forest
