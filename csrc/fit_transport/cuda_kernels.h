// cuda_kernels.h - the three CUDA kernels of fit_transport, and how cuda_launch.cu chooses among them.
#pragma once
#include <string>

#include "common/cuda.h"
#include "fit_transport/plan.h"

namespace otk {

struct FitChoice {
  enum Kernel { kCluster, kCooperative, kGrid } kernel;
  int64_t blocks;  // of a batch entry; of all for kGrid
};
FitChoice fit_transport_choice(const FitTransport<float>& p, const Device& device);

// Whether `plan` (made for a cluster, or not) can be launched for the whole batch on this device.
bool fit_transport_cluster_fits(const FitTransport<float>& p, const SlicePlan& plan, const Device& device);
bool fit_transport_cooperative_fits(const FitTransport<float>& p, const SlicePlan& plan, const Device& device);

void fit_transport_cluster(const FitTransport<float>& p, const SlicePlan& plan, const What& what, void* stream);
void fit_transport_cooperative(const FitTransport<float>& p, const SlicePlan& plan, void* workspace, const What& what,
                               void* stream);
void fit_transport_grid(const FitTransport<float>& p, int64_t blocks, void* workspace, const What& what, void* stream);

}  // namespace otk
