// cuda_status.h - whether the CUDA kernels of this build can run where they are.
#pragma once
#include <string>

namespace otk {

// The CUDA version that the kernels were built with, as 1000 * major + 10 * minor.
int cuda_built_version();

// Why the kernels cannot run on this device, in one line; empty when they can.
std::string cuda_fault(int device);

}  // namespace otk
