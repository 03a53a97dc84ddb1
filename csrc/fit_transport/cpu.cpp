// cpu.cpp - fit_transport on one instruction set.
//
// Everything stays packed between the steps, in column panels of the register tile's width (common/tile.h):
//   mu      [blocks of kCols points][K leaves][kCols]     read both ways: F = mu leaves and grad = mu^T G
//   leaves  [panels][K][kCols]                            a copy; the caller's leaves are written by each Adam step too
//   G       [panels][points][kCols]
// The search is l2_argmin's own kernel. Gradients live in a tile and go straight into Adam.
#include "fit_transport/fit_transport.h"

#include <algorithm>
#include <limits>
#include <new>

#include "common/memory.h"
#include "common/pack.h"
#include "common/thread.h"
#include "fit_transport/adam.h"
#include "l2_argmin/l2_argmin.h"
#include "soft_forest/routing.h"

namespace otk::OTK_ISA {

template <class T>
void l2_argmin(const L2Argmin<T>&, int);

namespace {

constexpr double kThreadedWork = 8e6;  // multiply-adds of one product below which a second thread costs more than it brings

int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

template <class T>
class Fit {
  static constexpr int64_t R = kCols<T>, V = simd<T>::lanes;

 public:
  Fit(const FitTransport<T>& p, int64_t entry, int threads)
      : p_(p),
        leaves_(int64_t(1) << p.depth),
        all_(p.trees * leaves_),
        rows_(round_up(all_, kRows)),
        points_(round_up(p.m, R)),
        panels_(round_up(p.d_out, R) / R),
        threads_(double(p.m) * double(all_) * double(p.d_out) < kThreadedWork ? 1 : threads),
        z_r_(p.z_r + entry * p.z_r_stride),
        z_g_(p.z_g + entry * p.z_g_stride),
        thresholds_(p.thresholds + entry * p.thresholds_stride),
        leaf_values_(p.leaves + entry * all_ * p.d_out),
        exp_avg_(p.exp_avg + entry * all_ * p.d_out),
        exp_avg_sq_(p.exp_avg_sq + entry * all_ * p.d_out),
        index_(p.index + entry * p.n),
        cost_(p.cost + entry * p.iters),
        scratch_(points_ * rows_ + panels_ * R * (all_ + points_) + p.m * p.d_out + p.n + threads_ * p.d * R) {
    mu_ = scratch_.get();
    leaf_panels_ = mu_ + points_ * rows_;
    grad_out_ = leaf_panels_ + panels_ * R * all_;
    f_ = grad_out_ + panels_ * R * points_;
    nearest_ = f_ + p.m * p.d_out;
    columns_ = nearest_ + p.n;
  }

  void run() {
    route();
    pack_leaves();
    for (int64_t t = 0; t < p_.iters; ++t) {
      transform();
      l2_argmin<T>({z_r_, f_, nullptr, nearest_, index_, 1, p_.n, p_.m, p_.d_out, 0, 0, 0}, threads_);
      cost_[t] = pair();
      const double count = double(*p_.step) + double(t + 1);
      update(AdamStep<T>(p_.adam, std::pow(p_.adam.beta1, count), std::pow(p_.adam.beta2, count)));
    }
  }

 private:
  T* block_mu(int64_t block) const { return mu_ + block * rows_ * R; }

  void route() {
    const int64_t nodes = leaves_ - 1;
#pragma omp parallel for num_threads(threads_) if (threads_ > 1)
    for (int64_t block = 0; block < points_ / R; ++block) {
      T *columns = columns_ + thread_number() * p_.d * R, *mu = block_mu(block);
      to_columns<T>(z_g_ + block * R * p_.d, std::min(R, p_.m - block * R), p_.d, columns);
      Routing<T>{p_.d, nodes, columns, thresholds_}.forward(0, p_.trees, mu, nullptr, nullptr);
      std::fill(mu + all_ * R, mu + rows_ * R, T(0));
    }
  }

  void pack_leaves() {
    for (int64_t panel = 0; panel < panels_; ++panel)
      for (int64_t k = 0; k < all_; ++k)
        for (int64_t c = 0; c < R; ++c) {
          const int64_t column = panel * R + c;
          leaf_panels_[(panel * all_ + k) * R + c] = column < p_.d_out ? leaf_values_[k * p_.d_out + column] : T(0);
        }
  }

