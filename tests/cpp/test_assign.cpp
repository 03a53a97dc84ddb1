// assign_dense_cpu against all matchings that there are, and the lists' auctions and paths against both, without Python.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "assign/assign.h"
#include "check.h"

namespace {

constexpr double kFar = std::numeric_limits<double>::infinity();

struct Sizes {
  int64_t n, m, d;
};

// Points, whole numbers if there are to be ties, and all costs in double.
template <class T>
struct Points {
  Sizes size;
  std::vector<T> x, y, potential;
  std::vector<double> cost;  // [n, m]
  double tolerance;  // of one reduced cost: what assign.h's paths allow their bounds

  Points(const Sizes& s, bool ties, bool with_potential, unsigned seed)
      : size(s), x(normal<T>(s.n * s.d, seed)), y(normal<T>(s.m * s.d, seed + 1)), cost(s.n * s.m) {
    if (with_potential) potential = normal<T>(s.m, seed + 2);
    if (ties)
      for (auto* points : {&x, &y, &potential})
        for (T& value : *points) value = std::round(value);
    double largest = 0;
    for (int64_t i = 0; i < s.n; ++i)
      for (int64_t j = 0; j < s.m; ++j) {
        double& c = cost[i * s.m + j];
        for (int64_t k = 0; k < s.d; ++k) {
          const double difference = double(x[i * s.d + k]) - double(y[j * s.d + k]);
          c += difference * difference;
        }
        if (with_potential) c -= double(potential[j]);
        largest = std::max(largest, std::abs(c));
      }
    tolerance = 4 * double(s.d + 16) * std::numeric_limits<double>::epsilon() * largest;
  }

  const T* offsets() const { return potential.empty() ? nullptr : potential.data(); }

  // The least cost of all injective maps of rows [i, n) into columns that are not in `taken`.
  double least(int64_t i = 0, uint64_t taken = 0) const {
    if (i == size.n) return 0;
    double best = kFar;
    for (int64_t j = 0; j < size.m; ++j)
      if (!(taken >> j & 1)) best = std::min(best, cost[i * size.m + j] + least(i + 1, taken | uint64_t(1) << j));
    return best;
  }

  // An injective map whose pairs are tight under v, and v_j = 0 >= all others where a column has no row. Returns its cost.
  template <class Columns, class Potentials>
  double check(const Columns& column, const Potentials& v) const {
    std::vector<char> taken(size.m);
    double sum = 0;
    for (int64_t i = 0; i < size.n; ++i) {
      const int64_t j = column[i];
      CHECK(j >= 0 && j < size.m && !taken[j]);
      if (j < 0 || j >= size.m) return kFar;
      taken[j] = true, sum += cost[i * size.m + j];
      for (int64_t other = 0; other < size.m; ++other)
        CHECK(cost[i * size.m + j] - v[j] <= cost[i * size.m + other] - v[other] + tolerance);
    }
    for (int64_t j = 0; j < size.m && size.n < size.m; ++j) CHECK(v[j] <= tolerance && (taken[j] || v[j] >= -tolerance));
    return sum;
  }
};

template <class T>
double dense(const Points<T>& points, int threads) {
  const auto [n, m, d] = points.size;
  Guarded<int64_t> index(n, -7);
  Guarded<double> u(n, -7), v(m, -7);
  double certificate[2] = {};
  otk::assign_dense_cpu<T>({points.x.data(), points.y.data(), points.offsets(), index.data(), u.data(), v.data(),
                            certificate, certificate + 1, 1, n, m, d, 0, 0, 0},
                           threads);
  CHECK(index.intact() && u.intact() && v.intact());
  double dual = 0, mean = 0;
  for (int64_t i = 0; i < n; ++i) dual += u[i];
  for (int64_t j = 0; j < m; ++j) dual += v[j], mean += v[j] / double(m);
  const double primal = points.check(index, v);
  CHECK(std::abs(primal - dual) <= double(n) * points.tolerance);
  CHECK(std::abs(primal - certificate[0]) <= double(n) * points.tolerance);
  CHECK(std::abs(dual - certificate[1]) <= double(n) * points.tolerance);
  if (n == m) CHECK(std::abs(mean) <= points.tolerance);
  return primal;
}

// The caller of the sparse way, whose searches of columns look at all of them.
template <class T>
struct Lists {
  const Points<T>& points;
  const Sizes s;
  const int64_t k;  // entries of a list
  const int64_t given;  // open columns that an answer holds
  Guarded<int32_t> column, length, owner, match;
  Guarded<double> cost, least, bound, u, v;
  int64_t asked_lists = 0, asked_open = 0, made_lists = 0;

