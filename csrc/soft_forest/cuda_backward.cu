// cuda_backward.cu - the gradients of soft_forest in one pass over the rows, and a reduction in fixed order.
//
// Work      a persistent block of 12 warps takes tiles of 64 (or 32) rows and groups of at most 144 leaves:
//             1. value = grad_out leaves^T / T on the tensor cores (tf32.h): a warp has 16 rows and 48 (or 24) leaves;
//             2. a thread per (row, subtree of 8 leaves): shares p, q from z, weights mu, then upwards node by node:
//                gradient = reach p q (V(left) - V(right)), V = p V(left) + q V(right) (columns: cuda_nodes.h). In
//                trees deeper than 3 the nodes above have q h(left) - p h(right), h = reach V summed over their
//                subtrees;
//             3. grad_z: a thread per (row, feature) adds the nodes that compare it, in order;
//                grad_thresholds: a thread per node adds the tile's rows, in order;
//             4. grad_leaves += mu^T grad_out on the tensor cores: a warp has 48 leaves, 32 outputs, 48 sums a lane.
//           A block has a part of the rows and a range of the groups (cuda_partials.h) and walks through its tiles group
//           by group: with at most 128 outputs the leaves stay in shared memory and the sums of step 4 in registers from
//           tile to tile, and the next tile's grad_out and z arrive during steps 3 and 4 in the buffers that steps 2 and
//           3 have left. Of more outputs a tile takes 128 at a time, and the sums lie in the workspace.
// Memory    z and grad_out read once and grad_z written once by each group (the first writes, the others add).
//           Workspace: cuda_partials.h.
// Order     tiles, groups, rows, parts and ranges in fixed order: the same bits on every run on the same kind of device.
// Speed     the model of cuda_forward.cu: a warp's tile takes 1000 instructions in step 1 (288 products), 970 in step 2,
//           470 in step 3, 750 in step 4 (288 products) and 370 for copies: 56 us, and two launches.
// Not yet run on a GPU.
#include <algorithm>

#include "soft_forest/cuda_node_sums.h"
#include "soft_forest/cuda_partials.h"
#include "soft_forest/cuda_products.h"

namespace otk {
namespace {

using namespace forest;

constexpr int kWarps = 12, kThreads = kWarps * 32;
constexpr int kOutputs = 128;  // whose sums are in registers
constexpr int64_t kStagedFeatures = 256;

struct Backward {
  SoftForest<float> forest;
  Trees trees;
  Groups groups;
  Partials partials{};
  const float* grad_out = nullptr;
  RowSums grad_z{};
  float* partial = nullptr;  // [batch, parts, size]
  int first = 0, end = 0;  // tiles of this pass
  int rows = 0;
  int outputs = 0;       // staged at a time
  int output_tiles = 0;  // of so many
  int z_stride = 0, value_stride = 0, buffer = 0;  // floats of a buffer in shared memory
  bool keep_leaves = false, keep_sums = false;     // staged once; in registers from tile to tile
  bool rotate = false;                             // prefetched
  bool z_vector = false, leaf_vector = false, out_vector = false;
};

// The buffers whose contents change places: grad_out [rows, stride], z [rows, z_stride], values [rows, value_stride].
struct Tiles {
  float *out, *z, *value;
};

// What a block works with: its entry of the batch, its part of the rows, its range of the groups and its shared memory.
// Most addresses are made where they are used: kept, they would take the registers of step 4's sums.
template <int kRows, bool kStaged>
struct Block {
  static constexpr int kRowTiles = kRows / 16, kValueParts = kWarps / kRowTiles, kValueTiles = kGroup / 8 / kValueParts;

  const Backward& p;
  int warp, entry;
  const float* thresholds;

  __device__ explicit Block(const Backward& problem)
      : p(problem),
        warp(int(threadIdx.x) / 32),
        entry(int(blockIdx.x) / p.partials.parts / p.partials.ranges),
        thresholds(p.forest.thresholds + entry * p.forest.thresholds_stride) {}

  __device__ int part() const { return int(blockIdx.x) % p.partials.parts; }
  __device__ int range() const { return int(blockIdx.x) / p.partials.parts % p.partials.ranges; }

  __device__ const float* z(int64_t row) const { return p.forest.z + entry * p.forest.z_stride + row * p.forest.d; }
  __device__ const float* leaves() const { return p.forest.leaves + entry * p.forest.leaves_stride; }
  __device__ const float* grad_out(int64_t row) const { return p.grad_out + (entry * p.forest.n + row) * p.forest.d_out; }
  __device__ float* partial() const { return p.partial + (int64_t(entry) * p.partials.parts + part()) * p.partials.size; }

