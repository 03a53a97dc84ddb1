// cuda.h - what every CUDA kernel here is written with: one launch function, warp, cluster and grid primitives.
//
// Kernels use one grid dimension, one block dimension and dynamic shared memory alone. Compiled by nvcc this is CUDA; with
// OTK_CUDA_ON_HOST the same kernels run on the host, a fiber per thread (tests/cpp/cuda_on_host), to test their logic.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace otk {

// What an error message is about: an op or a step of it, and its shapes, written when there is an error. The problem
// outlives the launch.
struct What {
  const char* step;
  const void* problem = nullptr;
  std::string (*write)(const char* step, const void* problem) = nullptr;

  What(const char* step) : step(step) {}
  What(const char* step, const void* problem, std::string (*write)(const char*, const void*))
      : step(step), problem(problem), write(write) {}

  std::string text() const { return write ? write(step, problem) : step; }
};

struct Launch {
  What what;
  int64_t blocks;
  int threads;
  size_t shared_bytes;
  void* stream;
  int cluster = 1;           // blocks that share their memories, divides `blocks`; beyond 8 resident_clusters() first
  bool cooperative = false;  // all blocks run at once, so that grid_sync() works
};

struct Device {
  int capability;       // 10 * major + minor
  int multiprocessors;
  int shared_bytes = 227 << 10;  // that a block may ask for
};

}  // namespace otk

#ifdef OTK_CUDA_ON_HOST
#include "cuda_on_host/device.h"
#else
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

namespace otk {

inline void check_cuda(cudaError_t error, const What& what) {
  if (error != cudaSuccess) throw std::runtime_error(what.text() + ": " + cudaGetErrorString(error));
}

inline int current_ordinal() {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

inline int attribute_of(int device, cudaDeviceAttr attribute) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

// Asked once for every device.
inline Device current_device() {
  static const std::vector<Device> devices = [] {
    int count = 0;
    check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    std::vector<Device> all;
    for (int device = 0; device < count; ++device)
      all.push_back({10 * attribute_of(device, cudaDevAttrComputeCapabilityMajor) +
                         attribute_of(device, cudaDevAttrComputeCapabilityMinor),
                     attribute_of(device, cudaDevAttrMultiProcessorCount),
                     attribute_of(device, cudaDevAttrMaxSharedMemoryPerBlockOptin)});
    return all;
  }();
  return devices.at(size_t(current_ordinal()));
}

// Lets the kernel's blocks ask for all the shared memory that the current device has for one; once for each.
inline void allow_shared_memory(const void* kernel, const What& what) {
  static std::mutex guard;
  static std::set<std::pair<const void*, int> > allowed;
  const int device = current_ordinal();
  const std::lock_guard<std::mutex> lock(guard);
  if (allowed.count({kernel, device})) return;
  const int most = current_device().shared_bytes;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), what);
  allowed.insert({kernel, device});
}

// The capability whose instructions the kernel was compiled with: less than the device's where the driver compiled it from
// older PTX.
template <class... Parameters>
int compiled_for(void (*kernel)(Parameters...)) {
  cudaFuncAttributes attributes;
  check_cuda(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel)), "attributes of a kernel");
  return attributes.ptxVersion;
}

// Launches on the current device; throws what CUDA reports, with the op and its shape. Neither allocates nor synchronises.
template <class... Parameters, class... Arguments>
void launch(const Launch& l, void (*kernel)(Parameters...), Arguments... arguments) {
  if (l.blocks > INT32_MAX) throw std::runtime_error(l.what.text() + ": more than 2^31 - 1 blocks");
  if (l.shared_bytes > 48 << 10) allow_shared_memory(reinterpret_cast<const void*>(kernel), l.what);
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(l.blocks));
  config.blockDim = dim3(unsigned(l.threads));
  config.dynamicSmemBytes = l.shared_bytes;
  config.stream = static_cast<cudaStream_t>(l.stream);
  config.attrs = attributes;
  if (l.cluster > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = unsigned(l.cluster);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  }
  if (l.cooperative) {
    cudaLaunchAttribute& cooperative = attributes[config.numAttrs++];
    cooperative.id = cudaLaunchAttributeCooperative;
    cooperative.val.cooperative = 1;
  }
  check_cuda(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), l.what);
}

// What the driver answers about a kernel's launch on the current device, asked once; 0 where it refuses.
template <class Ask>
int ask_once(const void* kernel, int threads, size_t shared_bytes, int cluster, Ask ask) {
  static std::mutex guard;
  static std::map<std::tuple<const void*, int, int, size_t, int>, int> answers;
  int answer = 0;
  allow_shared_memory(kernel, "shared memory of a block");
  const std::lock_guard<std::mutex> lock(guard);
  const auto [place, is_new] = answers.try_emplace({kernel, current_ordinal(), threads, shared_bytes, cluster}, 0);
  if (!is_new) return place->second;
  if (ask(&answer) != cudaSuccess) cudaGetLastError(), answer = 0;  // a refusal is an answer, not the next call's error
  return place->second = answer;
}

// Clusters of this launch that run at once on the current device; allows those of more than 8 blocks.
template <class... Parameters>
int resident_clusters(void (*kernel)(Parameters...), int threads, size_t shared_bytes, int cluster) {
  const void* address = reinterpret_cast<const void*>(kernel);
  return ask_once(address, threads, shared_bytes, cluster, [&](int* answer) {
    if (cluster > 8) {  // more than every device must have
      const cudaError_t error = cudaFuncSetAttribute(address, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
      if (error != cudaSuccess) return error;
    }
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = unsigned(cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(unsigned(cluster));
    config.blockDim = dim3(unsigned(threads));
    config.dynamicSmemBytes = shared_bytes;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return cudaOccupancyMaxActiveClusters(answer, address, &config);
  });
}

// Blocks of this launch that run at once on a multiprocessor of the current device.
template <class... Parameters>
int resident_blocks(void (*kernel)(Parameters...), int threads, size_t shared_bytes) {
  const void* address = reinterpret_cast<const void*>(kernel);
  return ask_once(address, threads, shared_bytes, 1, [&](int* answer) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(answer, address, threads, shared_bytes);
  });
}

template <class T>
__device__ T* shared_memory() {
  extern __shared__ __align__(1024) unsigned char otk_shared[];
  return reinterpret_cast<T*>(otk_shared);
}

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Four floats at once into this block's shared memory. The compiler splits some plain stores of a float4 into four, which
// conflict in banks (read in PTX).
__device__ inline void store_shared4(float* p, float x, float y, float z, float w) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(p)), "f"(x), "f"(y), "f"(z), "f"(w)
               : "memory");
}

__device__ inline void grid_sync() { cooperative_groups::this_grid().sync(); }

// The cluster's primitives need sm_90; before it a cluster is one block.
__device__ inline uint32_t cluster_rank() {
  uint32_t rank = 0;
#if __CUDA_ARCH__ >= 900
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return rank;
}

// Every thread of the cluster; writes before it, to any block's shared memory, are seen after it.
__device__ inline void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
  __syncthreads();
#endif
}

// The address in block `rank` of the cluster of what is at p in this one.
template <class T>
__device__ T* cluster_peer(T* p, uint32_t rank) {
#if __CUDA_ARCH__ >= 900
  uint64_t peer;
  asm("mapa.u64 %0, %1, %2;" : "=l"(peer) : "l"(reinterpret_cast<uint64_t>(p)), "r"(rank));
  return reinterpret_cast<T*>(peer);
#else
  return p;
#endif
}

}  // namespace otk
#endif
