// cuda_cooperative.cu - fit_transport in a few blocks per batch entry that meet in device memory: for devices without
// clusters, or where no cluster finds room. One cooperative launch for the whole batch.
//
// Layout    workspace (SlicePlan's shared_ places), per batch entry: mu [K, points], distances [owner, from, row, point],
//           index [n], cost's shares [blocks].
// Order     cuda_slices.h. Data is handed over at __syncthreads and grid_sync only.
// Not yet run on a GPU.
#include "fit_transport/cuda_kernels.h"
#include "fit_transport/cuda_slices.h"

namespace otk {
namespace {

class WorkspaceExchange {
 public:
  __device__ WorkspaceExchange(const SlicePlan& plan, float* workspace)
      : blocks_(unsigned(plan.blocks)),
        routes_(int(plan.shared_inbox)),
        inbox_size_(plan.blocks * plan.rows * plan.point_stride),
        mu_(workspace + plan.shared_mu),
        inbox_(workspace + plan.shared_inbox),
        costs_(workspace + plan.shared_cost),
        index_(reinterpret_cast<int*>(workspace + plan.shared_index)) {}

  __device__ unsigned rank() const { return blockIdx.x % blocks_; }
  __device__ void begin() const {}
  __device__ void sync() const { grid_sync(); }
  __device__ void give_route(int at, float weight) const { mu_[at] = weight; }
  __device__ void take_routes(float* mu, int t, int threads) const {
    for (int at = 4 * t; at < routes_; at += 4 * threads) store4(mu + at, load4(mu_ + at));
    __syncthreads();
  }
  __device__ float* inbox(int owner) const { return inbox_ + owner * inbox_size_; }
  __device__ float* inbox() const { return inbox(int(rank())); }
  __device__ void give_index(int i, int j, int lane) const {
    if (lane == 0) index_[i] = j;
  }
  __device__ int index(int i) const { return index_[i]; }
  __device__ float* cost_shares() const { return costs_; }

 private:
  const unsigned blocks_;
  const int routes_;
  const int64_t inbox_size_;
  float *const mu_, *const inbox_, *const costs_;
  int* const index_;
};

__global__ void __launch_bounds__(SlicePlan::kMostThreads, 1)
    fit_in_blocks(const FitTransport<float> p, const SlicePlan plan, float* workspace) {
  const int64_t entry = blockIdx.x / unsigned(plan.blocks);
  WorkspaceExchange exchange(plan, workspace + entry * plan.shared_floats);
  SliceFit<WorkspaceExchange>(p, plan, entry, exchange).run();
  if (blockIdx.x == 0 && threadIdx.x == 0) *p.step += float(p.iters);
}

}  // namespace

bool fit_transport_cooperative_fits(const FitTransport<float>& p, const SlicePlan& plan, const Device& device) {
  return plan.bytes() <= device.shared_bytes &&
         p.batch * plan.blocks <=
             int64_t(device.multiprocessors) * resident_blocks(fit_in_blocks, int(plan.threads), size_t(plan.bytes()));
}

void fit_transport_cooperative(const FitTransport<float>& p, const SlicePlan& plan, void* workspace, const What& what,
                               void* stream) {
  launch({what, p.batch * plan.blocks, int(plan.threads), size_t(plan.bytes()), stream, 1, true}, fit_in_blocks, p, plan,
         static_cast<float*>(workspace));
}

}  // namespace otk
