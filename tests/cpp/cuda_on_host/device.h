// device.h - the part of CUDA that csrc's kernels use, on the host: each thread is a fiber, each barrier a place to yield.
//
// Meant to expose mistakes rather than to be fast: shared memory starts as NaN, cp.async lands only when it is waited for,
// threads run in either order (host_cuda::backward), a wait that cannot end is an error. Data races show as results that
// differ between the orders; of asynchronous work, async.h keeps account. A launch in which a mistake is found throws
// what it is. One host thread; full-warp collectives only. csrc/README.md says what is not seen.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "cuda_on_host/async.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct uint3_on_host {
  unsigned x = 0, y = 0, z = 0;
};
inline uint3_on_host threadIdx, blockIdx, blockDim{1, 1, 1}, gridDim{1, 1, 1};

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace host_cuda {

inline bool backward = false;  // run a block's threads from the last to the first

struct Barrier {
  int expected = 0, arrived = 0;
  uint64_t generation = 0;
  Knowledge arriving, released;
};

struct Warp {
  Barrier barrier;
  int event = 0;      // its finished groups of products
  int registers = 0;  // of each thread
  alignas(16) unsigned char slot[32][64];
};

struct Free {
  void operator()(void* p) const { std::free(p); }
};

struct Block {
  unsigned index = 0, rank = 0;  // in the grid, in its cluster
  Barrier barrier;
  Barrier* group = nullptr;  // of all blocks that run together: the cluster, or a cooperative grid
  std::vector<Block>* peers = nullptr;
  std::vector<Warp> warps;
  std::unique_ptr<unsigned char, Free> memory;
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  AsyncState async;
};

struct Copy {
  void* to;
  const void* from;
  size_t bytes, zeros;
};

struct Thread {
  Block* block = nullptr;
  unsigned index = 0;
  std::vector<std::vector<Copy>> groups{1};  // cp.async: committed groups, then the open one
  Products products;
  Knowledge knows;
  std::vector<int> initialised;                      // barriers that are not yet published
  const BytesBarrierState* waits_for = nullptr;  // for the report of a deadlock
};

inline Thread* current = nullptr;

void yield();                 // let the other fibers run
void progressed();            // something happened that a waiting fiber may wait for
void wait(Barrier& barrier);         // arrive, and yield until all have
void synchronise(Barrier& barrier);  // and learn what they know
void run(const otk::Launch& launch, const std::function<void()>& thread);

inline Warp& warp() { return current->block->warps[current->index / 32]; }
inline unsigned lane() { return current->index % 32; }

// What lane `from` passed as `mine`, for all lanes at once.
template <class T>
T exchange(const T& mine, unsigned from) {
  static_assert(sizeof(T) <= 64);
  Warp& w = warp();
  std::memcpy(w.slot[lane()], &mine, sizeof(T));
  wait(w.barrier);
  T theirs;
  std::memcpy(&theirs, w.slot[from % 32], sizeof(T));
  wait(w.barrier);
  return theirs;
}

// What every lane of the warp passed.
template <class T>
void gather(const T& mine, T (&all)[32]) {
  static_assert(sizeof(T) <= 64);
  Warp& w = warp();
  std::memcpy(w.slot[lane()], &mine, sizeof(T));
  wait(w.barrier);
  for (int from = 0; from < 32; ++from) std::memcpy(&all[from], w.slot[from], sizeof(T));
  wait(w.barrier);
}

}  // namespace host_cuda

inline void __syncthreads() { host_cuda::synchronise(host_cuda::current->block->barrier); }
inline void __threadfence() {}
inline void __syncwarp(unsigned = ~0u) { host_cuda::synchronise(host_cuda::warp().barrier); }

template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return host_cuda::exchange(value, unsigned(from));
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return host_cuda::exchange(value, host_cuda::lane() ^ unsigned(mask));
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned step) {
  const unsigned from = host_cuda::lane() + step;
  return host_cuda::exchange(value, from < 32 ? from : host_cuda::lane());
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  int all[32];
  host_cuda::gather(predicate, all);
  unsigned mask = 0;
  for (unsigned from = 0; from < 32; ++from) mask |= unsigned(all[from] != 0) << from;
  return mask;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == ~0u; }
inline int __reduce_min_sync(unsigned, int value) {
  int all[32];
  host_cuda::gather(value, all);
  return *std::min_element(all, all + 32);
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(unsigned v) { return __builtin_ffs(int(v)); }

template <class T>
T atomicAdd(T* p, T value) {
  const T before = *p;
  *p = before + value;
  return before;
}
template <class T>
T atomicMin(T* p, T value) {
  const T before = *p;
  if (value < before) *p = value;
  return before;
}

template <class T>
T atomicOr(T* p, T value) {
  const T before = *p;
  *p = before | value;
  return before;
}

inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fdiv_rn(float a, float b) { return a / b; }
template <class T>
T __ldg(const T* p) {
  return *p;
}

namespace otk {

inline Device device_on_host{90, 4};  // tests set it
inline Device current_device() { return device_on_host; }

// What the device finds room for: tests set it too, and a launch that asks for more is refused.
inline int largest_cluster_on_host = 16, resident_blocks_on_host = 1;

template <class... Parameters>
int resident_clusters(void (*)(Parameters...), int, size_t, int cluster) {
  return cluster <= largest_cluster_on_host;
}

template <class... Parameters>
int resident_blocks(void (*)(Parameters...), int, size_t) {
  return resident_blocks_on_host;
}

template <class... Parameters>
int compiled_for(void (*)(Parameters...)) {
  return device_on_host.capability;
}

template <class... Parameters, class... Arguments>
void launch(const Launch& l, void (*kernel)(Parameters...), Arguments... arguments) {
  host_cuda::run(l, [=] { kernel(Parameters(arguments)...); });
}

template <class T>
T* shared_memory() {
  return reinterpret_cast<T*>(host_cuda::current->block->shared);
}

inline uint32_t shared_address(const void* p) {
  return uint32_t(static_cast<const unsigned char*>(p) - host_cuda::current->block->shared);
}

inline void store_shared4(float* p, float x, float y, float z, float w) {
  *reinterpret_cast<float4*>(host_cuda::current->block->shared + shared_address(p)) = {x, y, z, w};
}

inline void grid_sync() { host_cuda::synchronise(*host_cuda::current->block->group); }
inline void cluster_sync() { host_cuda::synchronise(*host_cuda::current->block->group); }
inline uint32_t cluster_rank() { return host_cuda::current->block->rank; }

template <class T>
T* cluster_peer(T* p, uint32_t rank) {
  host_cuda::Block* block = host_cuda::current->block;
  const ptrdiff_t offset = reinterpret_cast<const unsigned char*>(p) - block->shared;
  return reinterpret_cast<T*>((*block->peers)[rank].shared + offset);
}

}  // namespace otk
