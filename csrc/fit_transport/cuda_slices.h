// cuda_slices.h - fit_transport in the shared memories of a few blocks per batch entry (SlicePlan in plan.h): the steps
// that cuda_cluster.cu and cuda_cooperative.cu have in common.
//
// Work      a block owns a slice of columns of the leaves, their moments, F, G and z_r, and all of mu. A step needs the
//           other blocks twice: for their shares of the distances, each sent to the block that searches the row, and for
//           the rows' nearest points. Products keep 4 x 4 (F, distances) or 3 x 4 (gradient) sums of a thread in registers.
//           The last thread, whose warp has the fewest tiles, makes Adam's constants and sums costs while others compute F.
// Memory    moments lie in the order of the threads that update them, and leaves, F and G at strides that leave no bank
//           conflicts in the products and in Adam.
// Numerics  a distance is summed over the columns of a block, then over the blocks. Powers of beta are double.
// Order     every sum's order is fixed by the sizes: F over four quarters of the leaves, a gradient over two halves of the
//           points, G over the rows of a point in order. Data is handed over at barriers only; the one atomic sets bits.
// Time      a model, not a measurement: instructions read from SASS for sm_90a, conflicts counted from the addresses (a
//           float4 load of a half-warp takes one pass if neighbours share, else two), 1.755 GHz. Microseconds of a step of
//           the paper's size (N = M = 64, 144 leaves, d = 128, 8 blocks), before and after the layout below was chosen:
//             F 1.4 -> 1.05    distances 0.85, 0.85    search 0.75 -> 0.15    G 2.0 -> 0.4    gradient and Adam 4.9 -> 1.6
//           and 1.8 of barriers (0.8 a cluster's, assumed): 11.6 -> 5.8. Multiply-adds alone would take 1.9.
//
// An Exchange is how the blocks of an entry meet:
//   rank()                   of this block
//   begin()                  before the first exchange
//   sync()                   all blocks; writes before it are seen after it
//   give_route(at, weight)   mu[at], to all blocks; take_routes(mu, t, threads) after sync()
//   inbox(owner), inbox()    where block `owner`, or this one, finds distances: [from block, row, point]
//   give_index(i, j, lane)   a warp tells all blocks row i's nearest point; index(i) after sync()
//   cost_shares()            in block 0's reach: [blocks]
#pragma once
#include "common/cuda.h"
#include "fit_transport/cuda_adam.h"
#include "fit_transport/plan.h"

namespace otk {

__device__ inline float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ inline void store4(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }

__device__ inline void multiply_add(float (&sum)[4], float a, float4 b) {
  sum[0] += a * b.x, sum[1] += a * b.y, sum[2] += a * b.z, sum[3] += a * b.w;
}

__device__ inline void add_square(float (&sum)[4], float a, float4 b) {
  const float x = a - b.x, y = a - b.y, z = a - b.z, w = a - b.w;
  sum[0] += x * x, sum[1] += y * y, sum[2] += z * z, sum[3] += w * w;
}

__device__ inline float dot(float sum, float4 a, float4 b) {  // four fused steps, one after the other
  sum += a.x * b.x;
  sum += a.y * b.y;
  sum += a.z * b.z;
  sum += a.w * b.w;
  return sum;
}

template <class Exchange>
class SliceFit {
 public:
  __device__ SliceFit(const FitTransport<float>& problem, const SlicePlan& plan_, int64_t entry_, Exchange& exchange_)
      : p(problem),
        plan(plan_),
        exchange(exchange_),
        entry(entry_),
        rank(int(exchange_.rank())),
        blocks(int(plan.blocks)),
        t(int(threadIdx.x)),
        threads(int(plan.threads)),
        n(int(problem.n)),
        m(int(problem.m)),
        all(int(problem.trees << problem.depth)),
        padded_leaves(int(plan.padded_leaves)),
        tiles_j(int(problem.m + 3) / 4),
        width(int(plan.width)),
        rows(int(plan.rows)),
        leaf_stride(int(plan.leaf_stride)),
        real_stride(int(plan.real_stride)),
        point_stride(int(plan.point_stride)),
        update_tasks(int(plan.update_tasks)),
        inverse_trees(1.0f / float(problem.trees)),
        pair_weight(2.0f / float(problem.n)),
        mu(shared_memory<float>() + plan.mu),
        leaves(shared_memory<float>() + plan.leaves),
        moments(shared_memory<float>() + plan.moments),
        f(shared_memory<float>() + plan.f),
        shares(shared_memory<float>() + plan.shares),
        pull(shared_memory<float>() + plan.pull),
        z_r(shared_memory<float>() + plan.z_r),
        index(shared_memory<int>() + plan.index),
        pairs(shared_memory<unsigned>() + plan.pairs),
        warp_squares(shared_memory<float>() + plan.small + 16),
        adam_step(reinterpret_cast<AdamStep<float>*>(shared_memory<float>() + plan.small)) {}

