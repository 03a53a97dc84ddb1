// l2_argmin's CUDA kernels on the host (cuda_on_host): both ways, both product kernels, every precision, both thread
// orders.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>

#include "check.h"
#include "l2_argmin/cuda_steps.h"

namespace {

using namespace otk;

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

struct Problem {
  int64_t batch, n, m, d;
  std::vector<float> x, y, potential;  // potential may be empty
  bool shared = false;                 // y and potential serve the whole batch

  Problem(int64_t batch, int64_t n, int64_t m, int64_t d, bool with_potential, unsigned seed = 1)
      : batch(batch), n(n), m(m), d(d) {
    x = normal<float>(batch * n * d, seed);
    y = normal<float>(batch * m * d, seed + 1);
    if (with_potential) potential = normal<float>(batch * m, seed + 2);
  }

  const float* row(int64_t b, int64_t i) const { return x.data() + (b * n + i) * d; }
  const float* column(int64_t b, int64_t j) const { return y.data() + ((shared ? 0 : b) * m + j) * d; }
  double offset(int64_t b, int64_t j) const { return potential.empty() ? 0.0 : potential[(shared ? 0 : b) * m + j]; }

  double cost(int64_t b, int64_t i, int64_t j) const {
    double sum = 0;
    for (int64_t k = 0; k < d; ++k) sum += std::pow(double(row(b, i)[k]) - double(column(b, j)[k]), 2);
    return sum - offset(b, j);
  }

  // (d + 3) u |x - y|^2 and the subtraction of the potential, with room, and what d squares lose when they vanish.
  double bound(int64_t b, int64_t i, int64_t j) const {
    const double p = std::abs(offset(b, j));
    return 0x1p-24 * (double(d + 4) * (std::abs(cost(b, i, j)) + p) + p) + double(d) * 0x1p-126;
  }

