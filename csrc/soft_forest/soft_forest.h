// soft_forest.h - soft decision forest (POT-GAN's latent transformation forest, Avraham et al. 2019, section 4.2).
//   out[i] = (1/T) sum_t sum_l mu[t, l](z_i) leaves[t, l]
// Layout    z [batch, n, d] (rows dense, batches z_stride apart), thresholds [batch, trees, 2^depth - 1] and
//           leaves [batch, trees, 2^depth, d_out] (batches a stride apart, 0 shares one forest), out [batch, n, d_out].
//           Node k of tree t (breadth-first) compares feature (t (2^depth - 1) + k) mod d.
// Memory    per thread one block of routing weights for a group of trees; never [n, trees, 2^depth, d_out].
// Numerics  left share sigmoid(z - threshold), right share sigmoid(threshold - z), both from exp(-|z - threshold|), so
//           neither loses digits; no division by a share, so saturated and deep trees stay finite. exp is within 3 ulp
//           in float32; below exp(-87.3) a share is 0.
// Order     gradients of thresholds and leaves are summed over fixed chunks of rows in fixed order: the same bits on
//           every run and for every number of threads.
//
// CUDA, float32 (cuda_forward.cu, cuda_backward.cu; not yet run on a GPU): products on tensor cores as three tf32
// products of split operands. u = 2^-24, D = depth, o = d_out, X the largest |z - threshold| of a row's nodes.
//   share    x = fl(z - threshold) is within u X, expf within 2 ulp, reciprocal within 1: (X + 9) u relative, so
//   mu       D (X + 10) u. Shares below 2^-126 are subnormal or 0: there weights err by 2^-149, absolutely.
//   out      tf32.h has K products within (8 K + 90) u of the sum of magnitudes, if mma.sync cuts terms to 24 bits:
//            |out - exact| <= (D (X + 10) + 8 T 2^D + 92) u (1/T) sum mu |leaf|.
//   grads    Let S(leaf) = (1/T) sum_c |grad_out_c leaf_c|, S(node) = p S(left) + q S(right). Values per leaf err by
//            (8 o + 92) u S and per level by (X + 12) u S more, so a node's gradient is within
//                ((D + 2) (X + 12) + 8 o + 120 + 2^D / 128) u reach p q (S(left) + S(right)),
//            the last term where subtrees of 128 leaves are summed. grad_z adds the nodes of a feature, grad_thresholds
//            n rows, each with u per addition. grad_leaves is within
//                (D (X + 10) + 9 (n + 64) + 92) u (1/T) sum mu |grad_out|.
//   range    NaN stays NaN. An infinite leaf or grad_out gives NaN where float32 would give infinity; infinite z and
//            thresholds give shares 0 and 1.
//   order    fixed by the shapes, the device's kind and its number of multiprocessors; no atomics.
//   launch   one launch (backward: two; where blocks share a row's leaves one more, and in the backward two for each
//            further pass over the rows, cuda_partials.h) on `stream`, on the current device; allocates nothing, never
//            synchronises, throws with op and shape. n, batch, d_out >= 0, n < 2^34, d >= 1, depth <= 16,
//            trees 2^depth <= 2^30. Rows that are aligned to 16 bytes are read faster, but none need be.
//   memory   workspace of at most 1 MB a multiprocessor besides one gradient of leaves (d_out in whole eighths) and nodes.
#pragma once
#include <cstdint>

namespace otk {

template <class T>
struct SoftForest {
  const T* z;
  const T* thresholds;
  const T* leaves;
  int64_t batch, n, d, trees, depth, d_out;
  int64_t z_stride, thresholds_stride, leaves_stride;  // elements from one batch entry to the next
};

template <class T>
void soft_forest_cpu(const SoftForest<T>& forest, T* out, int threads);

// Gradients of sum(grad_out * out); grad_out [batch, n, d_out] dense. All outputs dense, one per batch entry; null for
// grad_thresholds and grad_leaves leaves them out.
template <class T>
void soft_forest_backward_cpu(const SoftForest<T>& forest, const T* grad_out, T* grad_z, T* grad_thresholds, T* grad_leaves,
                              int threads);

// Bytes of workspace, aligned to 16, that the function after each needs on the current device.
int64_t soft_forest_cuda_workspace(const SoftForest<float>& forest);

// out may not overlap the inputs.
void soft_forest_cuda(const SoftForest<float>& forest, float* out, void* workspace, void* stream);

int64_t soft_forest_backward_cuda_workspace(const SoftForest<float>& forest);

void soft_forest_backward_cuda(const SoftForest<float>& forest, const float* grad_out, float* grad_z,
                               float* grad_thresholds, float* grad_leaves, void* workspace, void* stream);

}  // namespace otk