  __device__ void run() {
    AdamPowers powers(p.adam, clerk() ? *p.step : 0.0f);
    load();
    exchange.begin();
    make_routes();
    exchange.sync();
    exchange.take_routes(mu, t, threads);
    for (int64_t step = 0; step < p.iters; ++step) {
      if (clerk()) {
        *adam_step = powers.next(p.adam);
        if (step > 0) send_cost();
      }
      transform();
      measure();
      exchange.sync();
      if (step > 0) report(step - 1);
      search();
      exchange.sync();
      match();
      const float squares = pair();
      update();
      keep_cost(squares);
      __syncthreads();
    }
    if (clerk()) send_cost();
    exchange.sync();  // the costs have arrived, and nobody reads this block's memory any more
    report(p.iters - 1);
    save();
  }

 private:
  static constexpr int kLeaves = SlicePlan::kLeaves;

  // The thread that makes Adam's constants and sums costs: of the last warp, which has the fewest tiles.
  __device__ bool clerk() const { return t == threads - 1; }

  __device__ bool has_column(int c) const { return rank * width + c < p.d_out; }

  __device__ int64_t leaf_at(int k, int c) const { return (entry * all + k) * p.d_out + rank * width + c; }

  // A task of update(): kLeaves leaves, k_step apart, of four columns, c_step apart. The halves of a warp share a tile:
  // each sums half of the points, and then updates two of the four columns.
  struct Fragment {
    int half, k, k_step, c, c_step;
    bool inside;

    __device__ Fragment(const SliceFit& fit, int task)
        : half(task / 16 % 2), k_step(fit.padded_leaves / kLeaves), c_step(fit.width / 4) {
      const TilePlace place = fit.plan.column_tiles.place(task / 32 * 16 + task % 16);
      inside = place.row < k_step;
      k = inside ? place.row : 0;
      c = place.column;
    }
    __device__ int leaf(int q) const { return k + q * k_step; }
    __device__ int column(int part) const { return c + (half + 2 * part) * c_step; }  // of the two that are updated
  };

  // What only pads a tile is no leaf: Adam with eps = 0 would make 0 / 0 of it.
  __device__ bool is_leaf(const Fragment& at, int q, int part) const {
    return at.inside && at.leaf(q) < all && has_column(at.column(part));
  }

  // exp_avg of the leaf, or exp_avg_sq for q + kLeaves
  __device__ float* moment(int task, int q, int part) const { return moments + (2 * q + part) * update_tasks + task; }

  // Everything that is read from device memory; padding is zero.
  __device__ void load() {
    for (int at = t; at < padded_leaves * width; at += threads) {
      const int k = at / width, c = at % width;
      leaves[k * leaf_stride + c] = k < all && has_column(c) ? p.leaves[leaf_at(k, c)] : 0.0f;
    }
    for (int task = t; task < update_tasks; task += threads) {
      const Fragment at(*this, task);
      for (int q = 0; q < kLeaves; ++q)
        for (int part = 0; part < 2; ++part) {
          const bool inside = is_leaf(at, q, part);
          const int64_t from = leaf_at(at.leaf(q), at.column(part));
          *moment(task, q, part) = inside ? p.exp_avg[from] : 0.0f;
          *moment(task, kLeaves + q, part) = inside ? p.exp_avg_sq[from] : 0.0f;
        }
    }
    for (int at = t; at < real_stride * width; at += threads) {
      const int i = at / width, c = at % width;
      const bool inside = i < n && has_column(c);
      z_r[c * real_stride + i] = inside ? p.z_r[entry * p.z_r_stride + i * p.d_out + rank * width + c] : 0.0f;
    }
  }

