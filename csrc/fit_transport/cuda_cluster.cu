// cuda_cluster.cu - fit_transport in one cluster of blocks per batch entry, everything in shared memory (plan.h).
//
// Work      a block owns a slice of columns of the leaves, their moments, F, G and z_r, and all of mu. A step needs the
//           other blocks twice: their shares of the distances, and the rows' nearest points, of which each block finds
//           some. Products keep 4 x 4 (F, distances) or 4 x 2 (gradient) sums of a thread in registers.
// Numerics  a distance is summed over the columns of a block, then over the blocks. Powers of beta are double.
// Order     every sum's order is fixed by the sizes. Data is handed over at __syncthreads and cluster_sync only.
// Not yet run on a GPU.
#include "common/cuda.h"
#include "fit_transport/cuda_adam.h"
#include "fit_transport/cuda_kernels.h"
#include "fit_transport/plan.h"

namespace otk {
namespace {

constexpr int kThreads = ClusterPlan::kThreads, kGroups = ClusterPlan::kGroups, kWarps = kThreads / 32;

__device__ float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ void store4(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }

__device__ void multiply_add(float (&sum)[4], float a, float4 b) {
  sum[0] += a * b.x, sum[1] += a * b.y, sum[2] += a * b.z, sum[3] += a * b.w;
}

__device__ void add_square(float (&sum)[4], float a, float4 b) {
  const float x = a - b.x, y = a - b.y, z = a - b.z, w = a - b.w;
  sum[0] += x * x, sum[1] += y * y, sum[2] += z * z, sum[3] += w * w;
}

struct Fit {
  const FitTransport<float>& p;
  const ClusterPlan plan;
  const int64_t entry;
  const uint32_t rank, blocks;
  const int t, n, m, all, width, first, real_stride, point_stride;
  float *shared, *mu, *leaves, *exp_avg, *exp_avg_sq, *f, *pull, *z_r, *scores, *small;
  int* index;

  __device__ Fit(const FitTransport<float>& problem, int cluster)
      : p(problem),
        plan(problem, cluster),
        entry(blockIdx.x / unsigned(cluster)),
        rank(cluster_rank()),
        blocks(unsigned(cluster)),
        t(int(threadIdx.x)),
        n(int(problem.n)),
        m(int(problem.m)),
        all(int(problem.trees << problem.depth)),
        width(int(plan.width)),
        first(int(rank) * int(plan.width)),
        real_stride(int(plan.real_stride)),
        point_stride(int(plan.point_stride)),
        shared(shared_memory<float>()),
        mu(shared + plan.mu),
        leaves(shared + plan.leaves),
        exp_avg(shared + plan.exp_avg),
        exp_avg_sq(shared + plan.exp_avg_sq),
        f(shared + plan.f),
        pull(shared + plan.pull),
        z_r(shared + plan.z_r),
        scores(shared + plan.scores),
        small(shared + plan.small),
        index(reinterpret_cast<int*>(shared + plan.index)) {}

  __device__ bool has_column(int c) const { return first + c < p.d_out; }

  __device__ int64_t leaf_at(int k, int c) const { return (entry * all + k) * p.d_out + first + c; }

  // Everything that is read from device memory; padding is zero.
  __device__ void load() {
    const int padded = int(whole(all, 4));
    for (int at = t; at < padded * width; at += kThreads) {
      const int k = at / width, c = at % width;
      const bool inside = k < all && has_column(c);
      leaves[at] = inside ? p.leaves[leaf_at(k, c)] : 0.0f;
      exp_avg[at] = inside ? p.exp_avg[leaf_at(k, c)] : 0.0f;
      exp_avg_sq[at] = inside ? p.exp_avg_sq[leaf_at(k, c)] : 0.0f;
    }
    for (int at = t; at < real_stride * width; at += kThreads) {
      const int i = at / width, c = at % width;
      const bool inside = i < n && has_column(c);
      z_r[c * real_stride + i] = inside ? p.z_r[entry * p.z_r_stride + i * p.d_out + first + c] : 0.0f;
    }
    for (int at = t; at < (padded - all) * point_stride; at += kThreads) mu[all * point_stride + at] = 0.0f;
  }

