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

// Gradients of sum(grad_out * out); grad_out [batch, n, d_out] dense. All outputs dense, one per batch entry.
template <class T>
void soft_forest_backward_cpu(const SoftForest<T>& forest, const T* grad_out, T* grad_z, T* grad_thresholds,
                              T* grad_leaves, int threads);

}  // namespace otk
