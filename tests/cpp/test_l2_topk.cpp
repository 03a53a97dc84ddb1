// l2_topk_cpu against sums in double, without Python.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "check.h"
#include "l2_argmin/l2_argmin.h"
#include "l2_topk/l2_topk.h"

namespace {

struct Sizes {
  int64_t batch, n, m, d, k;
};

// `copies` > 1: every point of y stands there that many times.
template <class T>
void compare(const Sizes& s, bool with_potential, int threads, int64_t copies = 1) {
  const auto [batch, n, m, d, k] = s;
  const auto x = normal<T>(batch * n * d, 1);
  auto y = normal<T>(batch * m * d, 2);
  const auto p = normal<T>(batch * m, 3);
  for (int64_t j = 0; j < batch * m; ++j) std::copy_n(y.data() + j / copies * copies * d, d, y.data() + j * d);
  const T* const potential = with_potential ? p.data() : nullptr;
  Guarded<T> value(batch * n * k, T(-7));
  Guarded<int64_t> index(batch * n * k, -7);
  otk::l2_topk_cpu<T>({x.data(), y.data(), potential, value.data(), index.data(), batch, n, m, d, k, n * d, m * d, m},
                      threads);
  CHECK(value.intact() && index.intact());
  const double u = double(std::numeric_limits<T>::epsilon()) / 2;
  std::vector<double> cost(m);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < m; ++j) {
        cost[j] = with_potential ? -double(p[b * m + j]) : 0.0;
        for (int64_t c = 0; c < d; ++c) {
          const double difference = double(x[(b * n + i) * d + c]) - double(y[(b * m + j) * d + c]);
          cost[j] += difference * difference;
        }
      }
      const int64_t at = (b * n + i) * k;
      std::vector<double> chosen;
      for (int64_t c = 0; c < k; ++c) {
        const int64_t j = index[at + c];
        CHECK(j >= 0 && j < m);
        if (j < 0 || j >= m) return;
        chosen.push_back(cost[j]);
        CHECK(std::abs(double(value[at + c]) - cost[j]) <= double(d + 3) * u * (std::abs(cost[j]) + 10));  // |p| < 5
        if (c) CHECK(value[at + c - 1] < value[at + c] || (value[at + c - 1] == value[at + c] && index[at + c - 1] < j));
      }
      std::sort(chosen.begin(), chosen.end());
      std::sort(cost.begin(), cost.end());
      for (int64_t c = 0; c < k; ++c)
        CHECK(chosen[c] - cost[c] <= 2 * double(d + 3) * u * (std::abs(cost[c]) + 10));  // summing d squares
    }
}

// The first of k neighbours, and the only one, is l2_argmin's to the bit.
template <class T>
void nearest_is_l2_argmins(int64_t d) {
  constexpr int64_t n = 70, m = 500;
  const auto x = normal<T>(n * d, 4), y = normal<T>(m * d, 5), p = normal<T>(m, 6);
  std::vector<T> nearest(n);
  std::vector<int64_t> at(n);
  otk::l2_argmin_cpu<T>({x.data(), y.data(), p.data(), nearest.data(), at.data(), 1, n, m, d, 0, 0, 0}, 2);
  for (const int64_t k : {1, 6}) {
    std::vector<T> value(n * k);
    std::vector<int64_t> index(n * k);
    otk::l2_topk_cpu<T>({x.data(), y.data(), p.data(), value.data(), index.data(), 1, n, m, d, k, 0, 0, 0}, 2);
    for (int64_t i = 0; i < n; ++i) CHECK(value[i * k] == nearest[i] && index[i * k] == at[i]);
  }
}

}  // namespace

void test_l2_topk() {
  for (const bool potential : {false, true})
    for (const int threads : {1, 2, 5}) {
      compare<float>({1, 1, 1, 1, 1}, potential, threads);
      compare<float>({2, 67, 131, 33, 20}, potential, threads);
      compare<float>({1, 90, 257, 16, 128}, potential, threads);
      compare<double>({1, 65, 40, 19, 40}, potential, threads);
    }
  for (const int64_t d : {1, 2, 3, 4, 5}) {
    compare<float>({1, 51, 700, d, 30}, true, 2);
    compare<float>({1, 19, 700, d, 30}, false, 2, 100);  // more copies than a row keeps, and more than k
    compare<double>({1, 19, 700, d, 2}, true, 2);
    nearest_is_l2_argmins<float>(d);
    nearest_is_l2_argmins<double>(d);
  }
  nearest_is_l2_argmins<float>(130);
  compare<float>({1, 1100, 300, 20, 3}, false, 2);    // the probe rows, then threads
  compare<float>({1, 40, 170, 9000, 12}, false, 2);   // several chunks of y
  compare<float>({1, 10, 17000, 2, 12}, false, 2);    // several chunks of planes
  compare<float>({1, 3500, 130, 3, 128}, false, 3);   // several blocks of rows
  compare<float>({1, 3500, 130, 20, 128}, false, 3);
  compare<float>({70, 9, 11, 5, 4}, true, 3);         // many small problems
  compare<float>({1, 40, 900, 40, 17}, false, 2, 300);  // rows that settle again and again
}
