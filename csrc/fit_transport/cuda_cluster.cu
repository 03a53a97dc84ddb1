// cuda_cluster.cu - fit_transport in one cluster of blocks per batch entry, which write into each other's shared memory.
//
// Order     cuda_slices.h. Data is handed over at __syncthreads and cluster_sync only. The latter is more than a barrier:
//           its release is a MEMBAR.ALL.GPU and its acquire a CCTL.IVALL (SASS for sm_90a).
// Not yet run on a GPU.
#include "fit_transport/cuda_kernels.h"
#include "fit_transport/cuda_slices.h"

namespace otk {
namespace {

class ClusterExchange {
 public:
  __device__ explicit ClusterExchange(const SlicePlan& plan)
      : blocks_(uint32_t(plan.blocks)),
        mu_(shared_memory<float>() + plan.mu),
        inbox_(shared_memory<float>() + plan.inbox),
        costs_(shared_memory<float>() + plan.small + 32),
        index_(shared_memory<int>() + plan.index) {}

  __device__ uint32_t rank() const { return cluster_rank(); }
  __device__ void begin() const { cluster_sync(); }  // every block runs: its shared memory may be written
  __device__ void sync() const { cluster_sync(); }
  __device__ void give_route(int at, float weight) const {
    for (uint32_t peer = 0; peer < blocks_; ++peer) cluster_peer(mu_, peer)[at] = weight;
  }
  __device__ void take_routes(float*, int, int) const {}
  __device__ float* inbox(int owner) const { return cluster_peer(inbox_, uint32_t(owner)); }
  __device__ float* inbox() const { return inbox_; }
  __device__ void give_index(int i, int j, int lane) const {
    if (lane < int(blocks_)) cluster_peer(index_, uint32_t(lane))[i] = j;
  }
  __device__ int index(int i) const { return index_[i]; }
  __device__ float* cost_shares() const { return cluster_peer(costs_, 0); }

 private:
  const uint32_t blocks_;
  float *const mu_, *const inbox_, *const costs_;
  int* const index_;
};

__global__ void __launch_bounds__(SlicePlan::kMostThreads, 1)
    fit_in_cluster(const FitTransport<float> p, const SlicePlan plan) {
  ClusterExchange exchange(plan);
  SliceFit<ClusterExchange>(p, plan, blockIdx.x / unsigned(plan.blocks), exchange).run();
  if (p.batch == 1 && blockIdx.x == 0 && threadIdx.x == 0) *p.step += float(p.iters);
}

__global__ void count_steps(float* step, float iters) {
  if (threadIdx.x == 0) *step += iters;
}

}  // namespace

bool fit_transport_cluster_fits(const FitTransport<float>&, const SlicePlan& plan, const Device& device) {
  if (plan.bytes() > device.shared_bytes) return false;
  if (plan.blocks == 1) return true;
  const int capability = std::min(device.capability, compiled_for(fit_in_cluster));  // PTX for sm_80 has no clusters
  return capability >= 90 && plan.blocks <= 8 &&
         resident_clusters(fit_in_cluster, int(plan.threads), size_t(plan.bytes()), int(plan.blocks)) > 0;
}

void fit_transport_cluster(const FitTransport<float>& p, const SlicePlan& plan, const What& what, void* stream) {
  launch({what, p.batch * plan.blocks, int(plan.threads), size_t(plan.bytes()), stream, int(plan.blocks)}, fit_in_cluster,
         p, plan);
  if (p.batch > 1)  // clusters read the counter when they start, some after others have ended
    launch({what, 1, 32, 0, stream}, count_steps, p.step, float(p.iters));
}

}  // namespace otk
