// cuda_double_backward.cu - the double backward of soft_forest in one pass over the rows, and a reduction in fixed order.
//
// Work      a persistent block of 12 warps takes tiles of 32 rows and groups of at most 144 leaves (cuda_nodes.h):
//             1. value = grad_out leaves^T / T and dvalue = grad_out dleaves^T / T on the tensor cores (tf32.h);
//             2. a thread per (row, subtree of 8 leaves): shares and their tangents from z and dz, weights mu and dmu,
//                then upwards node by node the gradients (cuda_tangents.h); a thread per (row, node) for those above;
//             3. grad_z: a thread per (row, feature) adds the nodes that compare it, in order;
//                grad_thresholds: a thread per node adds the tile's rows, in order;
//             4. grad_leaves += dmu^T grad_out on the tensor cores: a warp has 48 leaves, 32 outputs, 48 sums a lane;
//             5. grad_grad_out = (dmu leaves + mu dleaves) / T on the tensor cores: a warp has 16 rows and every sixth
//                fragment of 8 outputs.
//           A block has a part of the rows and a range of the groups (cuda_partials.h) and walks through its tiles group
//           by group: with at most 128 outputs the leaves stay in shared memory and the sums of step 4 in registers from
//           tile to tile; dleaves then come once more for each tile. Of more outputs a tile takes 128 at a time, and the
//           sums lie in the workspace.
// Memory    z, dz and grad_out read once, grad_z and grad_grad_out written once by each group (the first writes, the
//           others add). Workspace: cuda_partials.h.
// Order     tiles, groups, rows, parts and ranges in fixed order: the same bits on every run on the same kind of device.
// Not yet run on a GPU.
#include <algorithm>

#include "soft_forest/cuda_node_sums.h"
#include "soft_forest/cuda_partials.h"
#include "soft_forest/cuda_products.h"
#include "soft_forest/cuda_tangents.h"
#include "soft_forest/double_backward.h"

namespace otk {
namespace {

using namespace forest;

constexpr int kWarps = 12, kThreads = kWarps * 32, kRows = 32;
constexpr int kRowTiles = kRows / 16, kParts = kWarps / kRowTiles;  // warps along a product's other dimension
constexpr int kValueTiles = kGroup / 8 / kParts;
constexpr int kOutputs = 128;  // whose sums are in registers
constexpr int kOutputTiles = (kOutputs / 8 + kParts - 1) / kParts;
constexpr int kRoots = kGroup / kSubtree + 1;  // odd: rows start in different banks
constexpr int64_t kStagedFeatures = 256;

struct Double {
  SoftForest<float> forest;
  Trees trees;
  Groups groups;
  const float *grad_out = nullptr, *dz = nullptr, *dthresholds = nullptr, *dleaves = nullptr;
  Partials partials{};
  RowSums grad_grad_out{}, grad_z{};
  float* partial = nullptr;  // [batch, parts, size]
  int first = 0, end = 0;  // tiles of this pass
  int outputs = 0;       // staged at a time
  int output_tiles = 0;  // of so many
  int z_stride = 0, value_stride = 0;           // floats in shared memory; 0: z is not staged
  bool keep_leaves = false, keep_sums = false;  // staged once; in registers from tile to tile
  bool z_vector = false, dz_vector = false, leaf_vector = false, dleaf_vector = false, out_vector = false;
};

// What a block works with: its entry of the batch, its part of the rows, its range of the groups and its shared memory.
// Addresses are made where they are used, and those three lie in shared memory: kept, they would take the registers of
// step 4's sums.
template <bool kStaged>
struct Block {
  const Double& p;
  int warp;

  __device__ explicit Block(const Double& problem) : p(problem), warp(int(threadIdx.x) / 32) {
    const int parts = p.partials.parts, ranges = p.partials.ranges, block = int(blockIdx.x);
    int* const place = shared_memory<int>();
    const int range = block / parts % ranges;  // every thread writes the same
    place[0] = block % parts, place[1] = range, place[2] = block / parts / ranges;
    place[3] = p.partials.first_group(range), place[4] = p.partials.first_group(range + 1);
    __syncthreads();
  }

