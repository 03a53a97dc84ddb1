// fit_transport_cpu against Algorithm 1 in double (transport.h), without Python.
#include <algorithm>

#include "check.h"
#include "transport.h"

namespace {

const otk::Adam kAdam{0.01, 0.5, 0.9, 1e-8}, kWithoutEps{0.01, 0.5, 0.9, 0.0};

template <class T, class S>
std::vector<T> cast(const std::vector<S>& values) {
  return {values.begin(), values.end()};
}

template <class T>
void compare(int64_t batch, int64_t n, int64_t m, int64_t d, int64_t trees, int64_t depth, int64_t d_out, bool literal,
             int threads, double tolerance, const otk::Adam& adam = kAdam) {
  Transport t{batch, n, m, d, trees, depth, d_out, 3, literal, {}, {}, {}, {}, {}, {}, {}, {}};
  const int64_t size = batch * t.all() * d_out;
  // values that float holds, so that both precisions start alike
  const auto draw = [](int64_t count, unsigned seed) { return cast<double>(normal<float>(count, seed)); };
  t.z_r = draw(batch * n * d_out, 1), t.z_g = draw(batch * m * d, 2), t.thresholds = draw(batch * trees * t.nodes(), 3);
  t.leaves = draw(size, 4), t.exp_avg = draw(size, 5), t.exp_avg_sq = draw(size, 6);
  for (double& v : t.exp_avg_sq) v = double(float(v * v + 0.1));  // Adam divides by its root: kept away from zero
  const auto z_r = cast<T>(t.z_r), z_g = cast<T>(t.z_g), thresholds = cast<T>(t.thresholds);
  auto leaves = cast<T>(t.leaves), exp_avg = cast<T>(t.exp_avg), exp_avg_sq = cast<T>(t.exp_avg_sq);
  Guarded<int64_t> index(batch * n, -7);
  Guarded<T> cost(batch * t.iters, T(-7));
  float step = t.step;
  otk::fit_transport_cpu<T>({z_r.data(),
                             z_g.data(),
                             thresholds.data(),
                             leaves.data(),
                             exp_avg.data(),
                             exp_avg_sq.data(),
                             &step,
                             index.data(),
                             cost.data(),
                             batch,
                             n,
                             m,
                             d,
                             trees,
                             depth,
                             d_out,
                             t.iters,
                             n * d_out,
                             m * d,
                             trees * t.nodes(),
                             literal,
                             adam},
                            threads);
  t.run(adam);
  CHECK(index.intact() && cost.intact() && step == t.step);
  for (size_t k = 0; k < t.index.size(); ++k) CHECK(index[k] == t.index[k]);
  for (size_t k = 0; k < t.cost.size(); ++k) CHECK(std::abs(double(cost[k]) - t.cost[k]) <= tolerance * (1 + t.cost[k]));
  for (size_t k = 0; k < leaves.size(); ++k) {
    CHECK(std::abs(double(leaves[k]) - t.leaves[k]) <= tolerance * (1 + std::abs(t.leaves[k])));
    CHECK(std::abs(double(exp_avg[k]) - t.exp_avg[k]) <= tolerance * (1 + std::abs(t.exp_avg[k])));
    CHECK(std::abs(double(exp_avg_sq[k]) - t.exp_avg_sq[k]) <= tolerance * (1 + std::abs(t.exp_avg_sq[k])));
  }
}

template <class T>
struct Paid {
  Guarded<int64_t> index;
  Guarded<T> cost, used, grad_z;
};

template <class T>
Paid<T> pay(const Transport& t, const std::vector<T>& z_r, const std::vector<T>& z_g, const std::vector<T>& thresholds,
            const std::vector<T>& leaves, int threads) {
  Paid<T> paid{{size_t(t.batch * t.n), -7},
               {size_t(t.batch), T(-7)},
               {size_t(t.batch), T(-7)},
               {size_t(t.batch * t.m * t.d), T(-7)}};
  otk::transport_cost_cpu<T>({{z_g.data(), thresholds.data(), leaves.data(), t.batch, t.m, t.d, t.trees, t.depth, t.d_out,
                               t.m * t.d, t.trees * t.nodes(), t.all() * t.d_out},
                              z_r.data(),
                              t.n,
                              t.n * t.d_out,
                              t.literal,
                              paid.index.data(),
                              paid.cost.data(),
                              paid.used.data(),
                              paid.grad_z.data()},
                             threads);
  CHECK(paid.index.intact() && paid.cost.intact() && paid.used.intact() && paid.grad_z.intact());
  return paid;
}

// The pairs and the cost are those of Algorithm 1's first step; the gradient is that of the cost, by differences.
void compare_cost(int64_t batch, int64_t n, int64_t m, int64_t d, int64_t trees, int64_t depth, int64_t d_out, bool literal,
                  int threads) {
  Transport t{batch, n, m, d, trees, depth, d_out, 1, literal, {}, {}, {}, {}, {}, {}, {}, {}};
  const auto draw = [](int64_t count, unsigned seed) { return cast<double>(normal<float>(count, seed)); };
  t.z_r = draw(batch * n * d_out, 1), t.z_g = draw(batch * m * d, 2), t.thresholds = draw(batch * trees * t.nodes(), 3);
  t.leaves = draw(batch * t.all() * d_out, 4);
  t.exp_avg.assign(t.leaves.size(), 0), t.exp_avg_sq.assign(t.leaves.size(), 0);
  const auto leaves = t.leaves;
  const auto paid = pay<double>(t, t.z_r, t.z_g, t.thresholds, leaves, threads);
  const auto rounded =
      pay<float>(t, cast<float>(t.z_r), cast<float>(t.z_g), cast<float>(t.thresholds), cast<float>(leaves), threads);
  t.run(kAdam);
  for (size_t k = 0; k < t.index.size(); ++k) CHECK(paid.index[k] == t.index[k] && rounded.index[k] == t.index[k]);
  for (int64_t entry = 0; entry < batch; ++entry) {
    std::vector<bool> hit(m, false);
    for (int64_t i = 0; i < n; ++i) hit[t.index[entry * n + i]] = true;
    CHECK(std::abs(paid.cost[entry] - t.cost[entry]) <= 1e-12 * (1 + t.cost[entry]));
    CHECK(std::abs(double(rounded.cost[entry]) - t.cost[entry]) <= 1e-4 * (1 + t.cost[entry]));
    CHECK(paid.used[entry] == double(std::count(hit.begin(), hit.end(), true)) / double(m));
  }
  const double h = 1e-5;  // pairs stay: draws are not that near to a tie
  for (size_t k = 0; k < t.z_g.size(); k += 7) {
    auto up = t.z_g, down = t.z_g;
    up[k] += h, down[k] -= h;
    const int64_t entry = int64_t(k) / (m * d);
    const double slope = (pay<double>(t, t.z_r, up, t.thresholds, leaves, threads).cost[entry] -
                          pay<double>(t, t.z_r, down, t.thresholds, leaves, threads).cost[entry]) /
                         (2 * h);
    CHECK(std::abs(paid.grad_z[k] - slope) <= 1e-7 * (1 + t.cost[entry]));
    CHECK(std::abs(double(rounded.grad_z[k]) - slope) <= 1e-4 * (1 + t.cost[entry]));
  }
}

}  // namespace

