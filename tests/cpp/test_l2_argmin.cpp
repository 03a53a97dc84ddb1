// l2_argmin_cpu against a sum in double, without Python.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "check.h"
#include "l2_argmin/l2_argmin.h"

namespace {

// `clusters` > 0: point i stands about 40 along axis i mod clusters, and every third point of y is a copy of the one before.
template <class T>
void compare(int64_t batch, int64_t n, int64_t m, int64_t d, bool with_potential, int threads, int64_t clusters = 0) {
  auto x = normal<T>(batch * n * d, 1), y = normal<T>(batch * m * d, 2);
  const auto p = normal<T>(batch * m, 3);
  if (clusters) {
    for (int64_t i = 0; i < n; ++i) x[i * d + i % clusters] += 40;
    for (int64_t j = 0; j < m; ++j) {
      y[j * d + j % clusters] += 40;
      if (j % 3 == 2) std::copy_n(y.data() + (j - 1) * d, d, y.data() + j * d);
    }
  }
  Guarded<T> value(batch * n, T(-7));
  Guarded<int64_t> index(batch * n, -7);
  otk::l2_argmin_cpu<T>({x.data(), y.data(), with_potential ? p.data() : nullptr, value.data(), index.data(), batch, n, m,
                         d, n * d, m * d, m},
                        threads);
  CHECK(value.intact() && index.intact());
  const double u = double(std::numeric_limits<T>::epsilon()) / 2;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t i = 0; i < n; ++i) {
      double best = std::numeric_limits<double>::infinity(), chosen = std::numeric_limits<double>::quiet_NaN();
      for (int64_t j = 0; j < m; ++j) {
        double cost = 0;
        for (int64_t k = 0; k < d; ++k) {
          const double difference = double(x[(b * n + i) * d + k]) - double(y[(b * m + j) * d + k]);
          cost += difference * difference;
        }
        if (with_potential) cost -= double(p[b * m + j]);
        best = std::min(best, cost);
        if (j == index[b * n + i]) chosen = cost;
      }
      const double bound = 2 * double(d + 3) * u * (std::abs(best) + 10);  // summing d squares, |potential| < 5
      CHECK(chosen - best <= bound);
      CHECK(std::abs(double(value[b * n + i]) - chosen) <= bound);
    }
}

}  // namespace

void test_l2_argmin() {
  for (const bool potential : {false, true})
    for (const int threads : {1, 2, 5}) {
      compare<float>(1, 1, 1, 1, potential, threads);
      compare<float>(2, 67, 131, 33, potential, threads);
      compare<float>(1, 300, 257, 16, potential, threads);
      compare<double>(1, 65, 40, 19, potential, threads);
    }
  for (const int64_t d : {2, 3, 4}) compare<float>(1, 51, 70, d, true, 2);  // the direct kernel
  compare<float>(1, 1100, 1500, 20, false, 2);   // the probe rows, then threads
  compare<float>(1, 40, 70, 9000, false, 2);     // several chunks of y
  compare<float>(70, 9, 11, 5, true, 3);         // many small problems
  compare<float>(1, 700, 3001, 130, true, 3, 6);   // large enough for copies and clusters to be looked for
  compare<double>(1, 700, 3001, 130, true, 3, 6);
  compare<float>(1, 300, 600, 1600, false, 3, 6);  // clusters in several chunks
}
