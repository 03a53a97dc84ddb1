// soft_forest_cpu against a sum over paths in double, its gradients against differences of that sum, and their
// gradients against differences of them.
#include <cmath>
#include <cstdint>

#include "check.h"
#include "soft_forest/double_backward.h"
#include "soft_forest/soft_forest.h"

namespace {

struct Shape {
  int64_t n, d, trees, depth, d_out;
  int64_t nodes() const { return (int64_t(1) << depth) - 1; }
  int64_t leaves() const { return int64_t(1) << depth; }
};

using Values = std::vector<double>;

double output(const Shape& s, const Values& z, const Values& thresholds, const Values& leaves, int64_t i, int64_t c) {
  double total = 0;
  for (int64_t t = 0; t < s.trees; ++t)
    for (int64_t leaf = 0; leaf < s.leaves(); ++leaf) {
      double mu = 1;
      int64_t node = 0;
      for (int64_t level = s.depth - 1; level >= 0; --level) {
        const int64_t at = t * s.nodes() + node, right = leaf >> level & 1;
        const double logit = z[i * s.d + at % s.d] - thresholds[at];
        mu *= 1 / (1 + std::exp(right ? logit : -logit));
        node = 2 * node + 1 + right;
      }
      total += mu * leaves[(t * s.leaves() + leaf) * s.d_out + c];
    }
  return total / double(s.trees);
}

void compare(const Shape& s, int threads) {
  Values z = normal<double>(s.n * s.d, 1), thresholds = normal<double>(s.trees * s.nodes(), 2);
  Values leaves = normal<double>(s.trees * s.leaves() * s.d_out, 3);
  const Values grad_out = normal<double>(s.n * s.d_out, 4);
  const otk::SoftForest<double> forest{z.data(), thresholds.data(), leaves.data(), 1, s.n, s.d,
                                       s.trees,  s.depth,           s.d_out,       0, 0,   0};
  Guarded<double> out(s.n * s.d_out, -7), grad_z(z.size(), -7), grad_thresholds(thresholds.size(), -7),
      grad_leaves(leaves.size(), -7);
  otk::soft_forest_cpu<double>(forest, out.data(), threads);
  otk::soft_forest_backward_cpu<double>(forest, grad_out.data(), grad_z.data(), grad_thresholds.data(), grad_leaves.data(),
                                        threads);
  CHECK(out.intact() && grad_z.intact() && grad_thresholds.intact() && grad_leaves.intact());
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t c = 0; c < s.d_out; ++c)
      CHECK(std::abs(out[i * s.d_out + c] - output(s, z, thresholds, leaves, i, c)) <=
            1e-13);  // some hundred roundings of 1e-16

  const auto objective = [&] {
    double total = 0;
    for (int64_t i = 0; i < s.n; ++i)
      for (int64_t c = 0; c < s.d_out; ++c) total += grad_out[i * s.d_out + c] * output(s, z, thresholds, leaves, i, c);
    return total;
  };
  const auto slope = [&](double& parameter) {
    const double kept = parameter, step = 1e-5;
    parameter = kept + step;
    const double up = objective();
    parameter = kept - step;
    const double down = objective();
    parameter = kept;
    return (up - down) / (2 * step);
  };
  // central differences err by step^2 (1e-10) times third derivatives of order 1, summed over the outputs, and by 1e-16 / step
  const double bound = 1e-9 * double(s.n * s.d_out);
  const auto probe = [&](Values& parameters, const Guarded<double>& grad) {  // some 20 of them: each costs two sums
    for (size_t k = 0; k < parameters.size(); k += 1 + parameters.size() / 20)
      CHECK(std::abs(slope(parameters[k]) - grad[k]) <= bound);
  };
  probe(z, grad_z);
  probe(thresholds, grad_thresholds);
  probe(leaves, grad_leaves);
}

double dot(const Values& a, const Values& b) {
  double total = 0;
  for (size_t k = 0; k < a.size(); ++k) total += a[k] * b[k];
  return total;
}

// One forest for two entries of a batch, which differ in z; `all`: tangents of thresholds and leaves too.
void compare_double(const Shape& s, int threads, bool all) {
  const size_t rows = size_t(2 * s.n), nodes = size_t(s.trees * s.nodes());
  const size_t leaf_values = size_t(s.trees * s.leaves() * s.d_out);
  Values z = normal<double>(rows * s.d, 1), thresholds = normal<double>(nodes, 2);
  Values leaves = normal<double>(leaf_values, 3), grad_out = normal<double>(rows * s.d_out, 4);
  const Values dz = normal<double>(z.size(), 5), dthresholds = normal<double>(2 * nodes, 6);
  const Values dleaves = normal<double>(2 * leaf_values, 7);
  const otk::SoftForest<double> forest{z.data(), thresholds.data(), leaves.data(), 2,         s.n, s.d,
                                       s.trees,  s.depth,           s.d_out,       s.n * s.d, 0,   0};
  Guarded<double> grad_grad_out(grad_out.size(), -7), grad_z(z.size(), -7);
  Guarded<double> grad_thresholds(2 * nodes, -7), grad_leaves(2 * leaf_values, -7);
  otk::soft_forest_double_backward_cpu<double>(forest, grad_out.data(), dz.data(), all ? dthresholds.data() : nullptr,
                                               all ? dleaves.data() : nullptr, grad_grad_out.data(), grad_z.data(),
                                               grad_thresholds.data(), grad_leaves.data(), threads);
  CHECK(grad_grad_out.intact() && grad_z.intact() && grad_thresholds.intact() && grad_leaves.intact());

  const auto objective = [&] {
    Values to_z(z.size()), to_thresholds(2 * nodes), to_leaves(2 * leaf_values);
    otk::soft_forest_backward_cpu<double>(forest, grad_out.data(), to_z.data(), to_thresholds.data(), to_leaves.data(), 1);
    return dot(dz, to_z) + (all ? dot(dthresholds, to_thresholds) + dot(dleaves, to_leaves) : 0);
  };
  const auto probe = [&](Values& parameters, const Guarded<double>& grad, bool shared) {
    for (size_t k = 0; k < parameters.size(); k += 1 + parameters.size() / 20) {
      const double kept = parameters[k], step = 1e-4, found = grad[k] + (shared ? grad[parameters.size() + k] : 0);
      parameters[k] = kept + step;
      const double up = objective();
      parameters[k] = kept - step;
      const double down = objective();
      parameters[k] = kept;
      // step^2 times third derivatives of order 1, and roundings of 1e-16 / step, of sums over the outputs
      CHECK(std::abs((up - down) / (2 * step) - found) <= 1e-7 * double(rows * s.d_out));
    }
  };
  probe(grad_out, grad_grad_out, false);
  probe(z, grad_z, false);
  probe(thresholds, grad_thresholds, true);
  probe(leaves, grad_leaves, true);
}

}  // namespace

void test_soft_forest() {
  for (const int threads : {1, 3}) {
    compare({1, 1, 1, 0, 1}, threads);
    compare({5, 3, 2, 1, 2}, threads);
    compare({37, 9, 4, 3, 7}, threads);
    compare({18, 2, 3, 5, 33}, threads);
    compare({2500, 2, 3, 4, 24}, threads);  // enough work for several threads
    for (const bool all : {true, false}) {
      compare_double({1, 1, 1, 0, 1}, threads, all);
      compare_double({5, 3, 2, 1, 2}, threads, all);
      compare_double({37, 9, 14, 3, 7}, threads, all);
      compare_double({18, 2, 3, 7, 33}, threads, all);
      compare_double({600, 2, 3, 4, 24}, threads, all);  // enough work for several threads
    }
  }
}