  __device__ int row_tile() const { return warp % kRowTiles; }
  __device__ int part() const { return warp / kRowTiles; }
  __device__ int block_part() const { return shared_memory<int>()[0]; }
  __device__ int range() const { return shared_memory<int>()[1]; }
  __device__ int entry() const { return shared_memory<int>()[2]; }
  __device__ int first_group() const { return shared_memory<int>()[3]; }
  __device__ int end_group() const { return shared_memory<int>()[4]; }
  __device__ const float* z(int64_t row) const { return p.forest.z + entry() * p.forest.z_stride + row * p.forest.d; }
  __device__ const float* dz(int64_t row) const { return p.dz + (entry() * p.forest.n + row) * p.forest.d; }
  __device__ const float* thresholds() const { return p.forest.thresholds + entry() * p.forest.thresholds_stride; }
  __device__ const float* dthresholds() const {
    return p.dthresholds ? p.dthresholds + entry() * p.forest.trees * p.trees.nodes : nullptr;
  }
  __device__ const float* leaves() const { return p.forest.leaves + entry() * p.forest.leaves_stride; }
  __device__ const float* dleaves() const { return p.dleaves + entry() * p.forest.d_out * p.trees.leaves; }
  __device__ float* partial() const {
    return p.partial + (int64_t(entry()) * p.partials.parts + block_part()) * p.partials.size;
  }

  __device__ float* leaf_tile() const { return shared_memory<float>() + 8; }               // [kGroup, stride]
  __device__ float* out() const { return leaf_tile() + kGroup * stride(); }                // [kRows, stride]
  __device__ float* mu() const { return out() + kRows * stride(); }                        // [kRows, kStride]
  __device__ float* dmu() const { return mu() + kRows * kStride; }                         // likewise; first dvalue
  __device__ float* value() const { return dmu() + kRows * kStride; }                      // [kRows, value_stride]
  __device__ float* z_tile() const { return value() + kRows * p.value_stride; }            // [kRows, z_stride]
  __device__ float* dz_tile() const { return z_tile() + kRows * p.z_stride; }              // likewise
  __device__ float* droots() const { return dz_tile() + kRows * p.z_stride; }              // [kRows, kRoots]
  __device__ NodeList nodes(const Group& group) const { return {group, droots() + kRows * kRoots}; }

  __device__ int stride() const { return p.outputs + 4; }
  __device__ int outputs_from(int first) const {
    const int64_t left = p.forest.d_out - first;
    return int(left < p.outputs ? left : p.outputs);
  }
  __device__ int whole_from(int first) const { return (outputs_from(first) + 15) / 16 * 16; }  // zeros past the last
  __device__ int rows_from(int64_t row) const { return int(p.forest.n - row < kRows ? p.forest.n - row : kRows); }

  // Rows past the last are zeros: they add nothing.
  __device__ void stage_out(int64_t row, int first) const {
    const int rows = rows_from(row), padded = whole_from(first);
    const float* from = p.grad_out + (entry() * p.forest.n + row) * p.forest.d_out + first;
    stage(out(), stride(), from, p.forest.d_out, rows, outputs_from(first), padded, p.out_vector, warp, kWarps);
    stage(out() + rows * stride(), stride(), from, 0, kRows - rows, 0, padded, false, warp, kWarps);
  }
  __device__ void stage_z(int64_t row) const {
    const int d = int(p.forest.d);
    if (!kStaged) return;
    const auto rows_of = [&](const float* from, bool vector, float* to) {
      const int rows = rows_from(row);
      stage(to, p.z_stride, from, d, rows, d, d, vector, warp, kWarps);
      stage_ahead(p.trees, to, p.z_stride, from, rows, int(threadIdx.x), kThreads);
      stage(to + rows * p.z_stride, p.z_stride, from, 0, kRows - rows, 0, d + kAhead, false, warp, kWarps);
    };
    rows_of(z(row), p.z_vector, z_tile());
    rows_of(dz(row), p.dz_vector, dz_tile());
  }
  // Leaves past the last, up to whole eighths, are zeros.
  __device__ void stage_leaves(const Group& group, int first, const float* from, bool vector) const {
    const int padded = whole_from(first), more = whole(group) - group.leaves;
    stage(leaf_tile(), stride(), from + group.first * p.forest.d_out + first, p.forest.d_out, group.leaves,
          outputs_from(first), padded, vector, warp, kWarps);
    stage(leaf_tile() + group.leaves * stride(), stride(), from, 0, more, 0, padded, false, warp, kWarps);
  }
  __device__ static int whole(const Group& group) { return (group.leaves + 7) / 8 * 8; }