  // mu: each block makes the leaves of its turn and gives them to all.
  __device__ void make_routes() {
    const float *z = p.z_g + entry * p.z_g_stride, *thresholds = p.thresholds + entry * p.thresholds_stride;
    const int mine = (padded_leaves - rank + blocks - 1) / blocks;
    for (int at = t; at < mine * point_stride; at += threads) {
      const int k = rank + at / point_stride * blocks, j = at % point_stride;
      exchange.give_route(k * point_stride + j, k < all && j < m ? route(p, z + j * p.d, thresholds, k) : 0.0f);
    }
  }

  // F = mu leaves / T: groups of threads sum a quarter of the leaves each, into `shares`.
  __device__ void transform() {
    for (int task = t; task < int(plan.transform_tasks); task += threads) {
      const int group = plan.by_transform_tiles(task);
      const int from = all * group / SlicePlan::kGroups, to = all * (group + 1) / SlicePlan::kGroups;
      const TilePlace place = plan.column_tiles.place(task - group * int(plan.transform_tiles));
      if (place.row >= tiles_j) continue;
      const int j = 4 * place.row, c = 4 * place.column;
      float sum[4][4] = {};
#pragma unroll 4
      for (int k = from; k < to; ++k) {
        const float4 point = load4(mu + k * point_stride + j), leaf = load4(leaves + k * leaf_stride + c);
        multiply_add(sum[0], leaf.x, point);
        multiply_add(sum[1], leaf.y, point);
        multiply_add(sum[2], leaf.z, point);
        multiply_add(sum[3], leaf.w, point);
      }
#pragma unroll
      for (int q = 0; q < 4; ++q)
        store_shared4(shares + (group * width + c + q) * point_stride + j, sum[q][0], sum[q][1], sum[q][2], sum[q][3]);
    }
    __syncthreads();
    const int size = width * point_stride;
    for (int tile = t; tile < width * tiles_j; tile += threads) {
      const int column = plan.by_point_tiles(tile), at = column * point_stride + (tile - column * tiles_j) * 4;
      const float4 a = load4(shares + at), b = load4(shares + size + at), c = load4(shares + 2 * size + at),
                   d = load4(shares + 3 * size + at);
      store_shared4(f + at, (a.x + b.x + c.x + d.x) * inverse_trees, (a.y + b.y + c.y + d.y) * inverse_trees,
                    (a.z + b.z + c.z + d.z) * inverse_trees, (a.w + b.w + c.w + d.w) * inverse_trees);
    }
    for (int at = t; at < (n + 31) / 32 * point_stride; at += threads) pairs[at] = 0;
    __syncthreads();
  }

  // Squared distances over this block's columns, to the blocks that search their rows: row i is block i % blocks's.
  __device__ void measure() {
    const int block_bits = __ffs(unsigned(blocks)) - 1;
    for (int task = t; task < int(plan.measure_tasks); task += threads) {
      const TilePlace place = plan.point_tiles.place(task);
      const int i = 4 * place.row, j = 4 * place.column;
      if (i >= n) continue;
      float sum[4][4] = {};
#pragma unroll 4
      for (int c = 0; c < width; ++c) {
        const float4 real = load4(z_r + c * real_stride + i), point = load4(f + c * point_stride + j);
        add_square(sum[0], real.x, point);
        add_square(sum[1], real.y, point);
        add_square(sum[2], real.z, point);
        add_square(sum[3], real.w, point);
      }
#pragma unroll
      for (int q = 0; q < 4; ++q)
        if (i + q < n)
          store4(exchange.inbox((i + q) & (blocks - 1)) + (rank * rows + ((i + q) >> block_bits)) * point_stride + j,
                 make_float4(sum[q][0], sum[q][1], sum[q][2], sum[q][3]));
    }
  }