  __device__ float* leaf_tile() const { return shared_memory<float>(); }      // [kGroup, stride]
  __device__ float* mu() const { return leaf_tile() + kGroup * stride(); }    // [kRows, kStride]
  __device__ float* buffers() const { return mu() + kRows * kStride; }        // three of Tiles
  __device__ NodeList nodes(const Group& group) const {
    const int three = p.rotate ? 3 * p.buffer : kRows * (p.value_stride + stride() + p.z_stride);
    return {group, buffers() + three};
  }

  __device__ Tiles tiles() const {
    float* const out = buffers() + (p.rotate ? p.buffer : kRows * p.value_stride);
    return {out, out + (p.rotate ? p.buffer : kRows * stride()), buffers()};
  }

  __device__ int stride() const { return p.outputs + 4; }
  __device__ int outputs_from(int first) const {
    const int64_t left = p.forest.d_out - first;
    return int(left < p.outputs ? left : p.outputs);
  }
  __device__ int whole_from(int first) const { return (outputs_from(first) + 15) / 16 * 16; }  // zeros past the last
  __device__ int rows_from(int64_t row) const {
    return int(row >= p.forest.n ? 0 : p.forest.n - row < kRows ? p.forest.n - row : kRows);
  }

  // Rows past the last are zeros: they add nothing.
  __device__ void stage_out(int64_t row, int first, float* to) const {
    const int rows = rows_from(row), count = outputs_from(first), padded = whole_from(first);
    stage(to, stride(), grad_out(row) + first, p.forest.d_out, rows, count, padded, p.out_vector, warp, kWarps);
    stage(to + rows * stride(), stride(), p.grad_out, 0, kRows - rows, 0, padded, false, warp, kWarps);
  }
  __device__ void stage_z(int64_t row, float* to) const {
    if (!kStaged) return;
    const int rows = rows_from(row), d = int(p.forest.d);
    stage(to, p.z_stride, z(row), d, rows, d, d, p.z_vector, warp, kWarps);
    stage_ahead(p.trees, to, p.z_stride, z(row), rows, int(threadIdx.x), kThreads);
    stage(to + rows * p.z_stride, p.z_stride, p.forest.z, 0, kRows - rows, 0, d + kAhead, false, warp, kWarps);
  }
  __device__ void stage_leaves(const Group& group, int first) const {
    stage(leaf_tile(), stride(), leaves() + group.first * p.forest.d_out + first, p.forest.d_out, group.leaves,
          outputs_from(first), whole_from(first), p.leaf_vector, warp, kWarps);
  }

  __device__ Row<kStaged> row_of(const float* z_tile, int64_t first, int row) const {
    if (kStaged) return {p.trees, z_tile + row * p.z_stride, thresholds};
    const int64_t at = first + row < p.forest.n ? first + row : p.forest.n - 1;  // past the last, any row will do
    return {p.trees, z(at), thresholds};
  }

  __device__ void pull_values(const Group& group, Tiles tiles, int64_t row, bool stage_all, bool stage_rows) const {
    const int row_tile = warp % kRowTiles, part = warp / kRowTiles, leaf = part * kValueTiles * 8;
    Values<kValueTiles> values{};
    for (int tile = 0; tile < p.output_tiles; ++tile) {
      const int first = tile * p.outputs;
      __syncthreads();
      if (stage_all) stage_leaves(group, first);
      if (stage_rows || p.output_tiles > 1) stage_out(row, first, tiles.out);
      if (stage_rows && tile == 0) stage_z(row, tiles.z);
      finish_copies();
      __syncthreads();
      values.multiply(tiles.out + row_tile * 16 * stride(), leaf_tile() + leaf * stride(), stride(), whole_from(first));
    }
    values.write(tiles.value + row_tile * 16 * p.value_stride + leaf, p.value_stride, p.trees.scale);
    __syncthreads();
  }

  // Weights mu of a subtree's leaves; its columns of `value` become its nodes' gradients and h of its root.
  __device__ void climb(const Row<kStaged>& row, int subtree, float* weights_to, float* column) const {
    const int levels = p.trees.levels;
    const float reach = row.path(subtree);
    float weights[kSubtree] = {reach}, slope[kSubtree - 1] = {};
    Shares share[kSubtree - 1] = {};
    row.descend(subtree, weights, [&](int k, float here, Shares s) {
      share[k] = s;
      slope[k] = here * s.left * s.right;
    });
    forest::store(weights_to, levels, weights);
    float values[kSubtree] = {}, result[kSubtree] = {};
    forest::load(column, levels, values);
#pragma unroll
    for (int level = kSubtreeLevels - 1; level >= 0; --level) {
#pragma unroll
      for (int i = 0; i < 1 << level; ++i) {
        const int k = (1 << level) - 1 + i;
        const float left = values[2 * i], right = values[2 * i + 1];
        if (level < levels) {
          result[k] = slope[k] * (left - right);
          values[i] = share[k].left * left + share[k].right * right;
        }
      }
    }
    forest::store(column, levels, result);
    column[(1 << levels) - 1] = reach * values[0];
  }