  Lists(const Points<T>& p, int64_t entries, int64_t answered)
      : points(p),
        s(p.size),
        k(std::min(entries, s.m)),
        given(answered),
        column(s.n * k, -7),
        length(s.n, -7),
        owner(s.m, -1),
        match(s.n, -1),
        cost(s.n * k, kFar),
        least(s.n * k, kFar),
        bound(s.n, kFar),
        u(s.n, kFar),
        v(s.m, 0) {}

  otk::AssignLists<T> view() {
    return {points.x.data(),
            points.y.data(),
            points.offsets(),
            column.data(),
            cost.data(),
            least.data(),
            bound.data(),
            length.data(),
            v.data(),
            owner.data(),
            match.data(),
            s.n,
            s.m,
            s.d,
            k};
  }

  // The `most` best columns of row i for which keep(j), -1 where there are fewer; returns the next one's value.
  template <class Keep>
  double best(int64_t i, int64_t most, int64_t* found, const Keep& keep) {
    std::vector<std::pair<double, int64_t>> all;
    for (int64_t j = 0; j < s.m; ++j)
      if (keep(j)) all.emplace_back(points.cost[i * s.m + j] - v[j], j);
    std::sort(all.begin(), all.end());
    for (int64_t q = 0; q < most; ++q) found[q] = q < int64_t(all.size()) ? all[q].second : -1;
    return most < int64_t(all.size()) ? all[most].first : kFar;
  }

  void list(const std::vector<int64_t>& rows) {
    std::vector<int64_t> found(rows.size() * k);
    std::vector<double> unlisted(rows.size());
    for (size_t r = 0; r < rows.size(); ++r)
      unlisted[r] = best(rows[r], k, found.data() + r * k, [](int64_t) { return true; });
    otk::assign_list_cpu<T>(view(), rows.data(), int64_t(rows.size()), found.data(), k, unlisted.data(), u.data(), 2);
  }

  std::vector<int64_t> every_row() const {
    std::vector<int64_t> rows(s.n);
    std::iota(rows.begin(), rows.end(), int64_t(0));
    return rows;
  }

  void auction(double epsilon, double reach) {
    std::fill_n(owner.data(), s.m, -1), std::fill_n(match.data(), s.n, -1);
    std::vector<int64_t> queue = every_row(), stale(s.n);
    int64_t waiting = s.n;
    for (int round = 0; waiting && round < 10000; ++round) {
      const auto rest = otk::assign_auction_cpu<T>(view(), epsilon, reach, queue.data(), waiting, stale.data(), 2, 1000000);
      if (rest.stale) list({stale.begin(), stale.begin() + rest.stale});
      std::copy_n(stale.begin(), rest.stale, queue.begin() + rest.rows);
      waiting = rest.rows + rest.stale;
    }
    CHECK(waiting == 0);
    if (reach > 0) return;  // which lets a row bid for less than what lies beyond its list
    for (int64_t i = 0; i < s.n; ++i)  // epsilon-complementary slackness
      for (int64_t j = 0; j < s.m; ++j)
        CHECK(points.cost[i * s.m + match[i]] - v[match[i]] <=
              points.cost[i * s.m + j] - v[j] + epsilon + points.tolerance);
  }