  // mu: each block makes the leaves of its turn and gives them to all.
  __device__ void make_routes() {
    const float *z = p.z_g + entry * p.z_g_stride, *thresholds = p.thresholds + entry * p.thresholds_stride;
    const int mine = (all - int(rank) + int(blocks) - 1) / int(blocks);
    for (int at = t; at < mine * point_stride; at += kThreads) {
      const int k = int(rank) + at / point_stride * int(blocks), j = at % point_stride;
      const float weight = j < m ? route(p, z + j * p.d, thresholds, k) : 0.0f;
      for (uint32_t peer = 0; peer < blocks; ++peer) cluster_peer(mu, peer)[k * point_stride + j] = weight;
    }
  }

  // F = mu leaves / T: groups of threads sum a quarter of the leaves each, into `scores`.
  __device__ void transform() {
    const int tiles_j = (m + 3) / 4, tiles = tiles_j * width / 4, group = t / (kThreads / kGroups);
    const int from = all * group / kGroups, to = all * (group + 1) / kGroups;
    for (int tile = t % (kThreads / kGroups); tile < tiles; tile += kThreads / kGroups) {
      const int j = tile % tiles_j * 4, c = tile / tiles_j * 4;
      float sum[4][4] = {};
#pragma unroll 4
      for (int k = from; k < to; ++k) {
        const float4 point = load4(mu + k * point_stride + j), leaf = load4(leaves + k * width + c);
        multiply_add(sum[0], leaf.x, point);
        multiply_add(sum[1], leaf.y, point);
        multiply_add(sum[2], leaf.z, point);
        multiply_add(sum[3], leaf.w, point);
      }
#pragma unroll
      for (int q = 0; q < 4; ++q)
        store4(scores + (group * width + c + q) * point_stride + j,
               make_float4(sum[q][0], sum[q][1], sum[q][2], sum[q][3]));
    }
    __syncthreads();
    const float scale = 1.0f / float(p.trees);
    const int padded = 4 * tiles_j, step = width * point_stride;
    for (int at = t; at < width * padded; at += kThreads) {
      const int where = at / padded * point_stride + at % padded;
      const float* share = scores + where;
      f[where] = (share[0] + share[step] + share[2 * step] + share[3 * step]) * scale;
    }
    __syncthreads();
  }

  // scores [n, points]: squared distances over this block's columns
  __device__ void measure() {
    const int tiles_j = (m + 3) / 4, tiles = (n + 3) / 4 * tiles_j;
    for (int tile = t; tile < tiles; tile += kThreads) {
      const int i = tile / tiles_j * 4, j = tile % tiles_j * 4;
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
        if (i + q < n) store4(scores + (i + q) * point_stride + j, make_float4(sum[q][0], sum[q][1], sum[q][2], sum[q][3]));
    }
  }

  // A warp finds the nearest point of a row from all blocks' scores and tells all blocks.
  __device__ void search() {
    const int lane = t % 32;
    for (int i = int(rank) + t / 32 * int(blocks); i < n; i += kWarps * int(blocks)) {
      Nearest best{0.0f, -1, false};
      for (int j = lane; j < m; j += 32) {
        float distance = 0.0f;
        for (uint32_t peer = 0; peer < blocks; ++peer) distance += cluster_peer(scores, peer)[i * point_stride + j];
        best.offer(distance, j);
      }
      best.join();
      if (lane < int(blocks)) cluster_peer(index, unsigned(lane))[i] = int(best.index);
    }
  }

  // G in `pull`, and this block's share of the cost, which goes to block 0. Index -1 stands for the last row and makes NaN.
  __device__ void pair(int step) {
    const float weight = 2.0f / float(n), nan = __int_as_float(0x7fc00000);
    const int padded = (m + 3) / 4 * 4;
    float squares = 0.0f;
    for (int at = t; at < padded * width / 4; at += kThreads) {
      const int j = at % padded, c0 = at / padded * 4;
      float sum[4] = {};
      const int from = p.literal ? j : 0, to = j >= m ? from : p.literal ? j + 1 : n;
      for (int i = from; i < to; ++i) {
        const int other = index[i];
        if (!p.literal && other != j && (other >= 0 || j != m - 1)) continue;
        const int real = !p.literal ? i : other < 0 ? n - 1 : other;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const float difference = other < 0 ? nan : f[(c0 + q) * point_stride + j] - z_r[(c0 + q) * real_stride + real];
          sum[q] += weight * difference;
          squares += difference * difference;
        }
      }
#pragma unroll
      for (int q = 0; q < 4; ++q) pull[(c0 + q) * point_stride + j] = sum[q];
    }
    squares = warp_sum(squares);
    if (t % 32 == 0) small[16 + t / 32] = squares;
    __syncthreads();
    if (t == 0) {
      float total = 0.0f;
      for (int w = 0; w < kWarps; ++w) total += small[16 + w];
      cluster_peer(small, 0)[24 + 8 * (step & 1) + rank] = total;
    }
  }

