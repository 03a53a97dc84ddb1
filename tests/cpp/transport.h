// transport.h - Algorithm 1 in double, from its definition: what every fit_transport is compared with.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "fit_transport/fit_transport.h"

struct Transport {
  int64_t batch, n, m, d, trees, depth, d_out, iters;
  bool literal;
  std::vector<double> z_r, z_g, thresholds, leaves, exp_avg, exp_avg_sq, cost;
  std::vector<int64_t> index;
  float step = 3;

  int64_t nodes() const { return (int64_t(1) << depth) - 1; }
  int64_t all() const { return trees << depth; }

  double weight(int64_t entry, int64_t j, int64_t k) const {  // of leaf k for point j
    double mu = 1;
    const int64_t tree = k >> depth;
    int64_t node = 0;
    for (int64_t level = depth - 1; level >= 0; --level) {
      const int64_t at = tree * nodes() + node, right = k >> level & 1;
      const double logit = z_g[(entry * m + j) * d + at % d] - thresholds[size_t(entry * trees * nodes() + at)];
      mu *= 1 / (1 + std::exp(right ? logit : -logit));
      node = 2 * node + 1 + right;
    }
    return mu;
  }

  void run(const otk::Adam& adam) {
    index.assign(batch * n, -7);
    cost.assign(batch * iters, 0);
    for (int64_t entry = 0; entry < batch; ++entry) run_entry(entry, adam);
    step += float(iters);
  }

  void run_entry(int64_t entry, const otk::Adam& adam) {
    const double* real = z_r.data() + entry * n * d_out;
    const int64_t size = all() * d_out, from = entry * size;
    std::vector<double> mu(m * all()), f(m * d_out), pull(m * d_out), grad(size);
    for (int64_t j = 0; j < m; ++j)
      for (int64_t k = 0; k < all(); ++k) mu[j * all() + k] = weight(entry, j, k) / double(trees);
    for (int64_t t = 0; t < iters; ++t) {
      std::fill(f.begin(), f.end(), 0);
      for (int64_t j = 0; j < m; ++j)
        for (int64_t k = 0; k < all(); ++k)
          for (int64_t c = 0; c < d_out; ++c) f[j * d_out + c] += mu[j * all() + k] * leaves[from + k * d_out + c];
      std::fill(pull.begin(), pull.end(), 0);
      for (int64_t i = 0; i < n; ++i) {  // a row with a NaN among its distances is lost: index -1
        double best = std::numeric_limits<double>::infinity();
        bool lost = false;
        for (int64_t j = 0; j < m; ++j) {
          double distance = 0;
          for (int64_t c = 0; c < d_out; ++c) distance += std::pow(real[i * d_out + c] - f[j * d_out + c], 2);
          lost |= std::isnan(distance);
          if (distance < best) best = distance, index[entry * n + i] = j;
        }
        if (lost) index[entry * n + i] = -1;
      }
      for (int64_t i = 0; i < n; ++i) {  // a lost pair stands for the last row and makes NaN
        const bool lost = index[entry * n + i] < 0;
        const int64_t other = lost ? (literal ? n : m) - 1 : index[entry * n + i], r = literal ? other : i,
                      j = literal ? i : other;
        for (int64_t c = 0; c < d_out; ++c) {
          const double difference = lost ? std::nan("") : f[j * d_out + c] - real[r * d_out + c];
          pull[j * d_out + c] += 2 * difference / double(n);
          cost[entry * iters + t] += difference * difference / double(n);
        }
      }
      std::fill(grad.begin(), grad.end(), 0);
      for (int64_t j = 0; j < m; ++j)
        for (int64_t k = 0; k < all(); ++k)
          for (int64_t c = 0; c < d_out; ++c) grad[k * d_out + c] += mu[j * all() + k] * pull[j * d_out + c];
      const double count = double(step) + double(t + 1), c1 = 1 - std::pow(adam.beta1, count),
                   c2 = 1 - std::pow(adam.beta2, count);
      for (int64_t k = 0; k < size; ++k) {
        double &first = exp_avg[from + k], &second = exp_avg_sq[from + k];
        first += (1 - adam.beta1) * (grad[k] - first);
        second = adam.beta2 * second + (1 - adam.beta2) * grad[k] * grad[k];
        leaves[from + k] -= adam.lr / c1 * first / (std::sqrt(second / c2) + adam.eps);
      }
    }
  }
};