  __device__ static void arrive() {
    finish_copies();
    __syncthreads();
  }

  __device__ TangentRow<kStaged> row_of(int64_t first, int row) const {
    const int at = row * p.z_stride;
    if (kStaged) return {{p.trees, z_tile() + at, thresholds()}, dz_tile() + at, dthresholds()};
    const int64_t near = first + row < p.forest.n ? first + row : p.forest.n - 1;  // past the last, any row will do
    return {{p.trees, z(near), thresholds()}, dz(near), dthresholds()};
  }

  __device__ void pull_values(const Group& group, int64_t row, bool stage_all, bool stage_tile) const {
    const int leaf = part() * kValueTiles * 8;
    Values<kValueTiles> values{}, dvalues{};
    for (int tile = 0; tile < p.output_tiles; ++tile) {
      const int first = tile * p.outputs;
      __syncthreads();
      if (stage_all) stage_leaves(group, first, leaves(), p.leaf_vector);
      if (stage_tile || p.output_tiles > 1) stage_out(row, first);
      if (stage_tile && tile == 0) stage_z(row);
      arrive();
      const float *rows = out() + row_tile() * 16 * stride(), *below = leaf_tile() + leaf * stride();
      values.multiply(rows, below, stride(), whole_from(first));
      if (!p.dleaves) continue;
      __syncthreads();
      stage_leaves(group, first, dleaves(), p.dleaf_vector);
      arrive();
      dvalues.multiply(rows, below, stride(), whole_from(first));
    }
    values.write(value() + row_tile() * 16 * p.value_stride + leaf, p.value_stride, p.trees.scale);
    dvalues.write(dmu() + row_tile() * 16 * kStride + leaf, kStride, p.trees.scale);
    __syncthreads();
  }

  // A subtree's columns: of value, which become its nodes' gradients and h of its root; of dvalue, which become dmu.
  __device__ void climb(const TangentRow<kStaged>& row, int subtree, float* mu_to, float* dmu_to, float* column,
                        float* droot) const {
    const int levels = p.trees.levels;
    Subtree tree;
    tree.descend(row, subtree);
    float v[kSubtree] = {}, dv[kSubtree] = {}, grads[kSubtree] = {};
    forest::load(column, levels, v);
    forest::load(dmu_to, levels, dv);
    tree.weigh(v, dv);
    forest::store(mu_to, levels, tree.mu);
    forest::store(dmu_to, levels, tree.dmu);
    tree.ascend(levels, v, dv, grads);
    grads[(1 << kSubtreeLevels) - 1] = v[0];
    forest::store(column, levels, grads);
    if (p.trees.depth > kSubtreeLevels) *droot = dv[0];
  }

  __device__ void route(const Group& group, int64_t row) const {
    const int levels = p.trees.levels, more = whole(group) - group.leaves;
    for (int task = int(threadIdx.x); task < (group.leaves >> levels) * kRows; task += kThreads) {
      const int r = task % kRows, s = task / kRows, at = r * kStride + (s << levels);
      climb(row_of(row, r), (group.first >> levels) + s, mu() + at, dmu() + at,
            value() + r * p.value_stride + (s << levels), droots() + r * kRoots + s);
    }
    for (int k = int(threadIdx.x); k < more * kRows; k += kThreads) {  // dmu has grad_out 0 there, which may be NaN
      const int at = k % kRows * kStride + group.leaves + k / kRows;
      mu()[at] = dmu()[at] = 0;
    }
    __syncthreads();
    if (p.trees.depth <= kSubtreeLevels) return;
    for (int task = int(threadIdx.x); task < group.upper() * kRows; task += kThreads) {
      const int r = task % kRows, x = task / kRows;
      float* row_columns = value() + r * p.value_stride;
      row_columns[upper_column(group, x)] =
          upper_double_gradient(group, x, row_of(row, r), row_columns, droots() + r * kRoots);
    }
    __syncthreads();
  }