  __device__ void route(const Group& group, Tiles tiles, int64_t row) const {
    const int levels = p.trees.levels;
    for (int task = int(threadIdx.x); task < (group.leaves >> levels) * kRows; task += kThreads) {
      const int r = task % kRows, s = task / kRows;
      float* column = tiles.value + r * p.value_stride + (s << levels);
      climb(row_of(tiles.z, row, r), (group.first >> levels) + s, mu() + r * kStride + (s << levels), column);
    }
    __syncthreads();
    if (p.trees.depth <= kSubtreeLevels) return;
    for (int task = int(threadIdx.x); task < group.upper() * kRows; task += kThreads) {
      const int r = task % kRows, x = task / kRows;
      float* row_columns = tiles.value + r * p.value_stride;
      row_columns[upper_column(group, x)] = upper_gradient(group, x, row_of(tiles.z, row, r), row_columns);
    }
    __syncthreads();
  }

  __device__ void add_nodes(int index, const Group& group, const float* value, int64_t row, bool first_group,
                            bool fresh) const {
    const NodeList list = nodes(group);
    float* const grad_z = p.grad_z.at(range(), p.forest.batch, entry, row);
    list.add_features(value, p.value_stride, rows_from(row), grad_z, !first_group, kThreads);
    float* const sums = partial() + p.partials.leaf_sums + int64_t(index) * kListed;
    list.add_thresholds<kRows>(value, p.value_stride, sums, !fresh, kThreads);
  }

  // A warp's first leaf and output in step 4, and where their sums lie.
  __device__ int first_leaf() const { return warp % kLeafParts * kLeafTiles * 16; }
  __device__ int first_output() const { return warp / kLeafParts * 32; }
  __device__ float* sums_at(const Group& group, int output) const {
    return partial() + SumsLayout{p.partials.width}.at(group.first + first_leaf(), output);
  }
  __device__ void load(const Group& group, int output, bool fresh, LeafSums& sums) const {
    const int width = p.partials.width;
    if (fresh)
      sums.zero();
    else
      sums.load(sums_at(group, output), width, group.leaves - first_leaf(), width - output);
  }
  __device__ void store(const Group& group, int output, LeafSums& sums) const {
    const int width = p.partials.width;
    sums.store(sums_at(group, output), width, group.leaves - first_leaf(), width - output);
  }

