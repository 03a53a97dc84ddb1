// fit_transport's CUDA kernels on the host, in both thread orders, against Algorithm 1 in double; and their plans.
#include <cstring>

#include "check.h"
#include "common/cuda.h"
#include "fit_transport/cuda_adam.h"
#include "fit_transport/cuda_kernels.h"
#include "fit_transport/plan.h"
#include "transport.h"

namespace {

const otk::Adam kAdam{0.01, 0.5, 0.9, 1e-8};

struct State {
  std::vector<float> leaves, exp_avg, exp_avg_sq, cost;
  std::vector<int64_t> index;
  float step;
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {  // to the bit, NaN included
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

State run(const Transport& t, const State& start, const std::vector<float>& z_r, const std::vector<float>& z_g,
          const std::vector<float>& thresholds, const otk::Adam& adam, bool backward) {
  State s = start;
  Guarded<int64_t> index(t.batch * t.n, -7);
  Guarded<float> cost(t.batch * t.iters, -7.0f);
  Guarded<float> leaves(s.leaves.size(), -7.0f), exp_avg(s.leaves.size(), -7.0f), exp_avg_sq(s.leaves.size(), -7.0f);
  std::copy(s.leaves.begin(), s.leaves.end(), leaves.data());
  std::copy(s.exp_avg.begin(), s.exp_avg.end(), exp_avg.data());
  std::copy(s.exp_avg_sq.begin(), s.exp_avg_sq.end(), exp_avg_sq.data());
  const otk::FitTransport<float> p{z_r.data(),
                                   z_g.data(),
                                   thresholds.data(),
                                   leaves.data(),
                                   exp_avg.data(),
                                   exp_avg_sq.data(),
                                   &s.step,
                                   index.data(),
                                   cost.data(),
                                   t.batch,
                                   t.n,
                                   t.m,
                                   t.d,
                                   t.trees,
                                   t.depth,
                                   t.d_out,
                                   t.iters,
                                   t.n * t.d_out,
                                   t.m * t.d,
                                   t.trees * t.nodes(),
                                   t.literal,
                                   adam};
  Guarded<unsigned char> workspace(otk::fit_transport_cuda_workspace(p), 0xff);
  host_cuda::backward = backward;
  otk::fit_transport_cuda(p, workspace.data(), nullptr);
  host_cuda::backward = false;
  CHECK(index.intact() && cost.intact() && leaves.intact() && exp_avg.intact() && exp_avg_sq.intact() &&
        workspace.intact());
  const auto copy = [](const auto& from, auto& to) {
    for (size_t k = 0; k < to.size(); ++k) to[k] = from[k];
  };
  s.index.resize(t.batch * t.n), s.cost.resize(t.batch * t.iters);
  copy(leaves, s.leaves), copy(exp_avg, s.exp_avg), copy(exp_avg_sq, s.exp_avg_sq), copy(cost, s.cost),
      copy(index, s.index);
  return s;
}

std::vector<float> narrow(const std::vector<double>& values) { return {values.begin(), values.end()}; }

void compare(int64_t batch, int64_t n, int64_t m, int64_t d, int64_t trees, int64_t depth, int64_t d_out, bool literal,
             bool with_nan = false, const otk::Adam& adam = kAdam) {
  Transport t{batch, n, m, d, trees, depth, d_out, 3, literal, {}, {}, {}, {}, {}, {}, {}, {}};
  const auto draw = [](int64_t count, unsigned seed) {
    const auto values = normal<float>(count, seed);
    return std::vector<double>(values.begin(), values.end());
  };
  t.z_r = draw(batch * n * d_out, 1), t.z_g = draw(batch * m * d, 2), t.thresholds = draw(batch * trees * t.nodes(), 3);
  t.leaves = draw(batch * t.all() * d_out, 4), t.exp_avg = draw(t.leaves.size(), 5),
  t.exp_avg_sq = draw(t.leaves.size(), 6);
  for (double& v : t.exp_avg_sq) v = double(float(v * v + 0.1));  // Adam divides by its root: kept away from zero
  if (with_nan) t.z_r[d_out / 2] = std::nan("");
  const State start{narrow(t.leaves), narrow(t.exp_avg), narrow(t.exp_avg_sq), {}, {}, t.step};
  const auto z_r = narrow(t.z_r), z_g = narrow(t.z_g), thresholds = narrow(t.thresholds);
  const State s = run(t, start, z_r, z_g, thresholds, adam, false),
              reversed = run(t, start, z_r, z_g, thresholds, adam, true);
  CHECK(same(s.leaves, reversed.leaves) && same(s.exp_avg, reversed.exp_avg) && same(s.exp_avg_sq, reversed.exp_avg_sq));
  CHECK(same(s.cost, reversed.cost) && s.index == reversed.index && s.step == t.step + 3);
  // The first batch entry's leaves are NaN, the others right.
  for (size_t k = 0; with_nan && k < t.leaves.size() / size_t(batch); ++k)
    CHECK(std::isnan(s.leaves[k]) && std::isnan(s.exp_avg[k]) && std::isnan(s.exp_avg_sq[k]));
  if (with_nan) CHECK(std::isnan(s.cost[0]) && std::isnan(s.cost[2]) && s.index[0] == -1);
  t.run(adam);
  // Sums of up to 500 terms of order 1, three steps: 1e-4 in float.
  const auto close = [](double a, double b) {
    return std::isnan(b) ? std::isnan(a) : std::abs(a - b) <= 1e-4 * (1 + std::abs(b));
  };
  for (size_t k = 0; k < t.index.size(); ++k) CHECK(s.index[k] == t.index[k]);
  for (size_t k = 0; k < t.cost.size(); ++k) CHECK(close(s.cost[k], t.cost[k]));
  for (size_t k = 0; k < t.leaves.size(); ++k) {
    CHECK(close(s.leaves[k], t.leaves[k]));
    CHECK(close(s.exp_avg[k], t.exp_avg[k]));
    CHECK(close(s.exp_avg_sq[k], t.exp_avg_sq[k]));
  }
}

// Equal points: the lowest wins, among the points of a lane and among lanes.
void ties() {
  const Transport t{1, 40, 70, 3, 2, 2, 20, 2, false, {}, {}, {}, {}, {}, {}, {}, {}};
  const auto size = size_t(t.all() * t.d_out);
  const State start{normal<float>(size, 4), std::vector<float>(size), std::vector<float>(size), {}, {}, 0.0f};
  std::vector<float> z_g(size_t(t.m * t.d));
  for (int64_t k = 0; k < t.m * t.d; ++k) z_g[size_t(k)] = float(k % t.d);
  for (const bool backward : {false, true}) {
    const State s = run(t, start, normal<float>(size_t(t.n * t.d_out), 1), z_g, normal<float>(6, 3), kAdam, backward);
    for (const int64_t index : s.index) CHECK(index == 0);
  }
}

otk::FitTransport<float> sized(int64_t batch, int64_t n, int64_t m, int64_t trees, int64_t depth, int64_t d_out) {
  otk::FitTransport<float> p{};
  p.batch = batch, p.n = n, p.m = m, p.d = d_out, p.trees = trees, p.depth = depth, p.d_out = d_out, p.iters = 1;
  return p;
}

// Adam that divides by the root alone: columns and leaves that only pad a tile must not divide 0 by 0.
void compare_without_eps(bool literal) {
  const otk::Adam adam{0.01, 0.5, 0.9, 0.0};
  for (const int64_t d_out : {1, 2, 5, 37}) compare(1, 9, 9, 3, 3, 2, d_out, literal, false, adam);
  compare(1, 9, 9, 3, 5, 0, 18, literal, false, adam);  // five leaves
}

// A leaf whose gradient has been zero from the start is torch's 0 / 0 where eps is 0; its neighbours move.
void zero_gradient_without_eps() {
  const Transport t{1, 1, 1, 1, 1, 0, 3, 1, false, {}, {}, {}, {}, {}, {}, {}, {}};
  const std::vector<float> zeros(3, 0.0f), z_r{1.0f, 5.0f, 3.0f};
  const State start{{1.0f, 2.0f, 4.0f}, zeros, zeros, {}, {}, 0.0f};
  for (const bool backward : {false, true}) {
    const State s = run(t, start, z_r, {0.0f}, {}, {0.5, 0.5, 0.9, 0.0}, backward);
    CHECK(std::isnan(s.leaves[0]) && s.exp_avg[0] == 0 && s.exp_avg_sq[0] == 0 && s.index[0] == 0 && s.cost[0] == 10);
    // the first step is lr times the gradient's sign, up to the rounding of Adam's constants
    CHECK(std::abs(s.leaves[1] - 2.5f) < 1e-6f && std::abs(s.leaves[2] - 3.5f) < 1e-6f);
  }
}

// cuda_adam.h's division: every quotient of 24-bit numbers X / D that is so close to the middle of two floats that a value
// 2^-46 off could round to the wrong one, for a sample of D (for every D it takes seconds, and none is wrong either).
// A middle is M / 2^bits, M odd, so X 2^bits = M D + c with 0 < |c| < 8: one or a few M solve it for each c.
void test_division() {
  const auto check = [](uint64_t x, uint32_t d) {
    const float divisor = float(d) * 0x1p-24f, number = float(x) * 0x1p-30f;
    CHECK(otk::divide(number, divisor, 1.0f / divisor) == number / divisor);
  };
  int64_t close = 0;
  for (uint32_t d = (1u << 23) + 1; d < 1u << 24; d += 97) {
    const int twos = __builtin_ctz(d);
    uint32_t inverse = d >> twos;
    for (int k = 0; k < 4; ++k) inverse *= 2 - (d >> twos) * inverse;  // of the odd part, modulo 2^32
    for (const int bits : {24, 25})
      for (int c = -7; c < 8; ++c)
        if (c != 0 && __builtin_ctz(unsigned(c)) == twos) {
          const uint32_t period = 1u << (bits - twos), least = uint32_t(-(c >> twos)) * inverse & (period - 1);
          for (uint64_t m = least; m < uint64_t(1) << 25; m += period) {
            const uint64_t x = uint64_t(int64_t(m * d) + c) >> bits;
            if (m < uint64_t(1) << 24 || x < uint64_t(1) << 23 || x >= uint64_t(1) << 24) continue;
            check(x, d), ++close;
          }
        }
    check(1u << 23, d), check((1u << 24) - 1, d), check(d, d);
  }
  CHECK(close > 100000);
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(otk::divide(0.0f, 0.3f, 1 / 0.3f) == 0 && otk::divide(infinity, 0.3f, 1 / 0.3f) == infinity);
  CHECK(std::isnan(otk::divide(std::nanf(""), 0.3f, 1 / 0.3f)));
}

void test_choices() {
  using otk::FitChoice;
  const auto chosen = [](const otk::FitTransport<float>& p, FitChoice::Kernel kernel, int64_t blocks) {
    const FitChoice choice = otk::fit_transport_choice(p, otk::device_on_host);
    return choice.kernel == kernel && choice.blocks == blocks;
  };
  const auto paper = sized(1, 64, 64, 18, 3, 128), toy = sized(1, 100, 100, 16, 3, 2);
  otk::device_on_host = {90, 132, 227 << 10};
  CHECK(chosen(paper, FitChoice::kCluster, 8) && chosen(toy, FitChoice::kCluster, 1));
  CHECK(chosen(sized(1, 64, 64, 18, 3, 130), FitChoice::kCluster, 8));  // 16 blocks are no portable cluster
  CHECK(chosen(sized(1, 200, 200, 18, 3, 128), FitChoice::kCooperative, 16));  // the distances do not fit in shared memory
  CHECK(chosen(sized(1, 700, 700, 18, 3, 128), FitChoice::kGrid, 132));
  CHECK(chosen(sized(1, 1 << 20, 1 << 20, 18, 3, 128), FitChoice::kGrid, 132));
  otk::largest_cluster_on_host = 4;  // the device cannot place eight blocks in one cluster
  CHECK(chosen(paper, FitChoice::kCluster, 4) && chosen(toy, FitChoice::kCluster, 1));
  otk::largest_cluster_on_host = 0;
  CHECK(chosen(paper, FitChoice::kCooperative, 8) && chosen(toy, FitChoice::kCluster, 1));
  CHECK(chosen(sized(17, 64, 64, 18, 3, 128), FitChoice::kGrid, 132));  // 136 blocks do not run at once
  otk::resident_blocks_on_host = 2;
  CHECK(chosen(sized(17, 64, 64, 18, 3, 128), FitChoice::kCooperative, 8));
  otk::resident_blocks_on_host = 0;
  CHECK(chosen(paper, FitChoice::kGrid, 132));
  otk::largest_cluster_on_host = 16, otk::resident_blocks_on_host = 1;
  for (const otk::Device device : {otk::Device{80, 108, 163 << 10}, {89, 60, 99 << 10}}) {
    otk::device_on_host = device;
    CHECK(chosen(paper, FitChoice::kCooperative, 8));
    CHECK(chosen(sized(1, 64, 64, 16, 3, 2), FitChoice::kCluster, 1));  // one block needs no cluster
  }
  CHECK(chosen(toy, FitChoice::kCooperative, 1));  // whose distances lie in device memory
  CHECK(chosen(sized(1, 64, 64, 24, 3, 128), FitChoice::kCooperative, 16));  // fewer columns a block where memory is short
}

void test_plans() {
  for (const int64_t across : {1, 2, 3, 4, 7, 16})
    for (const int64_t rows : {1, 2, 5, 8}) {  // every tile once; four neighbours share two columns and two rows
      std::vector<int> seen(size_t(across * (rows + 1)));
      const otk::TileGrid tiles(across);
      for (int t = 0; t < tiles.count(rows); ++t) {
        const otk::TilePlace place = tiles.place(t);
        ++seen[size_t(place.row * across + place.column)];
        if (across % 2 == 0) CHECK(tiles.place(t ^ 1).row == place.row && tiles.place(t ^ 2).column == place.column);
      }
      for (size_t k = 0; k < seen.size(); ++k) CHECK(seen[k] == (int64_t(k) < tiles.count(rows)));
    }
  for (const int64_t divisor : {1, 2, 3, 7, 675, 1000, 4095})
    for (const int64_t number : {int64_t(0), divisor - 1, divisor, 1000 * divisor - 1, ((int64_t(1) << 31) - 1) / divisor})
      if (number * divisor < int64_t(1) << 31) CHECK(otk::Divider(divisor)(int(number)) == number / divisor);
  const otk::SlicePlan paper(sized(1, 64, 64, 18, 3, 128), 8, true);
  CHECK(paper.width == 16 && paper.threads == 384 && paper.update_tasks == 384 && paper.transform_tasks == 256);
  for (const int64_t n : {1, 5, 64, 100})
    for (const int64_t d_out : {1, 2, 37, 128})
      for (const int blocks : {1, 2, 8, 16})
        for (const bool in_cluster : {false, true}) {
          const otk::SlicePlan plan(sized(1, n, n + 3, 3, 2, d_out), blocks, in_cluster);
          CHECK(plan.width % 4 == 0 && plan.width * blocks >= d_out && plan.rows * blocks >= n);
          CHECK(plan.threads % 32 == 0 && plan.threads <= otk::SlicePlan::kMostThreads && plan.update_tasks % 32 == 0);
          CHECK(plan.point_stride % 8 == 4 && plan.point_stride >= n + 3 && plan.real_stride >= n);
          const int64_t places[] = {plan.mu,  plan.leaves, plan.moments, plan.f,     plan.shares,
                                    plan.z_r, plan.index,  plan.pairs,   plan.small, plan.inbox};
          for (int k = 0; k < 9; ++k) CHECK(places[k] % 4 == 0 && places[k] < places[k + 1]);  // float4s, in order
          CHECK(plan.pull == plan.shares && plan.z_r - plan.shares >= 4 * plan.width * plan.point_stride);
          CHECK(plan.floats - plan.inbox == (in_cluster ? blocks * plan.rows * plan.point_stride : 0));
          CHECK(plan.shared_floats % 4 == 0 && plan.shared_inbox % 4 == 0);
        }
  const otk::GridPlan large(sized(3, 1 << 20, 1 << 20, 18, 3, 128), 132);
  CHECK(large.parts == 1 && large.f - large.mu == (int64_t(3) << 20) * 144 * 4);  // past 2^31 bytes
  CHECK(otk::GridPlan(sized(1, 64, 4096, 18, 3, 128), 132).parts == 64);
  CHECK(otk::GridPlan(sized(1, 64, 128, 18, 3, 128), 132).parts == 2);
}

}  // namespace

void test_cuda_fit_transport() {
  test_plans();
  test_division();
  test_choices();
  otk::device_on_host = {90, 4, 227 << 10};
  for (const bool literal : {false, true}) {
    compare(1, 1, 1, 1, 1, 0, 1, literal);
    compare(2, 9, 9, 4, 3, 2, 5, literal);
    compare(1, 70, 70, 3, 2, 4, 37, literal);  // four blocks, tiles and groups that do not fill
    compare(1, 33, 33, 10, 3, 3, 130, literal);  // eight blocks, the last with columns to spare
    compare(2, 12, 12, 4, 2, 2, 40, literal, true);
    compare_without_eps(literal);
  }
  zero_gradient_without_eps();
  ties();
  compare(1, 40, 21, 3, 5, 1, 20, false);
  compare(1, 21, 90, 3, 1, 6, 20, false);
  otk::largest_cluster_on_host = 2;  // fewer blocks, with more columns each
  compare(1, 33, 33, 10, 3, 3, 70, false);
  otk::device_on_host = {80, 16, 60 << 10};  // blocks that meet in device memory
  compare(2, 30, 30, 5, 3, 3, 120, false);
  for (const bool literal : {false, true}) compare(1, 24, 24, 4, 2, 2, 120, literal, true);
  compare(1, 40, 21, 3, 5, 1, 150, false);
  otk::largest_cluster_on_host = 16;
  otk::device_on_host = {80, 3, 1 << 10};  // nothing fits: the grid
  for (const bool literal : {false, true}) {
    compare(1, 1, 1, 1, 1, 0, 1, literal);
    compare(2, 70, 70, 4, 3, 2, 5, literal);
    compare(1, 33, 33, 10, 3, 5, 70, literal);
    compare(2, 12, 12, 4, 2, 2, 40, literal, true);
    compare_without_eps(literal);
  }
  zero_gradient_without_eps();
  ties();
  compare(1, 20, 150, 3, 2, 3, 9, false);  // the points in several parts
  compare(1, 150, 20, 3, 2, 3, 9, false);
  otk::device_on_host = {};
}
