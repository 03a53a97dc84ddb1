// double_backward.h - the double backward of soft_forest: the derivative of its gradients, as a gradient penalty needs it.
//
// soft_forest_backward is the gradient of <grad_out, out>. Cotangents of its three results act as tangents (dz,
// dthresholds, dleaves) of the three inputs: the forward pass differentiated along them is the gradient to grad_out,
// the backward pass differentiated along them, grad_out held, gives those to z, thresholds and leaves. At a node of
// reach r with left share p and right share q, from the root down,
//     dl = dz[feature] - dthreshold     dp = p q dl     dr(left) = p dr + r dp     dr(right) = q dr - r dp
// which ends in the leaves' weights mu and their tangents dmu; and from the leaves up,
//     v = p vL + q vR     dv = p dvL + q dvR + dp (vL - vR)     v(leaf) = <grad_out, leaf> / T, dv(leaf) with dleaf
//     gradient of z - threshold = (dr p q + r p q (q - p) dl) (vL - vR) + r p q (dvL - dvR)
//     grad_grad_out = (dmu leaves + mu dleaves) / T     grad_leaves = dmu^T grad_out / T
// Layout    inputs as in soft_forest.h; grad_out [batch, n, d_out], tangents and results dense, one per batch entry.
//           Null dthresholds or dleaves stand for zeros, whose products are skipped.
// Memory    per thread a few arrays for a group of trees and a block of rows; never [n, trees, 2^depth], let alone
//           times d_out. Leaves and dleaves are copied once, gradients of leaves kept once per chunk of rows.
// Numerics  no division by a share: saturated and deep trees stay finite. To first order in u = 2^-24 (2^-53), with
//           D = depth, K = trees 2^D, o = d_out, X the largest |z - threshold| of a row's nodes: a share is within
//           (X + 9) u (exp within 3 ulp, argument within u X), r at level k within k (X + 10) u, dr at level k within
//           (k (X + 11) + X + 12) u R, where with L = |dz[feature]| + |dthreshold|
//               R(root) = 0     R(left) = p R + p q r L     R(right) = q R + p q r L
//           Values at height j are within (o + 2 + j (X + 11)) u S, their tangents within
//           (o + 2 + (j + 1) (X + 12)) u Q, where
//               S(leaf) = sum_c |grad_out_c leaf_c| / T     S = p SL + q SR
//               Q(leaf) = sum_c |grad_out_c dleaf_c| / T    Q = p QL + q QR + p q L (SL + SR)
//           so the gradient of a node is within
//               ((D + 2) (X + 12) + o + 3) u p q ((R + r L) (SL + SR) + r (QL + QR)),
//           to which grad_z adds u per node of a feature and grad_thresholds u per row. With R of the leaves for dmu,
//               |grad_grad_out - exact| <= ((D + 1) (X + 11) + 3 K + 5) u (1/T) sum (R |leaf| + mu |dleaf|)
//               |grad_leaves - exact|   <= ((D + 1) (X + 11) + n + 20) u (1/T) sum R |grad_out|.
//           CUDA, float32: products are tf32.h's, whose K terms err by (8 K + 90) u, and nodes sum weighted values
//           (cuda_tangents.h). Of the same magnitudes, a node's gradient is within
//           ((D + 3) (X + 12) + 8 o + 120 + 2^D / 128) u, the last term where subtrees of 128 leaves are summed,
//           grad_grad_out within ((D + 1) (X + 11) + 17 K + 180) u, as two products of K share an accumulator,
//           grad_leaves within ((D + 1) (X + 11) + 9 (n + 64) + 92) u. Range, launch and limits: soft_forest.h.
// Order     sums over fixed chunks of rows in fixed order, no atomics: the same bits on every run, for every number of
//           threads and on the same kind of GPU.
#pragma once
#include "soft_forest/soft_forest.h"

namespace otk {

template <class T>
void soft_forest_double_backward_cpu(const SoftForest<T>& forest, const T* grad_out, const T* dz, const T* dthresholds,
                                     const T* dleaves, T* grad_grad_out, T* grad_z, T* grad_thresholds, T* grad_leaves,
                                     int threads);

// Bytes of workspace, aligned to 16, that the next function needs on the current device.
int64_t soft_forest_double_backward_cuda_workspace(const SoftForest<float>& forest);

void soft_forest_double_backward_cuda(const SoftForest<float>& forest, const float* grad_out, const float* dz,
                                      const float* dthresholds, const float* dleaves, float* grad_grad_out, float* grad_z,
                                      float* grad_thresholds, float* grad_leaves, void* workspace, void* stream);

}  // namespace otk
