// soft_forest's CUDA kernels in the emulator, against sums over paths in double within the bounds of soft_forest.h.
#include <cmath>
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "check.h"
#include "common/cuda.h"
#include "soft_forest/cuda_partials.h"
#include "soft_forest/soft_forest.h"

namespace {

struct Shape {
  int64_t batch, n, d, trees, depth, d_out;
  bool shared = false;    // one forest for the whole batch
  int64_t offset = 0;     // floats that the inputs are moved by, to spoil their alignment
  double spread = 1;      // of the logits
  int64_t nodes() const { return (int64_t(1) << depth) - 1; }
  int64_t leaves() const { return int64_t(1) << depth; }
};

struct Input {
  std::vector<float> z, thresholds, leaves, grad_out;
  explicit Input(const Shape& s)
      : z(normal<float>(size_t(s.offset + s.batch * s.n * s.d), 1)),
        thresholds(normal<float>(size_t(s.offset + forests(s) * s.trees * s.nodes()), 2)),
        leaves(normal<float>(size_t(s.offset + forests(s) * s.trees * s.leaves() * s.d_out), 3)),
        grad_out(normal<float>(size_t(s.offset + s.batch * s.n * s.d_out), 4)) {
    for (float& v : z) v *= float(s.spread);
    for (float& v : thresholds) v *= float(s.spread);
  }
  static int64_t forests(const Shape& s) { return s.shared ? 1 : s.batch; }
  otk::SoftForest<float> forest(const Shape& s) const {
    return {z.data() + s.offset,
            thresholds.data() + s.offset,
            leaves.data() + s.offset,
            s.batch,
            s.n,
            s.d,
            s.trees,
            s.depth,
            s.d_out,
            s.n * s.d,
            s.shared ? 0 : s.trees * s.nodes(),
            s.shared ? 0 : s.trees * s.leaves() * s.d_out};
  }
};

// In double: each result and the sum of the magnitudes it is made of.
struct Exact {
  std::vector<double> out, out_size, grad_z, z_size, grad_thresholds, thresholds_size, grad_leaves, leaves_size;
  double logit = 0;  // the largest

  Exact(const Shape& s, const Input& input) {
    const auto f = input.forest(s);
    const size_t rows = size_t(s.batch * s.n), k = size_t(s.batch * s.trees);
    for (auto* v : {&out, &out_size}) v->assign(rows * size_t(s.d_out), 0);
    for (auto* v : {&grad_z, &z_size}) v->assign(rows * size_t(s.d), 0);
    for (auto* v : {&grad_thresholds, &thresholds_size}) v->assign(k * size_t(s.nodes()), 0);
    for (auto* v : {&grad_leaves, &leaves_size}) v->assign(k * size_t(s.leaves() * s.d_out), 0);
    for (int64_t entry = 0; entry < s.batch; ++entry)
      for (int64_t i = 0; i < s.n; ++i)
        for (int64_t t = 0; t < s.trees; ++t) tree(s, f, input.grad_out.data() + s.offset, entry, i, t);
  }