  // A warp finds the nearest point of a row from all blocks' distances and tells all blocks. Distances are ordered as the
  // integers that have their bits; a NaN is -1 and so wins, as index -1.
  __device__ void search() {
    const int lane = t % 32, nothing = 0x7fffffff;
    const float* distances = exchange.inbox();
    for (int row = t / 32, i = rank + row * blocks; i < n; row += threads / 32, i = rank + row * blocks) {
      int least = nothing, nearest = nothing;
      for (int j = lane; j < m; j += 32) {
        const float* at = distances + row * point_stride + j;
        float distance = 0.0f;
#pragma unroll 8
        for (int peer = 0; peer < blocks; ++peer) distance += at[peer * rows * point_stride];
        const int key = distance != distance ? -1 : __float_as_int(distance);
        if (key < least) least = key, nearest = j;
      }
      const int winner = __reduce_min_sync(~0u, least);
      const int lowest = __reduce_min_sync(~0u, least == winner ? nearest : nothing);
      exchange.give_index(i, winner < 0 ? -1 : lowest, lane);
    }
  }

  // Which rows each point is paired with, as bits: a point finds its rows, in order, without reading the others'. Index -1
  // stands for the last point.
  __device__ void match() {
    for (int i = t; i < n; i += threads) {
      const int other = exchange.index(i), j = other < 0 ? m - 1 : other;
      index[i] = other;
      if (!p.literal) atomicOr(pairs + i / 32 * point_stride + j, 1u << i % 32);
    }
    __syncthreads();
  }

  // G in `pull`; returns this thread's share of the cost. A pair of index -1 makes NaN.
  __device__ float pair() {
    float squares = 0.0f;
    for (int task = t; task < tiles_j * width; task += threads) {
      const int four = plan.by_points(task), j = task - four * 4 * tiles_j, c = 4 * four;
      float point[4], sum[4] = {};
#pragma unroll
      for (int q = 0; q < 4; ++q) point[q] = f[(c + q) * point_stride + j];
      if (p.literal) {
        if (j < m) add_pair(index[j] < 0 ? n - 1 : index[j], index[j] < 0, c, point, sum, squares);
      } else {
        for (int word = 0; word < (n + 31) / 32; ++word)
          for (unsigned rest = pairs[word * point_stride + j]; rest; rest &= rest - 1) {
            const int i = 32 * word + __ffs(rest) - 1;
            add_pair(i, index[i] < 0, c, point, sum, squares);
          }
      }
#pragma unroll
      for (int q = 0; q < 4; ++q) pull[(c + q) * point_stride + j] = sum[q];
    }
    __syncthreads();
    return squares;
  }

  // sum += 2/n (F - z_r[i]) and squares += |F - z_r[i]|^2, for columns c to c + 3
  __device__ void add_pair(int i, bool lost, int c, const float (&point)[4], float (&sum)[4], float& squares) const {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const float difference = lost ? __int_as_float(0x7fc00000) : point[q] - z_r[(c + q) * real_stride + i];
      sum[q] += pair_weight * difference;
      squares += difference * difference;
    }
  }

  // The cost waits until the leaves are updated, when no other work waits for it: the warps' sums, then the block's to
  // block 0, which writes their mean after the next sync().
  __device__ void keep_cost(float squares) {
    squares = warp_sum(squares);
    if (t % 32 == 0) warp_squares[t / 32] = squares;
  }

  __device__ void send_cost() {
    float total = 0.0f;
    for (int w = 0; w < threads / 32; ++w) total += warp_squares[w];
    exchange.cost_shares()[rank] = total;
  }

  __device__ void report(int64_t step) {
    if (rank != 0 || !clerk()) return;
    float total = 0.0f;
    for (int peer = 0; peer < blocks; ++peer) total += exchange.cost_shares()[peer];
    p.cost[entry * p.iters + step] = total / float(n);
  }

