// cuda_kernels.h - the two CUDA kernels of fit_transport, for cuda_launch.cpp to choose from.
#pragma once
#include <string>

#include "fit_transport/plan.h"

namespace otk {

void fit_transport_cluster(const FitTransport<float>& p, int blocks, const std::string& what, void* stream);
void fit_transport_grid(const FitTransport<float>& p, int64_t blocks, void* workspace, const std::string& what, void* stream);

}  // namespace otk
