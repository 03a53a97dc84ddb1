// cuda_status.cu - asks the driver, and looks for an image of one kernel: all are built for the same architectures.
#include "common/cuda_status.h"

#include <cuda_runtime.h>

namespace otk {
namespace {

__global__ void probe() {}

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

// Makes another device the current one for a while.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    cudaGetDevice(&before_);
    changes_ = before_ != device;
    error = changes_ ? cudaSetDevice(device) : cudaSuccess;
  }
  ~OnDevice() {
    if (changes_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;

  cudaError_t error;

 private:
  int before_ = 0;
  bool changes_ = false;
};

}  // namespace

int cuda_built_version() { return CUDART_VERSION; }

std::string cuda_fault(int device) {
  int driver = 0, count = 0, major = 0, minor = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) return "no NVIDIA driver was found";
  const cudaError_t listed = cudaGetDeviceCount(&count);
  if (listed == cudaErrorInsufficientDriver)
    return "the CUDA kernels were built with CUDA " + version(CUDART_VERSION) +
           ", and the driver is too old for that: it has CUDA " + version(driver);
  if (listed != cudaSuccess) return std::string("the CUDA driver reports: ") + cudaGetErrorString(listed);
  const OnDevice here(device);
  cudaFuncAttributes attributes;
  const cudaError_t found = here.error != cudaSuccess ? here.error : cudaFuncGetAttributes(&attributes, probe);
  if (found == cudaSuccess) return "";
  cudaGetLastError();  // it is said here, and shall not turn up in a later launch
  if (found != cudaErrorNoKernelImageForDevice && found != cudaErrorInvalidDeviceFunction)
    return std::string("the CUDA driver reports: ") + cudaGetErrorString(found);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  const std::string capability = std::to_string(major) + std::to_string(minor);
  if (major < 8) return "the CUDA kernels need sm_80 or later, and this device is sm_" + capability;
  return "the CUDA kernels were not built for sm_" + capability +
         ": build them again with OTKERNELS_CMAKE_ARGS=-DCMAKE_CUDA_ARCHITECTURES=" + capability;
}

}  // namespace otk