  // After a cluster_sync behind pair(step): block 0 writes the cost. pair() of the next step writes other places.
  __device__ void report(int64_t step) {
    if (rank != 0 || t != 0) return;
    float total = 0.0f;
    for (uint32_t peer = 0; peer < blocks; ++peer) total += small[24 + 8 * (step & 1) + peer];
    p.cost[entry * p.iters + step] = total / float(n);
  }

  // grad = mu^T G / T, straight into Adam. A thread's four leaves lie a quarter of all apart: neighbours in different banks.
  __device__ void update(const AdamStep<float>& adam_step) {
    const int quarter = int(whole(all, 4)) / 4, padded = (m + 3) / 4 * 4;
    const float scale = 1.0f / float(p.trees);
    for (int tile = t; tile < quarter * width / 2; tile += kThreads) {
      const int k = tile % quarter, c = tile / quarter * 2;
      float sum[4][2] = {};
      for (int j = 0; j < padded; j += 4) {
        const float4 a = load4(pull + c * point_stride + j), b = load4(pull + (c + 1) * point_stride + j);
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const float4 weight = load4(mu + (k + q * quarter) * point_stride + j);
          sum[q][0] += weight.x * a.x + weight.y * a.y + weight.z * a.z + weight.w * a.w;
          sum[q][1] += weight.x * b.x + weight.y * b.y + weight.z * b.z + weight.w * b.w;
        }
      }
#pragma unroll
      for (int q = 0; q < 4; ++q)
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          if (k + q * quarter >= all || !has_column(c + part)) continue;  // 0 / 0 where eps is 0
          const int at = (k + q * quarter) * width + c + part;
          adam(sum[q][part] * scale, leaves[at], exp_avg[at], exp_avg_sq[at], adam_step);
        }
    }
  }

  __device__ void save() {
    for (int at = t; at < all * width; at += kThreads) {
      const int k = at / width, c = at % width;
      if (!has_column(c)) continue;
      p.leaves[leaf_at(k, c)] = leaves[at];
      p.exp_avg[leaf_at(k, c)] = exp_avg[at];
      p.exp_avg_sq[leaf_at(k, c)] = exp_avg_sq[at];
    }
    if (rank == 0)
      for (int i = t; i < n; i += kThreads) p.index[entry * n + i] = index[i];
  }
};

__global__ void __launch_bounds__(kThreads, 1) fit_in_cluster(const FitTransport<float> p, int cluster) {
  Fit fit(p, cluster);
  AdamPowers powers(p.adam, threadIdx.x == 0 ? *p.step : 0.0f);
  AdamStep<float>* adam_step = reinterpret_cast<AdamStep<float>*>(fit.small);
  cluster_sync();  // every block of the cluster runs: its shared memory may be written
  fit.load();
  fit.make_routes();
  cluster_sync();
  for (int64_t step = 0; step < p.iters; ++step) {
    if (threadIdx.x == 0) *adam_step = powers.next(p.adam);
    fit.transform();
    fit.measure();
    cluster_sync();
    if (step > 0) fit.report(step - 1);
    fit.search();
    cluster_sync();
    fit.pair(int(step & 1));
    fit.update(*adam_step);
    __syncthreads();
  }
  cluster_sync();  // the costs have arrived, and nobody reads this block's memory any more
  fit.report(p.iters - 1);
  fit.save();
  if (p.batch == 1 && blockIdx.x == 0 && threadIdx.x == 0) *p.step += float(p.iters);
}

__global__ void count_steps(float* step, float iters) {
  if (threadIdx.x == 0) *step += iters;
}

}  // namespace

int fit_transport_cluster_blocks(const FitTransport<float>& p, const Device& device) {
  const int capability = std::min(device.capability, compiled_for(fit_in_cluster));  // PTX for sm_80 has no clusters
  return cluster_blocks(p, capability, device.shared_bytes);
}

void fit_transport_cluster(const FitTransport<float>& p, int blocks, const std::string& what, void* stream) {
  const ClusterPlan plan(p, blocks);
  launch({what, p.batch * blocks, kThreads, size_t(plan.bytes()), stream, blocks}, fit_in_cluster, p, blocks);
  if (p.batch > 1)  // clusters read the counter when they start, some after others have ended
    launch({what, 1, 32, 0, stream}, count_steps, p.step, float(p.iters));
}

}  // namespace otk