void test_fit_transport() {
  for (const int threads : {1, 3})
    for (const bool literal : {false, true}) {
      compare_cost(1, 1, 1, 1, 1, 0, 1, literal, threads);
      compare_cost(3, 9, 9, 4, 3, 2, 5, literal, threads);
      compare_cost(1, 33, 33, 7, 3, 3, 37, literal, threads);
    }
  compare_cost(2, 20, 40, 3, 2, 5, 17, false, 2);
  // Sums of up to 500 terms of order 1: 1e-13 in double, 1e-4 in float, three steps included.
  for (const int threads : {1, 3})
    for (const bool literal : {false, true}) {
      compare<double>(1, 1, 1, 1, 1, 0, 1, literal, threads, 1e-13);
      compare<double>(3, 9, 9, 4, 3, 2, 5, literal, threads, 1e-12);
      compare<float>(2, 33, 33, 7, 3, 3, 37, literal, threads, 1e-4);
      for (const int64_t d_out : {1, 2, 37}) {  // what pads a tile must not divide 0 by 0
        compare<double>(2, 9, 9, 3, 3, 2, d_out, literal, threads, 1e-12, kWithoutEps);
        compare<float>(2, 9, 9, 3, 3, 2, d_out, literal, threads, 1e-4, kWithoutEps);
      }
    }
  compare<double>(1, 40, 70, 3, 2, 5, 33, false, 2, 1e-12);
  compare<double>(1, 300, 300, 8, 30, 4, 70, false, 3, 1e-12);  // enough work for several threads
}
