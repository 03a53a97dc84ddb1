// cuda_grid.cu - fit_transport where no few blocks' shared memory holds it: one cooperative launch for the whole batch.
//
// Layout    workspace (plan.h): mu [batch, K, m], F and G [batch, m, d_out], and the rows' best of each part of the points.
// Work      64 x 64 tiles of F, of distances and of gradients are dealt to the blocks in turn; a thread sums 4 x 4 of a
//           tile, whose operands pass through shared memory 16 at a time. Grid-wide barriers between the phases: F,
//           distances, joining the parts, G, gradients with Adam.
// Order     every sum's order is fixed by the sizes and the number of blocks decides only the parts that are searched.
// Not yet run on a GPU.
#include "common/cuda.h"
#include "fit_transport/cuda_adam.h"
#include "fit_transport/cuda_kernels.h"

namespace otk {
namespace {

constexpr int kThreads = GridPlan::kThreads, kTile = GridPlan::kTile, kDepth = 16, kStride = kTile + 4,
              kWarps = kThreads / 32;

// The lowest cost offered and the lowest index that has it. A NaN counts as less than all, with index -1.
struct Nearest {
  float cost = kInfinity;
  int64_t index = INT64_MAX;

  __device__ void offer(float other, int64_t j) {
    if (other != other) other = -kInfinity, j = -1;
    if (other < cost || (other == cost && j < index)) cost = other, index = j;
  }

  // Of 16 neighbouring lanes, in each.
  __device__ void join() {
    for (int step = 8; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(~0u, cost, step);
      offer(other, __shfl_xor_sync(~0u, static_cast<long long>(index), step));
    }
  }
};

struct Product {
  static __device__ void add(float& sum, float a, float b) { sum += a * b; }
};
struct Distance {
  static __device__ void add(float& sum, float a, float b) { sum += (a - b) * (a - b); }
};

struct Fit {
  const FitTransport<float>& p;
  const int64_t parts, all, row_tiles, point_tiles, leaf_tiles, column_tiles;
  float *mu, *f, *pull, *row_cost, *part_value;
  int64_t* part_index;

  __device__ Fit(const FitTransport<float>& problem, const GridPlan& plan, unsigned char* workspace)
      : p(problem),
        parts(plan.parts),
        all(problem.trees << problem.depth),
        row_tiles((problem.n + kTile - 1) / kTile),
        point_tiles((problem.m + kTile - 1) / kTile),
        leaf_tiles((all + kTile - 1) / kTile),
        column_tiles((problem.d_out + kTile - 1) / kTile),
        mu(reinterpret_cast<float*>(workspace + plan.mu)),
        f(reinterpret_cast<float*>(workspace + plan.f)),
        pull(reinterpret_cast<float*>(workspace + plan.pull)),
        row_cost(reinterpret_cast<float*>(workspace + plan.row_cost)),
        part_value(reinterpret_cast<float*>(workspace + plan.part_value)),
        part_index(reinterpret_cast<int64_t*>(workspace + plan.part_index)) {}

  // sum[a][b] over k < depth of Op(left(k, 4 y + a), right(k, 4 x + b)), for thread (x, y) of 16 x 16.
  template <class Op, class Left, class Right>
  __device__ void tile(int64_t depth, Left left, Right right, float (&sum)[4][4]) const {
    float *a = shared_memory<float>(), *b = a + kDepth * kStride;
    const int x = int(threadIdx.x) % 16, y = int(threadIdx.x) / 16;
    for (int q = 0; q < 16; ++q) sum[q / 4][q % 4] = 0.0f;
    for (int64_t k0 = 0; k0 < depth; k0 += kDepth) {
      for (int at = int(threadIdx.x); at < kDepth * kTile; at += kThreads) {
        left.stage(a, k0, depth, at);
        right.stage(b, k0, depth, at);
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDepth; ++k)
#pragma unroll
        for (int q = 0; q < 16; ++q)
          Op::add(sum[q / 4][q % 4], a[k * kStride + 4 * y + q / 4], b[k * kStride + 4 * x + q % 4]);
      __syncthreads();
    }
  }

  // A matrix whose element (k, i) lies at k k_step + i i_step; i < count. Its dense dimension is read by neighbours.
  struct Operand {
    const float* data;
    int64_t k_step, i_step, first, count;

    __device__ void stage(float* to, int64_t k0, int64_t depth, int at) const {
      const int k = k_step == 1 ? at % kDepth : at / kTile, i = k_step == 1 ? at / kDepth : at % kTile;
      const bool inside = k0 + k < depth && first + i < count;
      to[k * kStride + i] = inside ? data[(k0 + k) * k_step + (first + i) * i_step] : 0.0f;
    }
  };

