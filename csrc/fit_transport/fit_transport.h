// fit_transport.h - Algorithm 1 of POT-GAN whole (Avraham et al. 2019): the forest's leaves approach a transport map.
//   `iters` times:  F_j = F(z_g[j]);  rho_i = argmin_j |z_r[i] - F_j|^2;  one Adam step on the leaves for the matched cost
//     cover    cost = mean_i |z_r[i] - F[rho_i]|^2        (section 4.1: every real point is covered)
//     literal  cost = mean_i |z_r[rho_i] - F[i]|^2, n = m (Algorithm 1 as printed)
// Layout    z_r [batch, n, d_out], z_g [batch, m, d], thresholds [batch, trees, 2^depth - 1]: batches a stride apart, 0
//           shares one. leaves, exp_avg, exp_avg_sq [batch, trees, 2^depth, d_out] dense, updated in place; step [1]
//           counts Adam's steps of all batch entries and grows by iters. index [batch, n] (the paper's rho) and cost
//           [batch, iters] dense: the pairs of the last step, and each step's cost before its update.
// Work      z_g and the thresholds do not move, so mu = routing weights [m, K], K = trees 2^depth, is made once. A step
//           is F = mu leaves / T, the search, G_j = 2/n sum over j's pairs of (F_j - z_r), grad = mu^T G / T, and Adam.
// Numerics  shares as soft_forest.h. index attains the minimum within the rounding of a distance summed from differences.
//           Adam is the arithmetic of torch.optim.Adam(fused=True) on a CPU: m += (1 - b1)(g - m);
//           v = b2 v + (1 - b2) g g; leaf -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps); constants in double, rounded once.
//           The CPU kernel has that to the bit; CUDA's differs from it, and from torch's own on a GPU, by roundings.
//           eps = 0 is as torch's too: a leaf whose gradient has been zero from the start becomes 0 / 0 = NaN. What pads a
//           tile is no leaf and stays zero.
//           A row whose distances hold a NaN gets index -1, and the step's cost and then all leaves become NaN, as
//           autograd of the composed ops makes them.
// Order     every sum has one order, fixed by the sizes (on CUDA also by the number of blocks that the device has room
//           for): the same bits on every run and for every number of threads.
// Contract  n, m, d, d_out, trees, iters >= 1; batch == 0 is a no-op.
#pragma once
#include <cmath>
#include <cstdint>

#include "soft_forest/soft_forest.h"

#ifdef __CUDACC__
#define OTK_HOST_DEVICE __host__ __device__
#else
#define OTK_HOST_DEVICE
#endif

namespace otk {

struct Adam {
  double lr, beta1, beta2, eps;
};

template <class T>
struct FitTransport {
  const T* z_r;
  const T* z_g;
  const T* thresholds;
  T* leaves;
  T* exp_avg;
  T* exp_avg_sq;
  float* step;
  int64_t* index;
  T* cost;
  int64_t batch, n, m, d, trees, depth, d_out, iters;
  int64_t z_r_stride, z_g_stride, thresholds_stride;  // elements from one batch entry to the next
  bool literal;
  Adam adam;
};

// Adam's constants at step number t, counted from 1; power1 = beta1^t, power2 = beta2^t.
template <class T>
struct AdamStep {
  T beta1_share, beta1, beta2, beta2_share, step_size, root, root_inverse, eps;

  OTK_HOST_DEVICE AdamStep(const Adam& a, double power1, double power2)
      : beta1_share(T(1 - a.beta1)),
        beta1(T(a.beta1)),
        beta2(T(a.beta2)),
        beta2_share(T(1 - a.beta2)),
        step_size(T(a.lr / (1 - power1))),
        root(T(std::sqrt(1 - power2))),
        root_inverse(T(1) / root),
        eps(T(a.eps)) {}
};

// float32 on the current device: one launch (and a second that counts the steps where clusters serve batch > 1) on
// `stream`. Where leaves, moments and mu fit in the shared memories of a few blocks per batch entry, these form a cluster,
// or meet in `workspace` on devices without clusters or without room for one; otherwise a grid keeps everything in
// `workspace`. The device is asked what it has room for, once. Allocates nothing, does not synchronise; throws on a launch
// error.
int64_t fit_transport_cuda_workspace(const FitTransport<float>& problem);  // bytes
void fit_transport_cuda(const FitTransport<float>& problem, void* workspace, void* stream);

template <class T>
void fit_transport_cpu(const FitTransport<T>& problem, int threads);

// The same cost once, for whoever made z_g (cost.cpp): F's pairs, what they cost, and its gradient to z_g; no leaf moves.
// Pairs are searched in units of the largest coordinate, a power of two: those of 1e-25 and of 1e25 are found too.
// Layout    forest.z is z_g [batch, m, d], m = forest.n; z_r [batch, n, d_out] a stride apart; index [batch, n], cost and
//           used [batch], grad_z [batch, m, d] dense. used: the share of the m points that occur in index.
// Numerics  cost is summed in double and rounded once. A batch entry with a NaN or infinite z_r or F(z_g) gets NaN in
//           cost, used and in the gradients of its pairs.
template <class T>
struct TransportCost {
  SoftForest<T> forest;
  const T* z_r;
  int64_t n, z_r_stride;
  bool literal;
  int64_t* index;
  T* cost;
  T* used;
  T* grad_z;
};

template <class T>
void transport_cost_cpu(const TransportCost<T>& problem, int threads);

}  // namespace otk