  __device__ void push_leaves(const Group& group, Tiles tiles, int64_t row, bool fresh, LeafSums& sums) const {
    const int leaf_count = group.leaves - first_leaf();
    for (int super = 0; super < p.partials.width; super += kOutputs) {
      const int output = super + first_output();
      if (!p.keep_sums) load(group, output, fresh, sums);
      for (int first = super; first < super + kOutputs && first < p.forest.d_out; first += p.outputs) {
        if (p.output_tiles > 1) {
          __syncthreads();
          stage_out(row, first, tiles.out);
          finish_copies();
          __syncthreads();
        }
        if (output >= first && output < first + p.outputs && output < p.partials.width && leaf_count > 0)
          sums.multiply(mu() + first_leaf(), tiles.out + output - first, stride(), kRows);
      }
      if (!p.keep_sums) store(group, output, sums);
    }
  }
};

template <int kRows, bool kStaged>
__global__ void __launch_bounds__(kThreads, 1) backward_kernel(const __grid_constant__ Backward p) {
  const Block<kRows, kStaged> block(p);
  const int first_group = p.partials.first_group(block.range()), groups = p.partials.first_group(block.range() + 1);
  const int start = p.first + block.part(), step = p.partials.parts;
  if (start >= p.end) return;
  Tiles tiles = block.tiles();
  LeafSums sums;
  for (int index = first_group; index < groups; ++index) {
    const Group group(p.trees, p.groups, index);
    __syncthreads();
    block.nodes(group).make(kThreads);
    if (p.keep_sums) block.load(group, block.first_output(), p.first == 0, sums);
    for (int tile = start; tile < p.end; tile += step) {
      const int after = tile + step < p.end ? tile + step : index + 1 < groups ? start : p.end;
      const int64_t row = int64_t(tile) * kRows, next = int64_t(after) * kRows;
      const bool begins = tile == start, fresh = begins && p.first == 0;
      const bool staged = p.rotate || start + step >= p.end;  // rows that the step before brought or left
      block.pull_values(group, tiles, row, begins || !p.keep_leaves, (begins && index == first_group) || !staged);
      block.route(group, tiles, row);
      if (p.rotate) block.stage_out(next, 0, tiles.z);
      block.add_nodes(index, group, tiles.value, row, index == first_group, fresh);
      if (p.rotate) {
        __syncthreads();
        block.stage_z(next, tiles.value);
      }
      block.push_leaves(group, tiles, row, fresh, sums);
      if (p.rotate) tiles = {tiles.z, tiles.value, tiles.out};
    }
    if (p.keep_sums) block.store(group, block.first_output(), sums);
  }
  finish_copies();
}

int64_t shared_bytes(const Backward& p) {
  const int64_t rows = p.rows, stride = p.outputs + 4;
  const int64_t buffers = p.rotate ? 3 * p.buffer : rows * (p.value_stride + stride + p.z_stride);
  return int64_t(sizeof(float)) * (kGroup * stride + rows * kStride + buffers) + NodeList::kBytes;
}

// The rows and outputs of a tile, what is kept and prefetched: as much as shared memory holds.
void plan_tile(Backward& p, const Device& device) {
  const SoftForest<float>& f = p.forest;
  const int64_t limit = shared_limit(device.capability), work = divide_up(f.n, 64) * f.batch * p.groups.count;
  p.value_stride = p.groups.height > kSubtreeLevels ? kColumns + 4 : kStride;
  p.outputs = f.d_out <= 32 ? 32 : f.d_out <= 64 ? 64 : kOutputs;
  p.rows = f.d > kStagedFeatures || work < device.multiprocessors ? 32 : 64;
  if (shared_bytes(p) > limit) p.rows = 32;
  while (shared_bytes(p) > limit) p.outputs /= 2;
  p.output_tiles = int(std::max<int64_t>(1, divide_up(f.d_out, p.outputs)));
  p.keep_leaves = p.output_tiles == 1;
  p.keep_sums = f.d_out <= kOutputs;
  if (f.d > kStagedFeatures) return;
  p.z_stride = padded_stride(f.d + kAhead);
  if (shared_bytes(p) > limit) p.rows = 32;
  if (shared_bytes(p) > limit) p.z_stride = 0;
  p.buffer = p.rows * std::max({p.value_stride, p.outputs + 4, p.z_stride});
  p.rotate = p.keep_leaves && p.z_stride > 0 && p.trees.depth <= kSubtreeLevels;
  if (shared_bytes(p) > limit) p.rotate = false;
}

Backward plan(const SoftForest<float>& f, const What& what) {
  check_sizes(f, what);
  const Device device = current_device();
  const Trees trees(f);
  Backward p{.forest = f, .trees = trees, .groups = Groups(trees)};
  plan_tile(p, device);
  p.partials = Partials(f, p.groups, p.rows, f.d, device.multiprocessors);
  return p;
}

}  // namespace

int64_t soft_forest_backward_cuda_workspace(const SoftForest<float>& forest) {
  const Backward p = plan(forest, describe("soft_forest_backward", forest));
  return p.partials.leaf_bytes() + p.partials.row_bytes(forest.d);
}

void soft_forest_backward_cuda(const SoftForest<float>& f, const float* grad_out, float* grad_z, float* grad_thresholds,
                               float* grad_leaves, void* workspace, void* stream) {
  if (f.batch == 0) return;
  const What what = describe("soft_forest_backward", f);
  Backward p = plan(f, what);
  const Partials& partials = p.partials;
  p.grad_out = grad_out;
  p.partial = static_cast<float*>(workspace);
  p.z_vector = aligned(f.z, f.d, f.z_stride);
  p.leaf_vector = aligned(f.leaves, f.d_out, f.leaves_stride);
  p.out_vector = aligned(grad_out, f.d_out, 0);
  float* const z_sums = p.partial + partials.leaf_bytes() / int64_t(sizeof(float));
  for (; p.first < partials.tiles; p.first = p.end) {
    p.end = std::min(partials.tiles, p.first + partials.pass);
    p.grad_z = rows_of_pass(partials, z_sums, grad_z, int64_t(p.first) * p.rows, f.d);
    launch({what, partials.blocks(), kThreads, size_t(shared_bytes(p)), stream},
           p.z_stride == 0 ? backward_kernel<32, false>
           : p.rows == 64  ? backward_kernel<64, true>
                           : backward_kernel<32, true>,
           p);
    if (partials.ranges > 1) reduce_rows(p.grad_z, partials.ranges, f.batch, f.n, 1, grad_z, what, stream);
  }
  reduce(partials, p.trees, p.partial, grad_thresholds, grad_leaves, what, stream);
}

}  // namespace otk