  // grad = mu^T G / T, straight into Adam
  __device__ void update() {
    const AdamStep<float> constants = *adam_step;
    for (int task = t; task < update_tasks; task += threads) {
      const Fragment at(*this, task);
      const int middle = (tiles_j + 1) / 2, from = at.half ? middle : 0, to = at.half ? tiles_j : middle;
      const float *weights[kLeaves], *grads[4];
#pragma unroll
      for (int q = 0; q < kLeaves; ++q) weights[q] = mu + at.leaf(q) * point_stride;
#pragma unroll
      for (int part = 0; part < 4; ++part) grads[part] = pull + (at.c + part * at.c_step) * point_stride;
      float sum[kLeaves][4] = {};
#pragma unroll 2
      for (int j = 4 * from; j < 4 * to; j += 4) {
        float4 grad[4];
#pragma unroll
        for (int part = 0; part < 4; ++part) grad[part] = load4(grads[part] + j);
#pragma unroll
        for (int q = 0; q < kLeaves; ++q) {
          const float4 weight = load4(weights[q] + j);
#pragma unroll
          for (int part = 0; part < 4; ++part) sum[q][part] = dot(sum[q][part], weight, grad[part]);
        }
      }
      float grad[kLeaves][2];
#pragma unroll
      for (int q = 0; q < kLeaves; ++q)
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const float even = sum[q][2 * part], odd = sum[q][2 * part + 1];
          grad[q][part] = (at.half ? odd : even) + __shfl_xor_sync(~0u, at.half ? even : odd, 16);
        }
      step(task, at, grad, constants);
    }
  }

  // Adam for a thread's leaves: all loads, then the arithmetic, then all stores.
  __device__ void step(int task, const Fragment& at, const float (&grad)[kLeaves][2], const AdamStep<float>& constants) {
    LeafState state[kLeaves][2];
#pragma unroll
    for (int q = 0; q < kLeaves; ++q)
#pragma unroll
      for (int part = 0; part < 2; ++part)
        state[q][part] = {leaves[at.leaf(q) * leaf_stride + at.column(part)], *moment(task, q, part),
                          *moment(task, kLeaves + q, part)};
#pragma unroll
    for (int q = 0; q < kLeaves; ++q)
#pragma unroll
      for (int part = 0; part < 2; ++part) state[q][part] = adam(grad[q][part] * inverse_trees, state[q][part], constants);
#pragma unroll
    for (int q = 0; q < kLeaves; ++q)
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        *moment(task, q, part) = state[q][part].exp_avg;
        *moment(task, kLeaves + q, part) = state[q][part].exp_avg_sq;
        if (is_leaf(at, q, part)) leaves[at.leaf(q) * leaf_stride + at.column(part)] = state[q][part].leaf;
      }
  }

  __device__ void save() {
    for (int at = t; at < all * width; at += threads) {
      const int k = at / width, c = at % width;
      if (has_column(c)) p.leaves[leaf_at(k, c)] = leaves[k * leaf_stride + c];
    }
    for (int task = t; task < update_tasks; task += threads) {
      const Fragment at(*this, task);
      for (int q = 0; q < kLeaves; ++q)
        for (int part = 0; part < 2; ++part) {
          if (!is_leaf(at, q, part)) continue;
          const int64_t to = leaf_at(at.leaf(q), at.column(part));
          p.exp_avg[to] = *moment(task, q, part);
          p.exp_avg_sq[to] = *moment(task, kLeaves + q, part);
        }
    }
    if (rank == 0)
      for (int i = t; i < n; i += threads) p.index[entry * n + i] = index[i];
  }

  const FitTransport<float>& p;
  const SlicePlan& plan;
  Exchange& exchange;
  const int64_t entry;
  const int rank, blocks, t, threads, n, m, all, padded_leaves, tiles_j, width, rows;
  const int leaf_stride, real_stride, point_stride, update_tasks;
  const float inverse_trees, pair_weight;
  float *const mu, *const leaves, *const moments, *const f, *const shares, *const pull, *const z_r;
  int* const index;
  unsigned* const pairs;
  float* const warp_squares;
  AdamStep<float>* const adam_step;
};

}  // namespace otk
