// cuda_products.h - the backward kernel's two products on the tensor cores, as one warp of twelve sees them.
#pragma once
#include "soft_forest/cuda_nodes.h"

namespace otk::forest {

constexpr int kStride = kGroup + 4;  // of the weights mu in shared memory
constexpr int kLeafParts = 3, kLeafTiles = kGroup / 16 / kLeafParts;  // warps along the leaves, fragments of each

// value [rows, kGroup] of a warp's 16 rows and kTiles fragments of leaves
template <int kTiles>
struct Values {
  float of[kTiles][4];

  // += grad_out [rows, outputs] leaves [kGroup, outputs]^T, outputs in whole eighths; lane (g, t) takes t and t + 4 of
  // each
  __device__ __forceinline__ void multiply(const float* grad_out, const float* leaves, int stride, int outputs,
                                           int leaf_count) {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
    for (int k = t; k < outputs; k += 8) {
      const float* row = grad_out + g * stride + k;
      const float rows[4] = {row[0], row[8 * stride], row[4], row[8 * stride + 4]};
      const Split<4> a = split(rows);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        if (8 * i >= leaf_count) break;
        const float* leaf = leaves + (8 * i + g) * stride + k;
        const float pair[2] = {leaf[0], leaf[4]};
        multiply_add(of[i], a, split(pair));
      }
    }
  }

  __device__ __forceinline__ void write(float* value, int stride, float scale) const {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      float* to = value + g * stride + 8 * i + 2 * t;
      *reinterpret_cast<float2*>(to) = make_float2(scale * of[i][0], scale * of[i][1]);
      *reinterpret_cast<float2*>(to + 8 * stride) = make_float2(scale * of[i][2], scale * of[i][3]);
    }
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
  // depth
  __device__ __forceinline__ void multiply(const float* mu, const float* grad_out, int stride, int rows, int leaf_count) {
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
        if (16 * i >= leaf_count) break;
        const float2 first = *reinterpret_cast<const float2*>(mu + k * kStride + 16 * i + 2 * g);
        const float2 second = *reinterpret_cast<const float2*>(mu + (k + 1) * kStride + 16 * i + 2 * g);
        const float weights[4] = {first.x, first.y, second.x, second.y};
        const Split<4> a = split(weights);
#pragma unroll
        for (int j = 0; j < 4; ++j) multiply_add(of[i][j], a, b[j]);
      }
    }
  }

  // Each lane's pieces of four outputs: the fragment's first index, its element, leaf and output.
  template <class Visit>
  __device__ __forceinline__ void each(int leaf_count, int outputs, Visit visit) {
    const int g = int(threadIdx.x) % 32 / 4, t = int(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < kLeafTiles; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int leaf = 16 * i + 2 * g + e / 2, output = 8 * t + e % 2 * 4;
        if (leaf < leaf_count && output < outputs) visit(i, e, leaf, output);
      }
  }

  __device__ __forceinline__ void load(const float* from, int64_t width, int leaf_count, int outputs) {
    zero();
    each(leaf_count, outputs, [&](int i, int e, int leaf, int output) {
      const float4 v = *reinterpret_cast<const float4*>(from + leaf * width + output);
      of[i][0][e] = v.x, of[i][1][e] = v.y, of[i][2][e] = v.z, of[i][3][e] = v.w;
    });
  }

  __device__ __forceinline__ void store(float* to, int64_t width, int leaf_count, int outputs) {
    each(leaf_count, outputs, [&](int i, int e, int leaf, int output) {
      const float4 v = make_float4(of[i][0][e], of[i][1][e], of[i][2][e], of[i][3][e]);
      *reinterpret_cast<float4*>(to + leaf * width + output) = v;
    });
  }
};

}  // namespace otk::forest
