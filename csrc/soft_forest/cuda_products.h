// cuda_products.h - the backward kernel's two products on the tensor cores, as one warp of twelve sees them.
#pragma once
#include "soft_forest/cuda_nodes.h"

namespace otk::forest {

constexpr int kStride = kGroup + 4;  // of the weights mu in shared memory
constexpr int kLeafParts = 3, kLeafTiles = kGroup / 16 / kLeafParts;  // warps along the leaves, fragments of each

// value [rows, kGroup] of a warp's 16 rows and kTiles fragments of leaves. All fragments are multiplied, whether they have
// leaves or not: a branch between them would leave each waiting for itself.
//
// A lane (g, t) takes rows and leaves `nearest(g)` instead of g, and outputs 4 t .. 4 t + 3 of 16 as its depths of two
// steps: loads are 16 bytes wide and free of bank conflicts by a stride of 4 mod 32.
template <int kTiles>
struct Values {
  float of[kTiles][4];

  __device__ static __forceinline__ int nearest(int g) { return g / 2 + g % 2 * 4; }

  // += grad_out [rows, outputs] leaves [kGroup, outputs]^T, outputs in whole sixteenths
  __device__ __forceinline__ void multiply(const float* grad_out, const float* leaves, int stride, int outputs) {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
    for (int at = nearest(g) * stride + 4 * t; outputs > 0; at += 16, outputs -= 16) {
      const float4 up = *reinterpret_cast<const float4*>(grad_out + at);
      const float4 down = *reinterpret_cast<const float4*>(grad_out + at + 8 * stride);
      const float first[4] = {up.x, down.x, up.y, down.y}, second[4] = {up.z, down.z, up.w, down.w};
      Split<2> b[kTiles], next[kTiles];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const float4 leaf = *reinterpret_cast<const float4*>(leaves + at + 8 * i * stride);
        const float pair[2] = {leaf.x, leaf.y}, next_pair[2] = {leaf.z, leaf.w};
        b[i] = split(pair);
        next[i] = split(next_pair);
      }
      multiply_add(of, split(first), b);
      multiply_add(of, split(second), next);
    }
  }

  __device__ __forceinline__ void write(float* value, int stride, float scale) const {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        value[(nearest(g) + e / 2 * 8) * stride + 8 * i + nearest(2 * t + e % 2)] = scale * of[i][e];
  }
};

// Where the sums of a part's leaves lie: blocks of two leaves and eight outputs, in the order of LeafSums' elements.
struct SumsLayout {
  int width;  // outputs, in whole eighths

  // Of an even leaf and an output in whole eighths.
  __device__ int64_t at(int64_t leaf, int output) const { return leaf * width + 2 * output; }
  // The leaf and the output of what is at `at`.
  __device__ int64_t leaf(int64_t at) const { return at / (2 * width) * 2 + at / 2 % 2; }
  __device__ int output(int64_t at) const {
    const int within = int(at % (2 * width));
    return within / 16 * 8 + within % 2 * 4 + within / 4 % 4;
  }
};

// Gradients of a warp's 48 leaves and 32 outputs: lane (g, t) has leaves 2 g, + 1 of each 16 and outputs 8 t .. 8 t +
// 7.
struct LeafSums {
  float of[kLeafTiles][4][4];

  __device__ __forceinline__ void zero() {
#pragma unroll
    for (int i = 0; i < kLeafTiles; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) of[i][j][e] = 0;
  }

  // += mu [rows, kStride]^T grad_out [rows, stride]; rows 2 t and 2 t + 1 of 8 are a lane's steps of the product's
  // depth. All fragments, as in Values: what is past the last leaf or output stays in sums that nobody reads.
  __device__ __forceinline__ void multiply(const float* mu, const float* grad_out, int stride, int rows) {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
    for (int k = 2 * t; k < rows; k += 8) {
      const float4 even = *reinterpret_cast<const float4*>(grad_out + k * stride + 4 * g);
      const float4 odd = *reinterpret_cast<const float4*>(grad_out + (k + 1) * stride + 4 * g);
      const float pairs[4][2] = {{even.x, odd.x}, {even.y, odd.y}, {even.z, odd.z}, {even.w, odd.w}};
      Split<2> b[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) b[j] = split(pairs[j]);
#pragma unroll
      for (int i = 0; i < kLeafTiles; ++i) {
        const float2 first = *reinterpret_cast<const float2*>(mu + k * kStride + 16 * i + 2 * g);
        const float2 second = *reinterpret_cast<const float2*>(mu + (k + 1) * kStride + 16 * i + 2 * g);
        const float weights[4] = {first.x, first.y, second.x, second.y};
        multiply_add(of[i], split(weights), b);
      }
    }
  }

  // Each lane's pieces: a fragment's four sums as the product leaves them. `at`, from the warp's first leaf and output on,
  // is where they lie among sums of `width` outputs (SumsLayout). Pieces of four outputs of a leaf cost two copies per sum
  // and step in SASS, 96 instructions of 190.
  template <class Visit>
  __device__ __forceinline__ void each(int width, int leaf_count, int outputs, Visit visit) {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < kLeafTiles; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (16 * i + 2 * g < leaf_count && 8 * t < outputs)
          visit(of[i][j], SumsLayout{width}.at(16 * i + 2 * g, 8 * t) + 4 * j);
  }

  __device__ __forceinline__ void load(const float* from, int width, int leaf_count, int outputs) {
    zero();
    each(width, leaf_count, outputs, [&](float (&sum)[4], int64_t at) {
      const float4 v = *reinterpret_cast<const float4*>(from + at);
      sum[0] = v.x, sum[1] = v.y, sum[2] = v.z, sum[3] = v.w;
    });
  }

  __device__ __forceinline__ void store(float* to, int width, int leaf_count, int outputs) {
    each(width, leaf_count, outputs, [&](float (&sum)[4], int64_t at) {
      *reinterpret_cast<float4*>(to + at) = make_float4(sum[0], sum[1], sum[2], sum[3]);
    });
  }
};

}  // namespace otk::forest