  __device__ void make_routes() const {
    const int64_t size = all * p.m;
    for (int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x; at < p.batch * size;
         at += int64_t(gridDim.x) * kThreads) {
      const int64_t entry = at / size, k = at % size / p.m, j = at % p.m;
      mu[at] = route(p, p.z_g + entry * p.z_g_stride + j * p.d, p.thresholds + entry * p.thresholds_stride, k);
    }
  }

  // F = mu leaves / T
  __device__ void transform() const {
    const float scale = 1.0f / float(p.trees);
    for (int64_t task = blockIdx.x; task < p.batch * point_tiles * column_tiles; task += gridDim.x) {
      const int64_t entry = task / (point_tiles * column_tiles), j0 = task / column_tiles % point_tiles * kTile;
      const int64_t c0 = task % column_tiles * kTile;
      float sum[4][4];
      tile<Product>(all, Operand{mu + entry * all * p.m, p.m, 1, j0, p.m},
                    Operand{p.leaves + entry * all * p.d_out, p.d_out, 1, c0, p.d_out}, sum);
      for (int q = 0; q < 16; ++q) {
        const int64_t j = j0 + threadIdx.x / 16 * 4 + q / 4, c = c0 + threadIdx.x % 16 * 4 + q % 4;
        if (j < p.m && c < p.d_out) f[(entry * p.m + j) * p.d_out + c] = sum[q / 4][q % 4] * scale;
      }
    }
  }

  // The nearest points of 64 rows among a part of the points
  __device__ void measure() const {
    for (int64_t task = blockIdx.x; task < p.batch * row_tiles * parts; task += gridDim.x) {
      const int64_t entry = task / (row_tiles * parts), i0 = task / parts % row_tiles * kTile, part = task % parts;
      Nearest best[4];
      for (int64_t block = point_tiles * part / parts; block < point_tiles * (part + 1) / parts; ++block) {
        const int64_t j0 = block * kTile;
        float sum[4][4];
        tile<Distance>(p.d_out, Operand{p.z_r + entry * p.z_r_stride, 1, p.d_out, i0, p.n},
                       Operand{f + entry * p.m * p.d_out, 1, p.d_out, j0, p.m}, sum);
#pragma unroll
        for (int q = 0; q < 16; ++q) {
          const int64_t j = j0 + threadIdx.x % 16 * 4 + q % 4;
          if (j < p.m) best[q / 4].offer(sum[q / 4][q % 4], j);
        }
      }
#pragma unroll
      for (int a = 0; a < 4; ++a) {  // the 16 threads of a row are neighbours: half a warp
        const int64_t i = i0 + threadIdx.x / 16 * 4 + a;
        best[a].join();
        if (threadIdx.x % 16 == 0 && i < p.n) {
          part_value[(entry * p.n + i) * parts + part] = best[a].cost;
          part_index[(entry * p.n + i) * parts + part] = best[a].index;
        }
      }
    }
  }

  // index, and the row's cost where `cover` matches it
  __device__ void search() const {
    for (int64_t row = int64_t(blockIdx.x) * kThreads + threadIdx.x; row < p.batch * p.n;
         row += int64_t(gridDim.x) * kThreads) {
      Nearest best;
      for (int64_t part = 0; part < parts; ++part)
        best.offer(part_value[row * parts + part], part_index[row * parts + part]);
      p.index[row] = best.index;
      row_cost[row] = best.index < 0 ? __int_as_float(0x7fc00000) : best.cost;
    }
  }

  // G, a warp a point: its pairs in order. Index -1 stands for the last row and makes NaN.
  __device__ void pair() const {
    const int lane = int(threadIdx.x) % 32;
    for (int64_t at = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32; at < p.batch * p.m;
         at += int64_t(gridDim.x) * kWarps) {
      const int64_t entry = at / p.m, j = at % p.m;
      const int64_t* index = p.index + entry * p.n;
      float* to = pull + at * p.d_out;
      for (int64_t c = lane; c < p.d_out; c += 32) to[c] = 0.0f;
      if (p.literal) {
        const float squares = add_pair(entry, index[j] < 0 ? p.n - 1 : index[j], j, index[j] < 0, to);
        if (lane == 0) row_cost[at] = squares;
        continue;
      }
      for (int64_t i0 = 0; i0 < p.n; i0 += 32) {
        const int64_t mine = i0 + lane < p.n ? index[i0 + lane] : -2;
        unsigned matches = __ballot_sync(~0u, mine == j || (mine == -1 && j == p.m - 1));
        for (; matches; matches &= matches - 1) {
          const int64_t i = i0 + __ffs(matches) - 1;
          add_pair(entry, i, j, index[i] < 0, to);
        }
      }
    }
  }