  // Pairs that are tight, columns that stay without a row, and paths for the others.
  double finish(bool defer) {
    std::fill_n(owner.data(), s.m, -1), std::fill_n(match.data(), s.n, -1);
    list(every_row());
    std::vector<int64_t> queue, rows(s.n), found(s.n * otk::kAssignMore);
    for (int64_t i = 0; i < s.n; ++i) {
      const int32_t j = column[i * k];
      if (owner[j] < 0)
        owner.data()[j] = int32_t(i), match.data()[i] = j;
      else
        queue.push_back(i);
    }
    const double level = *std::max_element(v.data(), v.data() + s.m);
    int64_t left_over = s.m - s.n;
    for (int64_t j = 0; j < s.m; ++j)
      if (owner[j] < 0 && v[j] == level && left_over-- > 0) owner.data()[j] = -2;
    std::vector<uint8_t> closed(s.m);
    std::vector<double> unlisted(s.n);
    const otk::AssignSearch search{rows.data(), closed.data(), found.data(), unlisted.data()};
    const auto ask = [&](int64_t count, bool open) {
      ++(open ? asked_open : asked_lists);
      if (!open) return list({rows.begin(), rows.begin() + count});
      for (int64_t r = 0; r < count; ++r) {
        std::fill_n(found.data() + r * otk::kAssignMore, otk::kAssignMore, int64_t(-1));
        unlisted[r] = best(rows[r], given, found.data() + r * otk::kAssignMore, [&](int64_t j) { return !closed[j]; });
      }
    };
    int64_t count = int64_t(queue.size());
    queue.resize(s.n);
    if (defer) {
      const auto rest = otk::assign_paths_cpu<T>(view(), true, queue.data(), count, search, ask);
      CHECK(asked_open + asked_lists == 0 && rest.rows <= count);
      list({rows.begin(), rows.begin() + rest.stale});
      count = std::min(rest.rows, count);
    }
    const auto rest = otk::assign_paths_cpu<T>(view(), false, queue.data(), count, search, ask);
    CHECK(rest.rows == 0);
    made_lists = rest.listed;
    CHECK(std::count(closed.begin(), closed.end(), 0) == s.m);
    for (int64_t i = 0; i < s.n; ++i) CHECK(owner[match[i]] == i);
    const double highest = s.n < s.m ? *std::max_element(v.data(), v.data() + s.m) : 0;
    for (int64_t j = 0; j < s.m; ++j) v.data()[j] -= highest;
    CHECK(column.intact() && length.intact() && owner.intact() && match.intact() && cost.intact() && least.intact() &&
          bound.intact() && u.intact() && v.intact());
    return points.check(match, v);
  }
};

template <class T>
void compare(const Sizes& s, unsigned seed, bool by_brute_force) {
  int64_t asked_lists = 0, asked_open = 0, made_lists = 0;
  for (const bool ties : {false, true})
    for (const bool potential : {false, true}) {
      const Points<T> points(s, ties, potential, seed);
      const double expected = dense(points, 1 + int(seed % 2)), slack = 2 * double(s.n) * points.tolerance;
      if (by_brute_force) CHECK(std::abs(points.least() - expected) <= slack);
      for (const int64_t k : {s.m, int64_t(1), int64_t(3)})
        for (const int64_t given : {int64_t(1), otk::kAssignMore})
          for (const bool auction : {false, true}) {
            Lists<T> lists(points, k, given);
            if (auction) {
              lists.list(lists.every_row());
              lists.auction(1.0, 4.0);
              lists.auction(0.1, 0.0);
            }
            CHECK(std::abs(lists.finish(seed % 3 == 0) - expected) <= slack);
            if (k == s.m && s.n == s.m) CHECK(lists.asked_lists + lists.asked_open == 0);
            asked_lists += lists.asked_lists, asked_open += lists.asked_open, made_lists += lists.made_lists;
          }
    }
  const bool dear = s.m * s.d > 1 << 18;  // columns cost more than a question
  if (s.n > 20) CHECK((dear ? asked_lists : made_lists) > 0);
  if (dear) CHECK(asked_open > 0);
}

// Problems of a batch are solved as they are alone, on any number of threads.
void batches_are_alone() {
  constexpr int64_t batch = 9, n = 30, m = 33, d = 5;
  const auto x = normal<float>(batch * n * d, 1), y = normal<float>(batch * m * d, 2);
  std::vector<std::vector<double>> results;
  for (const int threads : {1, 2, 5}) {
    std::vector<int64_t> index(batch * n);
    std::vector<double> u(batch * n), v(batch * m), primal(batch), dual(batch);
    otk::assign_dense_cpu<float>({x.data(), y.data(), nullptr, index.data(), u.data(), v.data(), primal.data(), dual.data(),
                                  batch, n, m, d, n * d, m * d, 0},
                                 threads);
    for (const auto& part : {v, primal, dual}) u.insert(u.end(), part.begin(), part.end());
    u.insert(u.end(), index.begin(), index.end());
    results.push_back(u);
  }
  CHECK(results[0] == results[1] && results[0] == results[2]);
}

}  // namespace

void test_assign() {
  unsigned seed = 0;
  for (const Sizes& s :
       {Sizes{1, 1, 1}, {1, 6, 2}, {2, 2, 3}, {3, 5, 1}, {5, 5, 2}, {5, 8, 3}, {6, 7, 17}, {7, 7, 2}, {7, 8, 4}})
    for (int repeat = 0; repeat < 3; ++repeat, seed += 7) {
      compare<float>(s, seed, true);
      compare<double>(s, seed, true);
    }
  for (const Sizes& s : {Sizes{40, 40, 2}, {40, 41, 2}, {30, 75, 3}, {45, 60, 20}, {45, 60, 4400}, {45, 45, 6000}})
    compare<float>(s, seed++, false);
  batches_are_alone();
}