  __device__ void add_nodes(int index, const Group& group, int64_t row, bool first_group, bool fresh) const {
    const NodeList list = nodes(group);
    float* const grad_z = p.grad_z.at(range(), p.forest.batch, entry(), row);
    list.add_features(value(), p.value_stride, rows_from(row), grad_z, !first_group, kThreads);
    float* const sums = partial() + p.partials.leaf_sums + int64_t(index) * kListed;
    list.add_thresholds<kRows>(value(), p.value_stride, sums, !fresh, kThreads);
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

  __device__ void push_leaves(const Group& group, int64_t row, bool fresh, LeafSums& sums) const {
    const int leaf_count = group.leaves - first_leaf();
    for (int super = 0; super < p.partials.width; super += kOutputs) {
      const int output = super + first_output();
      if (!p.keep_sums) load(group, output, fresh, sums);
      for (int first = super; first < super + kOutputs && first < p.forest.d_out; first += p.outputs) {
        if (p.output_tiles > 1) {
          __syncthreads();
          stage_out(row, first);
          arrive();
        }
        if (output >= first && output < first + p.outputs && output < p.partials.width && leaf_count > 0)
          sums.multiply(dmu() + first_leaf(), out() + output - first, stride(), kRows);
      }
      if (!p.keep_sums) store(group, output, sums);
    }
  }

  // Step 5; the leaves come last, so that a single tile of a single group finds them where it starts.
  __device__ void pull_result(const Group& group, int64_t row, bool first_group) const {
    const int at = row_tile() * 16 * kStride, rows = rows_from(row) - row_tile() * 16;
    for (int tile = 0; tile < p.output_tiles; ++tile) {
      const int first = tile * p.outputs, outputs = outputs_from(first);
      Outputs<kOutputTiles, kParts> result{};
      if (p.dleaves) {
        if (p.output_tiles > 1) {
          __syncthreads();
          stage_leaves(group, first, dleaves(), p.dleaf_vector);
          arrive();
        }
        result.multiply(mu() + at, leaf_tile(), stride(), whole(group), part(), outputs);
      }
      if (p.dleaves || p.output_tiles > 1) {
        __syncthreads();
        stage_leaves(group, first, leaves(), p.leaf_vector);
        arrive();
      }
      result.multiply(dmu() + at, leaf_tile(), stride(), whole(group), part(), outputs);
      float* to = p.grad_grad_out.at(range(), p.forest.batch, entry(), row + row_tile() * 16) + first;
      result.write(to, p.forest.d_out, rows, outputs, part(), p.trees.scale, !first_group);
    }
  }
};

template <bool kStaged>
__global__ void __launch_bounds__(kThreads, 1) double_kernel(const __grid_constant__ Double p) {
  const Block<kStaged> block(p);
  const int step = p.partials.parts;
  if (p.first + block.block_part() >= p.end) return;
  LeafSums sums;
  for (int index = block.first_group(); index < block.end_group(); ++index) {
    const Group group(p.trees, p.groups, index);
    __syncthreads();
    block.nodes(group).make(kThreads);
    if (p.keep_sums) block.load(group, block.first_output(), p.first == 0, sums);
    for (int tile = p.first + block.block_part(); tile < p.end; tile += step) {
      const int64_t row = int64_t(tile) * kRows;
      const bool begins = tile < p.first + step, first_group = index == block.first_group();
      const bool staged = begins && tile + step >= p.end && !first_group;  // the only tile: its rows are still there
      block.pull_values(group, row, begins || !p.keep_leaves, !staged);
      block.route(group, row);
      block.add_nodes(index, group, row, index == block.first_group(), begins && p.first == 0);
      block.push_leaves(group, row, begins && p.first == 0, sums);
      block.pull_result(group, row, index == block.first_group());
    }
    if (p.keep_sums) block.store(group, block.first_output(), sums);
  }
}

int64_t shared_bytes(const Double& p) {
  const int64_t stride = p.outputs + 4, of_a_row = stride + 2 * kStride + p.value_stride + kRoots + 2 * p.z_stride;
  return int64_t(sizeof(float)) * (8 + kGroup * stride + kRows * of_a_row) + NodeList::kBytes;
}

Double plan(const SoftForest<float>& f, const What& what) {
  check_sizes(f, what);
  const Device device = current_device();
  const Trees trees(f);
  Double p{.forest = f, .trees = trees, .groups = Groups(trees)};
  const int64_t limit = shared_limit(device.capability);
  p.value_stride = p.groups.height > kSubtreeLevels ? kColumns + 4 : kStride;
  p.outputs = f.d_out <= 32 ? 32 : f.d_out <= 64 ? 64 : kOutputs;
  while (shared_bytes(p) > limit) p.outputs /= 2;
  p.output_tiles = int(std::max<int64_t>(1, divide_up(f.d_out, p.outputs)));
  p.keep_leaves = p.output_tiles == 1;
  p.keep_sums = f.d_out <= kOutputs;
  if (f.d <= kStagedFeatures) p.z_stride = padded_stride(f.d + kAhead);
  if (shared_bytes(p) > limit) p.z_stride = 0;
  p.partials = Partials(f, p.groups, kRows, f.d + f.d_out, device.multiprocessors);
  return p;
}

}  // namespace

int64_t soft_forest_double_backward_cuda_workspace(const SoftForest<float>& forest) {
  const Double p = plan(forest, describe("soft_forest_double_backward", forest));
  return p.partials.leaf_bytes() + p.partials.row_bytes(forest.d) + p.partials.row_bytes(forest.d_out);
}

void soft_forest_double_backward_cuda(const SoftForest<float>& f, const float* grad_out, const float* dz,
                                      const float* dthresholds, const float* dleaves, float* grad_grad_out, float* grad_z,
                                      float* grad_thresholds, float* grad_leaves, void* workspace, void* stream) {
  if (f.batch == 0) return;
  const What what = describe("soft_forest_double_backward", f);
  Double p = plan(f, what);
  p.grad_out = grad_out, p.dz = dz, p.dthresholds = dthresholds, p.dleaves = dleaves;
  const Partials& partials = p.partials;
  p.partial = static_cast<float*>(workspace);
  p.z_vector = aligned(f.z, f.d, f.z_stride);
  p.dz_vector = aligned(dz, f.d, 0);
  p.leaf_vector = aligned(f.leaves, f.d_out, f.leaves_stride);
  p.dleaf_vector = aligned(dleaves, f.d_out, 0);
  p.out_vector = aligned(grad_out, f.d_out, 0);
  float* const z_sums = p.partial + partials.leaf_bytes() / int64_t(sizeof(float));
  float* const out_sums = z_sums + partials.row_bytes(f.d) / int64_t(sizeof(float));
  for (; p.first < partials.tiles; p.first = p.end) {
    p.end = std::min(partials.tiles, p.first + partials.pass);
    p.grad_z = rows_of_pass(partials, z_sums, grad_z, int64_t(p.first) * kRows, f.d);
    p.grad_grad_out = rows_of_pass(partials, out_sums, grad_grad_out, int64_t(p.first) * kRows, f.d_out);
    launch({what, partials.blocks(), kThreads, size_t(shared_bytes(p)), stream},
           p.z_stride ? double_kernel<true> : double_kernel<false>, p);
    if (partials.ranges == 1) continue;
    reduce_rows(p.grad_z, partials.ranges, f.batch, f.n, 1, grad_z, what, stream);
    reduce_rows(p.grad_grad_out, partials.ranges, f.batch, f.n, 1, grad_grad_out, what, stream);
  }
  reduce(partials, p.trees, p.partial, grad_thresholds, grad_leaves, what, stream);
}

}  // namespace otk