  // F [m, d_out], row-major
  void transform() {
    const T scale = T(1) / T(p_.trees);
#pragma omp parallel for num_threads(threads_) if (threads_ > 1)
    for (int64_t task = 0; task < points_ / R * panels_; ++task) {
      const int64_t block = task / panels_, panel = task % panels_, width = std::min(R, p_.d_out - panel * R);
      for (int64_t row = 0; row < std::min(R, p_.m - block * R); row += kRows) {
        Tile<T> tile;
        tile.zero();
        tile.template multiply_add<1, R>(block_mu(block) + row, leaf_panels_ + panel * all_ * R, all_, R);
        for (int64_t i = 0; i < std::min<int64_t>(kRows, p_.m - block * R - row); ++i) {
          alignas(64) T values[R];
          store<T>(values, tile.acc[i][0] * scale);
          store<T>(values + V, tile.acc[i][1] * scale);
          std::copy_n(values, width, f_ + (block * R + row + i) * p_.d_out + panel * R);
        }
      }
    }
  }

  // The matched cost; its gradient to F in panels, zero past the end. Index -1 stands for the last row and makes NaN.
  T pair() {
    std::fill_n(grad_out_, panels_ * R * points_, T(0));
    const T weight = T(2) / T(p_.n);
    double total = 0;
    for (int64_t i = 0; i < p_.n; ++i) {
      const bool lost = index_[i] < 0;
      const int64_t real = !p_.literal ? i : lost ? p_.n - 1 : index_[i], j = p_.literal ? i : lost ? p_.m - 1 : index_[i];
      const T pull = lost ? std::numeric_limits<T>::quiet_NaN() : weight;
      const T *f = f_ + j * p_.d_out, *z = z_r_ + real * p_.d_out;
      double squares = lost ? std::numeric_limits<double>::quiet_NaN() : 0;
      for (int64_t panel = 0; panel < panels_; ++panel) {
        T* to = grad_out_ + (panel * points_ + j) * R;
        for (int64_t c = 0; c < std::min(R, p_.d_out - panel * R); ++c) {
          const T difference = f[panel * R + c] - z[panel * R + c];
          to[c] += pull * difference;
          if (p_.literal) squares += double(difference) * double(difference);
        }
      }
      total += p_.literal ? squares : double(nearest_[i]);
    }
    return T(total / double(p_.n));
  }

  // grad = mu^T G / T, tile by tile into Adam
  void update(const AdamStep<T>& step) {
    const T scale = T(1) / T(p_.trees);
    const int64_t groups = rows_ / kRows;
#pragma omp parallel for num_threads(threads_) if (threads_ > 1)
    for (int64_t task = 0; task < groups * panels_; ++task) {
      const int64_t leaf = task / panels_ * kRows, panel = task % panels_, width = std::min(R, p_.d_out - panel * R);
      Tile<T> tile;
      tile.zero();
      for (int64_t block = 0; block < points_ / R; ++block)
        tile.template multiply_add<R, 1>(block_mu(block) + leaf * R, grad_out_ + (panel * points_ + block * R) * R, R, R);
      for (int64_t i = 0; i < std::min<int64_t>(kRows, all_ - leaf); ++i) {
        alignas(64) T grad[R];
        store<T>(grad, tile.acc[i][0] * scale);
        store<T>(grad + V, tile.acc[i][1] * scale);
        const int64_t at = (leaf + i) * p_.d_out + panel * R;
        adam<T>(width, grad, leaf_values_ + at, exp_avg_ + at, exp_avg_sq_ + at, step);
        std::copy_n(leaf_values_ + at, width, leaf_panels_ + (panel * all_ + leaf + i) * R);
      }
    }
  }

  const FitTransport<T>& p_;
  const int64_t leaves_, all_, rows_, points_,
      panels_;  // leaves of a tree, K, K in whole tiles, m in blocks, d_out in panels
  const int threads_;
  const T *z_r_, *z_g_, *thresholds_;
  T *leaf_values_, *exp_avg_, *exp_avg_sq_;
  int64_t* index_;
  T* cost_;
  Scratch<T> scratch_;
  T *mu_, *leaf_panels_, *grad_out_, *f_, *nearest_, *columns_;
};

}  // namespace

template <class T>
void fit_transport(const FitTransport<T>& p, int threads) {
  const int outer = int(std::min<int64_t>(threads, p.batch));
  bool out_of_memory = false;  // an exception must not leave the parallel loop
#pragma omp parallel for schedule(dynamic) num_threads(outer) if (outer > 1)
  for (int64_t entry = 0; entry < p.batch; ++entry) try {
      Fit<T>(p, entry, outer > 1 ? 1 : threads).run();
    } catch (const std::bad_alloc&) {
#pragma omp atomic write
      out_of_memory = true;
    }
  if (out_of_memory) throw std::bad_alloc();
  if (p.batch > 0) *p.step += float(p.iters);
}

template void fit_transport<float>(const FitTransport<float>&, int);
template void fit_transport<double>(const FitTransport<double>&, int);

}  // namespace otk::OTK_ISA