  L2Argmin<float> call(float* value, int64_t* index) const {
    const int64_t own = shared ? 0 : 1;
    return {x.data(),    y.data(), potential.empty() ? nullptr : potential.data(), value, index, batch, n, m, d, n * d,
            own * m * d, own * m};
  }
};

enum class Way { automatic, differences, products };

struct Result {
  std::vector<float> value;
  std::vector<int64_t> index;
  int64_t left[2] = {};  // rows that came to the second stage, and to the differences
};

// One run on poisoned outputs and workspace: 0xff makes NaN and -1, 0x3f numbers that pass for points and columns.
Result run(const Problem& q, Way way, Precision precision, unsigned char poison = 0xff) {
  const size_t rows = size_t(q.batch * q.n);
  Guarded<float> value(rows, -7.0f);
  Guarded<int64_t> index(rows, -7);
  const L2Argmin<float> p = q.call(value.data(), index.data());
  const int64_t bytes = way == Way::automatic     ? l2_argmin_cuda_workspace(p, precision)
                        : way == Way::differences ? l2::workspace_by_differences(p)
                                                  : l2::workspace_by_products(p, precision);
  const size_t size = size_t(bytes), padded = (size + 255) / 256 * 256;
  unsigned char* const workspace = static_cast<unsigned char*>(std::aligned_alloc(256, padded + 256));
  std::memset(workspace, poison, padded + 256);
  if (way == Way::automatic) l2_argmin_cuda(p, precision, workspace, nullptr);
  if (way == Way::differences) l2::by_differences(p, workspace, nullptr);
  if (way == Way::products) l2::by_products(p, precision, workspace, nullptr);
  for (size_t k = size; k < padded + 256; ++k) CHECK(workspace[k] == poison);
  CHECK(value.intact() && index.intact());
  Result r;
  if (way == Way::products && precision == Precision::exact) {
    const l2::Schedule s = l2::plan_products(q.batch, q.n, q.m, q.d, precision, device_on_host);
    for (int stage = 0; stage < 2; ++stage)
      for (int64_t b = 0; b < q.batch; ++b)
        r.left[stage] += *reinterpret_cast<int*>(workspace + l2::regions(s).left_count[stage] + 4 * b);
  }
  std::free(workspace);
  for (size_t i = 0; i < rows; ++i) r.value.push_back(value[i]), r.index.push_back(index[i]);
  return r;
}

Result run_both_orders(const Problem& q, Way way, Precision precision = Precision::exact) {
  host_cuda::backward = false;
  const Result r = run(q, way, precision);
  host_cuda::backward = true;
  const Result other = run(q, way, precision, 0x3f);
  host_cuda::backward = false;
  CHECK(r.index == other.index);
  CHECK(std::memcmp(r.value.data(), other.value.data(), r.value.size() * sizeof(float)) == 0);
  return r;
}

// The index attains the minimum in double and the value is its cost, each within the bound of a direct sum; `slack`
// more for the index where products decide. Rows with a NaN cost say so.
void judge(const Problem& q, const Result& r, double slack = 0) {
  for (int64_t b = 0; b < q.batch; ++b)
    for (int64_t i = 0; i < q.n; ++i) {
      const size_t at = size_t(b * q.n + i);
      double best = kInfinity;
      bool nan = false;
      for (int64_t j = 0; j < q.m; ++j) {
        const double cost = q.cost(b, i, j);
        nan |= std::isnan(cost);
        best = std::fmin(best, cost);
      }
      if (nan) {
        CHECK(r.index[at] == -1 && std::isnan(r.value[at]));
        continue;
      }
      CHECK(r.index[at] >= 0 && r.index[at] < q.m);
      if (r.index[at] < 0 || r.index[at] >= q.m) continue;
      const double chosen = q.cost(b, i, r.index[at]), bound = q.bound(b, i, r.index[at]);
      if (std::isinf(best)) {
        CHECK(chosen == best && r.value[at] == float(best));
        continue;
      }
      CHECK(chosen - best <= 2 * bound + slack);
      CHECK(std::abs(double(r.value[at]) - chosen) <= bound);
    }
}

void solve_and_judge(const Problem& q, Way way) { judge(q, run_both_orders(q, way)); }

// ---- solutions ------------------------------------------------------------------------------------------------------

void test_differences() {
  for (const bool potential : {false, true}) {
    for (const int64_t d : {1, 2, 3, 4, 5, 8}) solve_and_judge(Problem(2, 70, 300, d, potential), Way::differences);
    for (const int64_t d : {9, 16, 33, 128}) solve_and_judge(Problem(2, 19, 131, d, potential), Way::differences);
    solve_and_judge(Problem(1, 1, 1, 1, potential), Way::automatic);
    solve_and_judge(Problem(1, 1, 1, 20, potential), Way::automatic);
    solve_and_judge(Problem(1, 5, 3000, 20, potential), Way::differences);  // parts that meet
    solve_and_judge(Problem(2, 5, 2500, 3, potential), Way::differences);
  }
  for (const int multiprocessors : {1, 2, 40}) {  // eight rows a block, four, two, one
    device_on_host = {80, multiprocessors};
    solve_and_judge(Problem(1, 45, 77, 24, true), Way::differences);
    solve_and_judge(Problem(1, 150, 77, 6, true), Way::differences);
  }
  Problem unaligned(1, 21, 40, 32, false);  // floats one by one, the same order of sums
  const Result aligned = run_both_orders(unaligned, Way::differences);
  unaligned.x.insert(unaligned.x.begin(), 0.0f);
  Guarded<float> value(21, -7.0f);
  Guarded<int64_t> index(21, -7);
  L2Argmin<float> p = unaligned.call(value.data(), index.data());
  ++p.x;
  l2::by_differences(p, nullptr, nullptr);
  for (size_t i = 0; i < 21; ++i) CHECK(value[i] == aligned.value[i] && index[i] == aligned.index[i]);
}

// What tf32 or bf16 may lose: both factors rounded to `bits` significant bits, the best cost and the chosen one.
double product_slack(const Problem& q, int bits) {
  double x = 0, y = 0;
  for (const float v : q.x) x = std::max(x, double(std::abs(v)));
  for (const float v : q.y) y = std::max(y, double(std::abs(v)));
  const double size = 2 * x + 2 * y;  // the centre lies within y
  return 4 * 2 * std::ldexp(1.0, -bits) * double(q.d) * size * size;
}

void test_products_on(Device device) {
  device_on_host = device;
  for (const bool potential : {false, true}) {
    solve_and_judge(Problem(1, 130, 300, 40, potential), Way::products);
    solve_and_judge(Problem(2, 67, 131, 129, potential), Way::products);
    solve_and_judge(Problem(1, 3, 500, 70, potential), Way::products);
  }
  solve_and_judge(Problem(1, 130, 600, 250, true), Way::products);  // more chunks than stages
  solve_and_judge(Problem(1, 30, 140, 300, true), Way::products);  // more chunks than Hopper's kernel keeps: x streams
  Problem shared(3, 40, 150, 16, true);
  shared.shared = true;
  solve_and_judge(shared, Way::products);
  for (const Precision precision : {Precision::bf16, Precision::tf32}) {
    const Problem q(2, 130, 260, 66, true);
    judge(q, run_both_orders(q, Way::products, precision), product_slack(q, precision == Precision::bf16 ? 8 : 11));
  }
}

// The two ways give the same bits: one order of sums, and candidates that hold every minimiser.
void test_ways_agree() {
  for (const int capability : {80, 90}) {
    device_on_host = {capability, 2};
    const Problem q(1, 200, 333, 48, true, 7);
    const Result a = run_both_orders(q, Way::differences), b = run_both_orders(q, Way::products);
    CHECK(a.value == b.value && a.index == b.index);
  }
}

// ---- edges ----------------------------------------------------------------------------------------------------------

constexpr Way kWays[] = {Way::differences, Way::products};

void test_ties_and_overflowing_lists() {
  for (const Way way : kWays) {
    Problem q(1, 40, 160, 24, false);
    for (int64_t j = 40; j < 160; ++j)  // each point four times
      for (int64_t k = 0; k < 24; ++k) q.y[size_t(j * 24 + k)] = q.y[size_t((j - 40) * 24 + k)];
    q.x.assign(q.y.begin(), q.y.begin() + 40 * 24);
    const Result r = run_both_orders(q, way);
    for (int64_t i = 0; i < 40; ++i) CHECK(r.index[size_t(i)] == i && r.value[size_t(i)] == 0);
    Problem same(1, 5, 300, 20, false);
    std::fill(same.y.begin(), same.y.end(), 1.0f);  // every column is a candidate: the lists overflow
    const Result first = run_both_orders(same, way);
    for (const int64_t index : first.index) CHECK(index == 0);
    CHECK(first.left[0] == 0);  // copies within a block are no candidates
    same.potential.assign(300, 0.0f);  // of which the second half has the higher potential
    std::fill(same.potential.begin() + 170, same.potential.end(), 1.0f);
    for (const int64_t index : run_both_orders(same, way).index) CHECK(index == 170);
    Problem ring(1, 9, 300, 20, false);  // x is the centre: all columns are equally far, none is a copy, and lists overflow
    std::fill(ring.x.begin(), ring.x.end(), 0.0f);
    std::fill(ring.y.begin(), ring.y.end(), 0.0f);
    for (int64_t j = 0; j < 300; ++j)
      for (int64_t k = 0; k < 10; ++k) ring.y[size_t(j * 20 + 2 * k + (j >> k & 1))] = 1;
    const Result far = run_both_orders(ring, way);
    for (const int64_t index : far.index) CHECK(index == 0);
    if (way == Way::products) CHECK(far.left[0] == 9 && far.left[1] == 9);
    Problem near(1, 20, 600, 16, true);  // far apart, close together: bfloat16 cannot tell them
    for (size_t k = 0; k < near.y.size(); ++k) near.y[k] = (k / 16 % 2 ? 1e3f : -1e3f) + 1e-3f * near.y[k];
    for (size_t k = 0; k < near.x.size(); ++k) near.x[k] = (k / 16 % 2 ? 1e3f : -1e3f) + 1e-3f * near.x[k];
    for (float& p : near.potential) p *= 1e-6f;
    solve_and_judge(near, way);
  }
}

// Points as users have them (benchmarks/clouds.py has the same kinds).
Problem cloud(const std::string& kind, int64_t n, int64_t m, int64_t d) {
  Problem q(1, n, m, d, false);
  std::mt19937 generator(3);
  if (kind == "clusters" || kind == "tight clusters") {
    const std::vector<float> centres = normal<float>(size_t(10 * d), 4);
    const float spread = kind == "clusters" ? 1.0f : 0.05f;
    for (std::vector<float>* points : {&q.x, &q.y})
      for (size_t i = 0; i < points->size(); i += size_t(d)) {
        const size_t centre = generator() % 10 * size_t(d);
        for (size_t k = 0; k < size_t(d); ++k) (*points)[i + k] = 3 * centres[centre + k] + spread * (*points)[i + k];
      }
  } else if (kind == "duplicates") {  // 64 of each, in random order
    const std::vector<float> y = q.y;
    for (size_t j = 0; j < size_t(m); ++j) {
      const size_t from = generator() % (size_t(m) / 64) * size_t(d);
      std::copy_n(y.begin() + int64_t(from), d, q.y.begin() + int64_t(j) * d);
    }
  } else if (kind == "offset") {
    for (std::vector<float>* points : {&q.x, &q.y})
      for (float& v : *points) v += 100;
  } else if (kind == "relu features") {
    const std::vector<float> weight = normal<float>(size_t(64 * d), 5);
    for (std::vector<float>* points : {&q.x, &q.y}) {
      const std::vector<float> z = normal<float>(points->size() / size_t(d) * 64, points == &q.x ? 6 : 7);
      for (size_t i = 0; i < points->size(); ++i) {
        float sum = 0;
        for (size_t k = 0; k < 64; ++k) sum += z[i / size_t(d) * 64 + k] * weight[k * size_t(d) + i % size_t(d)] / 8;
        (*points)[i] = std::max(0.0f, sum);
      }
    }
  }
  return q;
}

// How many of 128 rows each kind of data leaves to the second stage. None comes to the differences.
void test_shares() {
  struct Share {
    const char* kind;
    int64_t least, most;
  };
  for (const int capability : {80, 90})
    for (const Share& share : {Share{"gaussian", 0, 0}, Share{"clusters", 0, 0},
                               Share{"tight clusters", capability == 80 ? 0 : 40, 100},  // some rows find few neighbours
                               Share{"duplicates", 0, 0}, Share{"offset", 0, 0}, Share{"relu features", 0, 0}}) {
      device_on_host = {capability, 2};
      const Problem q = cloud(share.kind, 128, 2048, capability == 80 ? 128 : 32);
      const Result r = run(q, Way::products, Precision::exact);
      judge(q, r);
      std::printf("%s, sm_%d: of 128 rows %d see the second stage, %d differences\n", share.kind, capability,
                  int(r.left[0]), int(r.left[1]));
      CHECK(r.left[0] >= share.least && r.left[0] <= share.most && r.left[1] == 0);
    }
}

// A workspace that is too small for all at once: parts of a batch, or of the rows, one after the other, with the same bits.
void test_parts() {
  const auto bits_of_parts = [](const Problem& q) {
    Guarded<float> value(size_t(q.batch * q.n), -7.0f);
    Guarded<int64_t> index(size_t(q.batch * q.n), -7);
    const L2Argmin<float> p = q.call(value.data(), index.data());
    const int64_t bytes = l2::workspace_by_products(p, Precision::exact, 0);
    CHECK(bytes < l2::workspace_by_products(p, Precision::exact));
    Guarded<std::array<char, 256>> workspace(size_t(bytes) / 256, {char(0xff)});
    l2::by_products(p, Precision::exact, workspace.data(), nullptr, 0);
    CHECK(value.intact() && index.intact() && workspace.intact());
    const Result whole = run(q, Way::products, Precision::exact);
    for (size_t i = 0; i < whole.value.size(); ++i) CHECK(value[i] == whole.value[i] && index[i] == whole.index[i]);
  };
  device_on_host = {80, 2};
  bits_of_parts(Problem(5, 20, 130, 12, true));
  bits_of_parts(Problem(1, 600, 130, 12, true));
  // Small entries of a large batch, for which a whole workspace would be five times the points: the worst that was found.
  L2Argmin<float> many{};
  many.batch = 65536, many.n = 32, many.m = 64, many.d = 64, many.x_stride = 32 * 64, many.y_stride = 64 * 64;
  const int64_t points = 4 * many.batch * (many.n + many.m) * many.d;
  for (const int capability : {80, 90}) {
    device_on_host = {capability, 132};
    CHECK(l2::workspace_by_products(many, Precision::exact) <= points + l2::kFree);
  }
}

void test_not_finite() {
  for (const Way way : kWays)
    for (const int64_t d : {5, 20}) {
      if (way == Way::products && d <= l2::kLowDimension) continue;
      const auto at = [d](int64_t row, int64_t k) { return size_t(row * d + k); };
      Problem q(1, 40, 150, d, true);
      q.x[at(3, 2)] = kNan;
      q.x[at(5, 1)] = kInfinity;
      q.x[at(39, 0)] = -kInfinity;
      q.potential[10] = q.potential[70] = -kInfinity;
      solve_and_judge(q, way);
      q.potential[20] = q.potential[30] = kInfinity;
      const Result won = run_both_orders(q, way);
      CHECK(won.index[0] == 20 && won.value[0] == -kInfinity && won.index[3] == -1);
      CHECK(won.index[5] == -1);  // inf - inf
      q.potential[20] = q.potential[30] = 0;
      q.y[at(0, 3)] = kInfinity, q.y[at(149, 4)] = -kInfinity;
      solve_and_judge(q, way);
      std::fill(q.potential.begin(), q.potential.end(), -kInfinity);
      q.y[at(0, 3)] = q.y[at(149, 4)] = 0;
      q.x = normal<float>(40 * d, 5);
      const Result none = run_both_orders(q, way);
      for (const int64_t index : none.index) CHECK(index == 0);
      for (const float value : none.value) CHECK(value == kInfinity);
      q.potential[7] = 0;
      for (const int64_t index : run_both_orders(q, way).index) CHECK(index == 7);
      q.y[at(60, 1)] = kNan;  // in every row
      solve_and_judge(q, way);
      std::fill(q.y.begin() + 64 * d, q.y.begin() + 128 * d, kNan);
      solve_and_judge(q, way);
      q.y = normal<float>(150 * d, 6);
      q.potential[149] = kNan;
      solve_and_judge(q, way);
    }
}

void test_scales() {
  for (const Way way : kWays)
    for (const float scale : {1e18f, 1.5e18f, 1e-18f, 1e-22f, 1e-30f, 1e-42f}) {
      Problem q(1, 30, 50, 24, false);
      for (float& v : q.x) v *= scale;
      for (float& v : q.y) v *= scale;
      solve_and_judge(q, way);
    }
  Problem far(1, 30, 200, 16, false);  // a cloud far from the origin keeps its digits
  for (float& v : far.x) v = 1e3f + 1e-3f * v;
  for (float& v : far.y) v = 1e3f + 1e-3f * v;
  solve_and_judge(far, Way::products);
  // Every coordinate just above half a step of float16, so that products of x and y, both rounded up, are too large by
  // all that the bound allows for: the zeros, in a block of their own, are nearest.
  Problem wrong(1, 9, 256, 512, false);
  std::fill(wrong.x.begin(), wrong.x.end(), 1 + 0x1p-11f + 0x1p-16f);
  std::fill(wrong.y.begin(), wrong.y.end(), 0.0f);
  for (int64_t j = 0; j < 128; ++j)  // the signs keep the centre at the origin
    for (int64_t k = 0; k < 512; ++k) wrong.y[size_t(j * 512 + k)] = (j / 16 % 2 ? -2 : 2) * (1 + 0x1p-11f + 0x3p-16f);
  for (const int64_t index : run_both_orders(wrong, Way::products).index) CHECK(index == 128);
}

void test_edges_of_low_precision() {
  for (const Precision precision : {Precision::bf16, Precision::tf32}) {
    Problem q(1, 20, 150, 20, true);
    q.x[0] = kNan;
    q.potential[5] = -kInfinity;
    Result r = run_both_orders(q, Way::products, precision);
    CHECK(r.index[0] == -1 && std::isnan(r.value[0]) && r.index[1] >= 0);
    q.potential[140] = kInfinity;
    r = run_both_orders(q, Way::products, precision);
    CHECK(r.index[0] == -1 && r.index[1] == 140 && r.value[1] == -kInfinity);
    std::fill(q.potential.begin(), q.potential.end(), -kInfinity);
    q.x[0] = 0;
    r = run_both_orders(q, Way::products, precision);
    CHECK(r.index[0] == 0 && r.value[0] == kInfinity);
  }
}

void test_nothing() {
  const Problem q(1, 1, 3, 2, false);
  L2Argmin<float> p = q.call(nullptr, nullptr);
  p.n = 0;
  CHECK(l2_argmin_cuda_workspace(p, Precision::exact) == 0);
  l2_argmin_cuda(p, Precision::exact, nullptr, nullptr);
  p.n = 1, p.batch = 0;
  l2_argmin_cuda(p, Precision::exact, nullptr, nullptr);
}

}  // namespace

void test_cuda_l2_argmin() {
  const otk::Device before = otk::device_on_host;
  test_nothing();
  test_differences();
  for (const int capability : {80, 90})
    for (const int multiprocessors : {1, 3}) test_products_on({capability, multiprocessors});
  test_ways_agree();
  test_shares();
  test_parts();
  for (const int capability : {80, 90}) {
    otk::device_on_host = {capability, 2};
    test_ties_and_overflowing_lists();
    test_not_finite();
    test_scales();
    test_edges_of_low_precision();
  }
  otk::device_on_host = before;
}