  void tree(const Shape& s, const otk::SoftForest<float>& f, const float* grad_out, int64_t entry, int64_t i, int64_t t) {
    const float* z = f.z + entry * f.z_stride + i * s.d;
    const float* thresholds = f.thresholds + entry * f.thresholds_stride + t * s.nodes();
    const float* leaves = f.leaves + entry * f.leaves_stride + t * s.leaves() * s.d_out;
    const int64_t row = entry * s.n + i, first = entry * s.trees + t, count = s.leaves();
    std::vector<double> reach(size_t(2 * count), 1), value(size_t(2 * count)), size(value);  // heap order from 1
    const auto share = [&](int64_t node, bool right) {
      const double x = double(z[(t * s.nodes() + node - 1) % s.d]) - double(thresholds[node - 1]);
      logit = std::max(logit, std::abs(x));
      return 1 / (1 + std::exp(right ? x : -x));
    };
    for (int64_t node = 2; node < 2 * count; ++node)
      reach[size_t(node)] = reach[size_t(node / 2)] * share(node / 2, node % 2);
    for (int64_t l = 0; l < count; ++l)
      for (int64_t c = 0; c < s.d_out; ++c) {
        const double mu = reach[size_t(count + l)] / double(s.trees);
        const double leaf = leaves[l * s.d_out + c], g = grad_out[row * s.d_out + c];
        out[size_t(row * s.d_out + c)] += mu * leaf;
        out_size[size_t(row * s.d_out + c)] += std::abs(mu * leaf);
        grad_leaves[size_t((first * count + l) * s.d_out + c)] += mu * g;
        leaves_size[size_t((first * count + l) * s.d_out + c)] += std::abs(mu * g);
        value[size_t(count + l)] += g * leaf / double(s.trees);
        size[size_t(count + l)] += std::abs(g * leaf) / double(s.trees);
      }
    for (int64_t node = count - 1; node >= 1; --node) {
      const double p = share(node, false), q = share(node, true);
      const size_t at = size_t(node), left = 2 * at, feature = size_t(row * s.d + (t * s.nodes() + node - 1) % s.d);
      const size_t threshold = size_t(first * s.nodes() + node - 1);
      const double grad = reach[at] * p * q * (value[left] - value[left + 1]);
      const double magnitude = reach[at] * p * q * (size[left] + size[left + 1]);
      grad_z[feature] += grad, z_size[feature] += magnitude;
      grad_thresholds[threshold] -= grad, thresholds_size[threshold] += magnitude;
      value[at] = p * value[left] + q * value[left + 1];
      size[at] = p * size[left] + q * size[left + 1];
    }
  }
};

// Errors at most `bound` 2^-24 of the magnitudes; products of weights below 1e-30 may underflow.
void within(const Shape& s, const char* what, const Guarded<float>& got, const std::vector<double>& exact,
            const std::vector<double>& size, double bound) {
  double worst = 0;
  for (size_t k = 0; k < exact.size(); ++k) {
    const double error = std::abs(got[k] - exact[k]) / (size[k] * 0x1p-24 + 1e-30);
    worst = error <= worst ? worst : error;  // NaN stays
    if (std::isnan(error)) break;
  }
  if (worst <= bound) return;
  std::printf("%s of z [%d, %d, %d], %d trees of depth %d, %d outputs: error %g of bound %g\n", what, int(s.batch),
              int(s.n), int(s.d), int(s.trees), int(s.depth), int(s.d_out), worst, bound);
  ++failures;
}

void same(const Guarded<float>& a, const Guarded<float>& b, size_t size) {
  bool equal = a.intact() && b.intact();
  for (size_t k = 0; k < size; ++k) {
    const float x = a[k], y = b[k];
    equal &= std::memcmp(&x, &y, sizeof x) == 0;
  }
  CHECK(equal);
}

struct Device {
  otk::Device before = otk::device_on_host;
  Device(int capability, int multiprocessors) { otk::device_on_host = {capability, multiprocessors}; }
  ~Device() { otk::device_on_host = before; }
};

// In 2^-24, as all bounds here.
double routing_bound(const Shape& s, const Exact& exact) { return double(s.depth) * (exact.logit + 10); }

void forward(const Shape& s, const Input& input, const Exact& exact) {
  const size_t size = exact.out.size();
  Guarded<float> out(size, -7), again(size, -7);
  const auto forest = input.forest(s);
  const size_t bytes = size_t(otk::soft_forest_cuda_workspace(forest));
  for (const bool backward : {false, true}) {
    host_cuda::backward = backward;
    std::vector<float4> workspace(bytes / sizeof(float4) + 1, float4{NAN, NAN, NAN, NAN});
    otk::soft_forest_cuda(forest, backward ? again.data() : out.data(), workspace.data(), nullptr);
  }
  same(out, again, size);
  const double k = double(s.trees * s.leaves());
  within(s, "out", out, exact.out, exact.out_size, routing_bound(s, exact) + 8 * k + 92);
}

void backward(const Shape& s, const Input& input, const Exact& exact) {
  const auto forest = input.forest(s);
  Guarded<float> grad_z(exact.grad_z.size(), -7), grad_thresholds(exact.grad_thresholds.size(), -7);
  Guarded<float> grad_leaves(exact.grad_leaves.size(), -7);
  Guarded<float> z_again(grad_z), thresholds_again(grad_thresholds), leaves_again(grad_leaves);
  const size_t bytes = size_t(otk::soft_forest_backward_cuda_workspace(forest));
  for (const bool backward : {false, true}) {
    host_cuda::backward = backward;
    std::vector<float4> workspace(bytes / sizeof(float4) + 1, float4{NAN, NAN, NAN, NAN});
    otk::soft_forest_backward_cuda(forest, input.grad_out.data() + s.offset, (backward ? z_again : grad_z).data(),
                                   (backward ? thresholds_again : grad_thresholds).data(),
                                   (backward ? leaves_again : grad_leaves).data(), workspace.data(), nullptr);
  }
  same(grad_z, z_again, exact.grad_z.size());
  same(grad_thresholds, thresholds_again, exact.grad_thresholds.size());
  same(grad_leaves, leaves_again, exact.grad_leaves.size());
  const double groups = double(s.leaves()) / 128, nodes = double(s.trees * s.nodes()) / double(s.d) + 1;
  const double node = double(s.depth + 2) * (exact.logit + 12) + 8 * double(s.d_out) + 120 + groups;
  const double rows = double(s.n) + 64;
  within(s, "grad_z", grad_z, exact.grad_z, exact.z_size, node + nodes + groups);
  within(s, "grad_thresholds", grad_thresholds, exact.grad_thresholds, exact.thresholds_size, node + rows + groups);
  within(s, "grad_leaves", grad_leaves, exact.grad_leaves, exact.leaves_size, routing_bound(s, exact) + 9 * rows + 92);
}

void compare(const Shape& s) {
  const Input input(s);
  const Exact exact(s, input);
  forward(s, input, exact);
  backward(s, input, exact);
}

// tf32.h's bound of one product, 28 2^-24, where the most is lost (all bits after the first are ones) and elsewhere.
void splits_products() {
  const std::vector<float> a = normal<float>(1000, 5), b = normal<float>(1000, 6);
  double worst = 0;
  for (size_t k = 0; k <= a.size(); ++k) {
    const float pair[2] = {k == a.size() ? 0x1.003ffep0f : a[k], k == a.size() ? -0x1.003ffep5f : b[k]};
    const otk::forest::Split<2> s = otk::forest::split(pair);
    const auto factor = [](const uint32_t& word) {
      return double(host_cuda::factor_at(otk::Tf32{}, reinterpret_cast<const unsigned char*>(&word)));
    };
    const double hi[2] = {factor(s.hi[0]), factor(s.hi[1])}, lo[2] = {factor(s.lo[0]), factor(s.lo[1])};
    const double exact = double(pair[0]) * double(pair[1]), got = hi[0] * hi[1] + hi[0] * lo[1] + lo[0] * hi[1];
    worst = std::max(worst, std::abs(got - exact) / std::abs(exact));
  }
  CHECK(worst <= 28 * 0x1p-24 && worst > 20 * 0x1p-24);
}

otk::forest::Partials plan(const Shape& s, int rows, int multiprocessors) {
  const otk::SoftForest<float> f{nullptr, nullptr, nullptr, s.batch, s.n, s.d, s.trees, s.depth, s.d_out, 0, 0, 0};
  return {f, otk::forest::Groups(otk::forest::Trees(f)), rows, s.d, multiprocessors};
}

// How the backward kernels share out their work: every multiprocessor has some wherever there is enough, at nearly the
// least number of steps that any plan could take, and the partial sums stay small.
void plans_fill_the_device(const Shape& s, int rows, int multiprocessors) {
  const otk::forest::Partials p = plan(s, rows, multiprocessors);
  const int64_t constant = p.kBytes * multiprocessors, one = 4 * s.batch * s.trees * s.leaves();
  const int64_t work = int64_t(p.tiles) * p.groups,
                steps = otk::forest::divide_up(p.tiles, p.parts) * otk::forest::divide_up(p.groups, p.ranges);
  const int64_t here = std::max<int64_t>(1, multiprocessors / s.batch);  // multiprocessors of an entry
  bool good = p.parts <= p.tiles && p.ranges <= p.groups && p.parts * p.ranges <= here;
  good &= p.pass == p.tiles || (p.ranges > 1 && p.pass >= p.parts && p.pass % p.parts == 0);
  good &= p.leaf_bytes() <= std::max(constant, one * (p.width + 2)) && p.row_bytes(s.d) <= constant + 16;
  if (work < here)
    good &= p.parts * p.ranges == work;
  else
    good &= 2 * p.parts * p.ranges > here && double(work) > (work < 8 * here ? 0.5 : 0.85) * double(steps * here);
  if (good) return;
  std::printf(
      "z [%d, %d, %d], %d trees of depth %d, %d outputs on %d multiprocessors: %d tiles, %d groups, %d parts, "
      "%d ranges, %d tiles in a pass\n",
      int(s.batch), int(s.n), int(s.d), int(s.trees), int(s.depth), int(s.d_out), multiprocessors, p.tiles, p.groups,
      p.parts, p.ranges, p.pass);
  ++failures;
}

void plans() {
  for (const int multiprocessors : {84, 108, 132, 148})
    for (const int rows : {32, 64})
      for (const int64_t batch : {1, 3, 100, 300})
        for (const int64_t n : {1, 64, 500, 4097, 65536, 1 << 22})
          for (const int64_t d_out : {1, 130}) {
            plans_fill_the_device({batch, n, 128, 18, 3, d_out}, rows, multiprocessors);
            plans_fill_the_device({batch, n, 128, 1, 16, d_out}, rows, multiprocessors);
            plans_fill_the_device({batch, n, 128, 16, 16, d_out}, rows, multiprocessors);
            plans_fill_the_device({batch, n, 128, 1 << 14, 6, d_out}, rows, multiprocessors);
          }
  const auto blocks = [](const Shape& s) { return int(plan(s, 64, 132).blocks()); };
  CHECK(blocks({1, 65536, 128, 1, 16, 128}) == 132);
  CHECK(blocks({1, 65536, 128, 16, 16, 128}) == 132);
  CHECK(blocks({1, 1, 128, 16, 16, 128}) == 132);
}

void refuses_too_many_leaves() {
  std::string message;
  try {
    otk::soft_forest_cuda({nullptr, nullptr, nullptr, 1, 1, 1, 1 << 20, 16, 1, 0, 0, 0}, nullptr, nullptr, nullptr);
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  CHECK(message == "soft_forest (cuda) z [1, 1, 1], leaves [1, 1048576, 2^16, 1]: trees must have 1 to 2^30 leaves in all");
}

// Blocks that share a row's groups: the ranges' sums, in passes over the rows.
void split_groups() {
  const auto on = [](int multiprocessors, const Shape& s, int rows, int parts, int ranges, int pass) {
    const Device device(90, multiprocessors);
    const otk::forest::Partials p = plan(s, rows, multiprocessors);
    CHECK(p.parts == parts && p.ranges == ranges && p.pass == pass);
    compare(s);
  };
  on(6, {1, 5, 12, 2, 9, 4}, 32, 1, 6, 1);         // 8 groups, unevenly
  on(4, {1, 40, 12, 1, 8, 3}, 32, 2, 2, 2);        // parts of the rows as well
  on(4, {2, 130, 1000, 1, 8, 4}, 64, 1, 2, 2);     // two passes of each of two entries
  on(4, {1, 9, 20, 6, 5, 130}, 32, 1, 2, 1);       // sums in the workspace
  on(5, {1, 3, 7, 1, 11, 1}, 32, 1, 5, 1);
}

// The forward's blocks share the leaves as well: sums of each range of them in the workspace, or none.
void split_leaves() {
  const auto on = [](int multiprocessors, const Shape& s, int64_t ranges) {
    const Device device(90, multiprocessors);
    const Input input(s);
    CHECK(otk::soft_forest_cuda_workspace(input.forest(s)) == ranges * 4 * s.batch * s.n * s.d_out);
    forward(s, input, Exact(s, input));
  };
  on(5, {1, 20, 12, 1, 9, 7}, 5);           // 11 pieces of 48 leaves, unevenly
  on(7, {2, 40, 300, 2, 8, 130}, 0);        // two entries of two blocks of outputs
  on(9, {2, 40, 300, 2, 8, 130}, 2);
  on(3, {1, 70, 12, 1, 9, 3}, 0);           // 70 rows make two blocks
  on(4, {1, 70, 12, 1, 9, 3}, 2);
}

}  // namespace

void test_cuda_soft_forest() {
  refuses_too_many_leaves();
  splits_products();
  plans();
  for (const int capability : {80, 86, 90}) {
    const Device device(capability, 2);
    compare({1, 1, 1, 1, 0, 1});
    compare({1, 3, 2, 1, 1, 3});
    compare({1, 0, 4, 2, 3, 4});
    compare({1, 5, 3, 2, 1, 2});
    compare({3, 21, 9, 5, 2, 7});
    compare({1, 37, 2, 16, 3, 2});
    compare({2, 18, 11, 3, 4, 33, true});
    compare({2, 33, 6, 2, 3, 4, true});
    compare({2, 9, 20, 4, 5, 130, false, 1});
    compare({1, 33, 300, 3, 7, 12});
    compare({1, 17, 12, 2, 9, 4});
    compare({1, 17, 8, 18, 3, 8, false, 0, 30});  // saturated shares
  }
  const Device device(90, 2);
  compare({1, 130, 128, 18, 3, 128});
  compare({1, 450, 10, 3, 3, 16});  // four tiles a block: every buffer in every role
  split_groups();
  split_leaves();
}
