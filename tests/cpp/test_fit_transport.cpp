// fit_transport_cpu against Algorithm 1 in double (transport.h), without Python.
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

}  // namespace

void test_fit_transport() {
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
