// The CUDA double backward of soft_forest in the emulator, against double_backward.h's formulas in double within their bounds.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "check.h"
#include "common/cuda.h"
#include "soft_forest/double_backward.h"

namespace {

struct Shape {
  int64_t batch, n, d, trees, depth, d_out;
  bool shared = false;  // one forest for the whole batch
  int64_t offset = 0;  // floats that the inputs are moved by, to spoil their alignment
  double spread = 1;  // of the logits
  int64_t nodes() const { return (int64_t(1) << depth) - 1; }
  int64_t leaves() const { return int64_t(1) << depth; }
  size_t rows(int64_t width) const { return size_t(batch * n * width); }
  size_t of_nodes() const { return size_t(batch * trees * nodes()); }
  size_t of_leaves() const { return size_t(batch * trees * leaves() * d_out); }
};

using Floats = std::vector<float>;

struct Input {
  Floats z, thresholds, leaves, grad_out, dz, dthresholds, dleaves;
  explicit Input(const Shape& s) {
    unsigned seed = 0;
    const auto draw = [&](size_t size) { return normal<float>(size + size_t(s.offset), ++seed); };
    z = draw(s.rows(s.d)), thresholds = draw(s.of_nodes()), leaves = draw(s.of_leaves());
    grad_out = draw(s.rows(s.d_out)), dz = draw(s.rows(s.d));
    dthresholds = draw(s.of_nodes()), dleaves = draw(s.of_leaves());
    for (Floats* logits : {&z, &thresholds})
      for (float& v : *logits) v *= float(s.spread);
  }
  otk::SoftForest<float> forest(const Shape& s) const {
    const float *z_at = z.data() + s.offset, *threshold_at = thresholds.data() + s.offset;
    return {z_at,
            threshold_at,
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

// A result and the sum of the magnitudes that its bound refers to.
struct Sized {
  std::vector<double> exact, size;
  explicit Sized(size_t count) : exact(count, 0), size(count, 0) {}
  void add(size_t at, double value, double magnitude) { exact[at] += value, size[at] += magnitude; }
};

// Formulas and magnitudes of double_backward.h, tree by tree.
struct Exact {
  Sized grad_grad_out, grad_z, grad_thresholds, grad_leaves;
  double logit = 0;  // the largest

  Exact(const Shape& s, const Input& input, bool all)
      : grad_grad_out(s.rows(s.d_out)), grad_z(s.rows(s.d)), grad_thresholds(s.of_nodes()), grad_leaves(s.of_leaves()) {
    for (int64_t row = 0; row < s.batch * s.n; ++row)
      for (int64_t t = 0; t < s.trees; ++t) tree(s, input, all, row, t);
  }

  struct Node {
    double p, q, dl, length, r = 1, dr = 0, R = 0, v = 0, dv = 0, S = 0, Q = 0;
  };

  void tree(const Shape& s, const Input& input, bool all, int64_t row, int64_t t) {
    const auto f = input.forest(s);
    const int64_t entry = row / s.n, count = s.leaves(), first = entry * s.trees + t;
    const float *z = f.z + row * s.d, *dz = input.dz.data() + s.offset + row * s.d;
    const float* thresholds = f.thresholds + entry * f.thresholds_stride + t * s.nodes();
    const float* dthresholds = input.dthresholds.data() + s.offset + first * s.nodes();
    std::vector<Node> node(size_t(2 * count));  // heap order from 1
    for (int64_t k = 1; k < count; ++k) {
      Node& here = node[size_t(k)];
      const int64_t feature = (t * s.nodes() + k - 1) % s.d;
      const double x = double(z[feature]) - double(thresholds[k - 1]), moved = all ? double(dthresholds[k - 1]) : 0;
      logit = std::max(logit, std::abs(x));
      here.p = 1 / (1 + std::exp(-x)), here.q = 1 / (1 + std::exp(x));
      here.dl = double(dz[feature]) - moved, here.length = std::abs(double(dz[feature])) + std::abs(moved);
      const double dp = here.p * here.q * here.dl, size = here.r * here.p * here.q * here.length;
      Node &left = node[size_t(2 * k)], &right = node[size_t(2 * k + 1)];
      left.r = here.r * here.p, left.dr = here.dr * here.p + here.r * dp, left.R = here.R * here.p + size;
      right.r = here.r * here.q, right.dr = here.dr * here.q - here.r * dp, right.R = here.R * here.q + size;
    }
    for (int64_t l = 0; l < count; ++l) leaf(s, input, all, row, first * count + l, entry, t, l, node[size_t(count + l)]);
    for (int64_t k = count - 1; k >= 1; --k) merge(s, row, t, first, k, node);
  }

  void leaf(const Shape& s, const Input& input, bool all, int64_t row, int64_t at, int64_t entry, int64_t t, int64_t l,
            Node& node) {
    const auto f = input.forest(s);
    const float* leaf = f.leaves + entry * f.leaves_stride + (t * s.leaves() + l) * s.d_out;
    const float *dleaf = input.dleaves.data() + s.offset + at * s.d_out, *g = input.grad_out.data() + s.offset;
    const double scale = 1 / double(s.trees);
    for (int64_t c = 0; c < s.d_out; ++c) {
      const double out = g[row * s.d_out + c], value = leaf[c], dvalue = all ? dleaf[c] : 0;
      node.v += out * value * scale, node.S += std::abs(out * value) * scale;
      node.dv += out * dvalue * scale, node.Q += std::abs(out * dvalue) * scale;
      grad_grad_out.add(size_t(row * s.d_out + c), (node.dr * value + node.r * dvalue) * scale,
                        (node.R * std::abs(value) + node.r * std::abs(dvalue)) * scale);
      grad_leaves.add(size_t(at * s.d_out + c), node.dr * out * scale, node.R * std::abs(out) * scale);
    }
  }

  void merge(const Shape& s, int64_t row, int64_t t, int64_t first, int64_t k, std::vector<Node>& node) {
    Node& h = node[size_t(k)];
    const Node &a = node[size_t(2 * k)], &b = node[size_t(2 * k + 1)];
    const double both = h.p * h.q, gain = a.v - b.v;
    const double grad = (h.dr * both + h.r * both * (h.q - h.p) * h.dl) * gain + h.r * both * (a.dv - b.dv);
    const double size = both * ((h.R + h.r * h.length) * (a.S + b.S) + h.r * (a.Q + b.Q));
    grad_z.add(size_t(row * s.d + (t * s.nodes() + k - 1) % s.d), grad, size);
    grad_thresholds.add(size_t(first * s.nodes() + k - 1), -grad, size);
    h.v = h.p * a.v + h.q * b.v, h.S = h.p * a.S + h.q * b.S;
    h.dv = h.p * a.dv + h.q * b.dv + both * h.dl * gain;
    h.Q = h.p * a.Q + h.q * b.Q + both * h.length * (a.S + b.S);
  }
};

// Errors at most `bound` 2^-24 of the magnitudes; products of weights below 1e-30 may underflow.
void within(const Shape& s, const char* what, const Guarded<float>& got, const Sized& expected, double bound) {
  double worst = 0;
  for (size_t k = 0; k < expected.exact.size(); ++k) {
    const double error = std::abs(got[k] - expected.exact[k]) / (expected.size[k] * 0x1p-24 + 1e-30);
    worst = error <= worst ? worst : error;  // NaN stays
    if (std::isnan(error)) break;
  }
  if (worst <= bound) return;
  std::printf("%s of z [%d, %d, %d], %d trees of depth %d, %d outputs: error %g of bound %g\n", what, int(s.batch),
              int(s.n), int(s.d), int(s.trees), int(s.depth), int(s.d_out), worst, bound);
  ++failures;
}

bool same(const Guarded<float>& a, const Guarded<float>& b, size_t size) {
  bool equal = a.intact() && b.intact();
  for (size_t k = 0; k < size; ++k) {
    const float x = a[k], y = b[k];
    equal &= std::memcmp(&x, &y, sizeof x) == 0;
  }
  return equal;
}

struct Results {
  Guarded<float> grad_grad_out, grad_z, grad_thresholds, grad_leaves;
  explicit Results(const Shape& s)
      : grad_grad_out(s.rows(s.d_out), -7),
        grad_z(s.rows(s.d), -7),
        grad_thresholds(s.of_nodes(), -7),
        grad_leaves(s.of_leaves(), -7) {}
};

void run(const Shape& s, const Input& input, bool all, Results& r) {
  const auto forest = input.forest(s);
  const size_t bytes = size_t(otk::soft_forest_double_backward_cuda_workspace(forest));
  std::vector<float4> workspace(bytes / sizeof(float4) + 1, float4{NAN, NAN, NAN, NAN});
  otk::soft_forest_double_backward_cuda(
      forest, input.grad_out.data() + s.offset, input.dz.data() + s.offset,
      all ? input.dthresholds.data() + s.offset : nullptr, all ? input.dleaves.data() + s.offset : nullptr,
      r.grad_grad_out.data(), r.grad_z.data(), r.grad_thresholds.data(), r.grad_leaves.data(), workspace.data(), nullptr);
}

void compare(const Shape& s, bool all) {
  const Input input(s);
  const Exact exact(s, input, all);
  Results got(s), again(s);
  for (const bool backward : {false, true}) {
    host_cuda::backward = backward;
    run(s, input, all, backward ? again : got);
  }
  host_cuda::backward = false;
  CHECK(same(got.grad_grad_out, again.grad_grad_out, s.rows(s.d_out)));
  CHECK(same(got.grad_z, again.grad_z, s.rows(s.d)));
  CHECK(same(got.grad_thresholds, again.grad_thresholds, s.of_nodes()));
  CHECK(same(got.grad_leaves, again.grad_leaves, s.of_leaves()));
  const double k = double(s.trees * s.leaves()), groups = double(s.leaves()) / 128, rows = double(s.n) + 64;
  const double routed = double(s.depth + 1) * (exact.logit + 11);
  const double node = double(s.depth + 3) * (exact.logit + 12) + 8 * double(s.d_out) + 120 + groups;
  const double nodes = double(s.trees * s.nodes()) / double(s.d) + 1;  // of a feature
  within(s, "grad_grad_out", got.grad_grad_out, exact.grad_grad_out, routed + 17 * k + 180);
  within(s, "grad_z", got.grad_z, exact.grad_z, node + nodes + groups);
  within(s, "grad_thresholds", got.grad_thresholds, exact.grad_thresholds, node + rows + groups);
  within(s, "grad_leaves", got.grad_leaves, exact.grad_leaves, routed + 9 * rows + 92);
}

// grad_grad_out does not depend on grad_out, not even on a NaN where leaves past the last pad a step of a product.
void ignores_grad_out() {
  const Shape s{1, 5, 3, 3, 1, 5};
  Input input(s);
  Results finite(s), nan(s);
  run(s, input, true, finite);
  std::fill(input.grad_out.begin() + 5, input.grad_out.begin() + 10, std::nanf(""));
  run(s, input, true, nan);
  CHECK(same(finite.grad_grad_out, nan.grad_grad_out, s.rows(s.d_out)) && std::isnan(nan.grad_leaves[0]));
}

}  // namespace

void test_cuda_soft_forest_double_backward() {
  ignores_grad_out();
  const otk::Device before = otk::device_on_host;
  for (const int capability : {80, 86, 90})
    for (const bool all : {true, false}) {
      otk::device_on_host = {capability, 2};
      compare({1, 1, 1, 1, 0, 1}, all);
      compare({1, 3, 2, 1, 1, 3}, all);
      compare({1, 0, 4, 2, 3, 4}, all);
      compare({1, 5, 3, 2, 1, 2}, all);
      compare({3, 21, 9, 5, 2, 7}, all);
      compare({1, 37, 2, 16, 3, 2}, all);
      compare({2, 18, 11, 3, 4, 33, true}, all);
      compare({2, 9, 20, 4, 5, 130, false, 1}, all);
      compare({1, 33, 300, 3, 7, 12}, all);
      compare({1, 17, 12, 2, 9, 4}, all);
      compare({1, 17, 8, 18, 3, 8, false, 0, 30}, all);  // saturated shares
      compare({1, 70, 128, 18, 3, 128}, all);
    }
  otk::device_on_host = {90, 2};
  compare({1, 200, 10, 3, 3, 16}, true);  // four tiles a block
  // Blocks that share a row's groups: unevenly, with parts of the rows as well, in two passes, with sums in the workspace.
  otk::device_on_host = {90, 6};
  compare({1, 5, 12, 2, 9, 4}, true);
  otk::device_on_host = {90, 4};
  compare({1, 40, 12, 1, 8, 3}, true);
  compare({2, 130, 1000, 1, 8, 4}, true);
  compare({1, 9, 20, 6, 5, 130}, true);
  otk::device_on_host = before;
}
