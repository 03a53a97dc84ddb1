// cuda_check.h - a failed launch names its op and shape.
#pragma once
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace otk {

inline void check_launch(const std::string& what) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(what + ": " + cudaGetErrorString(error));
}

}  // namespace otk