  // to += 2/n (F_j - z_r[i]); returns |F_j - z_r[i]|^2
  __device__ float add_pair(int64_t entry, int64_t i, int64_t j, bool lost, float* to) const {
    const float *point = f + (entry * p.m + j) * p.d_out, *real = p.z_r + entry * p.z_r_stride + i * p.d_out;
    float squares = 0.0f;
    for (int64_t c = int(threadIdx.x) % 32; c < p.d_out; c += 32) {
      const float difference = lost ? __int_as_float(0x7fc00000) : point[c] - real[c];
      to[c] += 2.0f / float(p.n) * difference;
      squares += difference * difference;
    }
    return warp_sum(squares);
  }

  // The mean of the rows' costs, a warp a batch entry
  __device__ void report(int64_t step) const {
    const int lane = int(threadIdx.x) % 32;
    for (int64_t entry = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32; entry < p.batch;
         entry += int64_t(gridDim.x) * kWarps) {
      float sum = 0.0f;
      for (int64_t i = lane; i < p.n; i += 32) sum += row_cost[entry * p.n + i];
      sum = warp_sum(sum);
      if (lane == 0) p.cost[entry * p.iters + step] = sum / float(p.n);
    }
  }

  // grad = mu^T G / T, straight into Adam
  __device__ void update(const AdamStep<float>& adam_step) const {
    const float scale = 1.0f / float(p.trees);
    for (int64_t task = blockIdx.x; task < p.batch * leaf_tiles * column_tiles; task += gridDim.x) {
      const int64_t entry = task / (leaf_tiles * column_tiles), k0 = task / column_tiles % leaf_tiles * kTile;
      const int64_t c0 = task % column_tiles * kTile;
      float sum[4][4];
      tile<Product>(p.m, Operand{mu + entry * all * p.m, 1, p.m, k0, all},
                    Operand{pull + entry * p.m * p.d_out, p.d_out, 1, c0, p.d_out}, sum);
      LeafState state[16] = {};  // all loads before the first store: the compiler cannot tell that they do not overlap
      bool inside[16];
      const int64_t first = (entry * all + k0 + threadIdx.x / 16 * 4) * p.d_out + c0 + threadIdx.x % 16 * 4;
#pragma unroll
      for (int q = 0; q < 16; ++q) {
        const int64_t at = first + q / 4 * p.d_out + q % 4;
        inside[q] = k0 + threadIdx.x / 16 * 4 + q / 4 < all && c0 + threadIdx.x % 16 * 4 + q % 4 < p.d_out;
        if (inside[q]) state[q] = {p.leaves[at], p.exp_avg[at], p.exp_avg_sq[at]};
      }
#pragma unroll
      for (int q = 0; q < 16; ++q) state[q] = adam(sum[q / 4][q % 4] * scale, state[q], adam_step);
#pragma unroll
      for (int q = 0; q < 16; ++q) {
        const int64_t at = first + q / 4 * p.d_out + q % 4;
        if (inside[q])
          p.leaves[at] = state[q].leaf, p.exp_avg[at] = state[q].exp_avg, p.exp_avg_sq[at] = state[q].exp_avg_sq;
      }
    }
  }
};

__global__ void __launch_bounds__(kThreads, 1)
    fit_in_grid(const FitTransport<float> p, const GridPlan plan, unsigned char* workspace) {
  const Fit fit(p, plan, workspace);
  AdamStep<float>* adam_step = reinterpret_cast<AdamStep<float>*>(shared_memory<float>() + 2 * kDepth * kStride);
  AdamPowers powers(p.adam, threadIdx.x == 0 ? *p.step : 0.0f);
  fit.make_routes();
  grid_sync();
  for (int64_t step = 0; step < p.iters; ++step) {
    if (threadIdx.x == 0) *adam_step = powers.next(p.adam);
    fit.transform();
    grid_sync();
    fit.measure();
    grid_sync();
    fit.search();
    grid_sync();
    fit.pair();
    grid_sync();
    fit.report(step);
    fit.update(*adam_step);
    grid_sync();
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *p.step += float(p.iters);
}

}  // namespace

void fit_transport_grid(const FitTransport<float>& p, int64_t blocks, void* workspace, const What& what, void* stream) {
  const size_t shared = (2 * kDepth * kStride + 16) * sizeof(float);
  launch({what, blocks, kThreads, shared, stream, 1, true}, fit_in_grid, p, GridPlan(p, blocks),
         static_cast<unsigned char*>(workspace));
}

}  // namespace otk
