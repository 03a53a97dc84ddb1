// cuda_kernels.h - the two CUDA kernels of fit_transport, for cuda_launch.cpp to choose from.
#pragma once
#include <string>

#include "common/cuda.h"
#include "fit_transport/plan.h"

namespace otk {

// The cluster's size for this problem on this device; 0 where it has none.
int fit_transport_cluster_blocks(const FitTransport<float>& p, const Device& device);

void fit_transport_cluster(const FitTransport<float>& p, int blocks, const std::string& what, void* stream);
void fit_transport_grid(const FitTransport<float>& p, int64_t blocks, void* workspace, const std::string& what,
                        void* stream);

}  // namespace otk
