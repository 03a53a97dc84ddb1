// cost.cpp - transport_cost from the kernels of its parts: the forest, the search, the pairs, the forest's gradient.
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/memory.h"
#include "fit_transport/fit_transport.h"
#include "l2_argmin/l2_argmin.h"

namespace otk {
namespace {

// The power of two that brings the largest of both arrays' magnitudes into [1, 2); NaN if one value is not finite.
template <class T>
T unit(const T* a, int64_t count_a, const T* b, int64_t count_b) {
  T largest = 0, sum = 0;  // the sum is NaN if one value is NaN or infinite
  for (int64_t i = 0; i < count_a; ++i) largest = std::max(largest, std::abs(a[i])), sum += 0 * a[i];
  for (int64_t i = 0; i < count_b; ++i) largest = std::max(largest, std::abs(b[i])), sum += 0 * b[i];
  if (std::isnan(sum)) return sum;
  int exponent = 1;
  if (largest > 0) std::frexp(largest, &exponent);
  return std::ldexp(T(1), exponent - 1);
}

template <class T>
void divide(const T* from, int64_t count, T by, T* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] / by;
}

// The cost of one batch entry's pairs, and its gradient to F. Where `lost`, both are NaN.
template <class T>
void pair(const TransportCost<T>& p, int64_t entry, bool lost, const T* transformed, T* grad_out, unsigned char* hit) {
  const int64_t m = p.forest.n, width = p.forest.d_out, *index = p.index + entry * p.n;
  const T nan = std::numeric_limits<T>::quiet_NaN(), pull = lost ? nan : T(2) / T(p.n);
  const T* z_r = p.z_r + entry * p.z_r_stride;
  std::fill_n(grad_out, m * width, T(0));
  std::fill_n(hit, m, 0);
  double total = 0;
  for (int64_t i = 0; i < p.n; ++i) {
    const int64_t found = std::max<int64_t>(index[i], 0), real = p.literal ? found : i, j = p.literal ? i : found;
    hit[found] = 1;
    const T *f = transformed + j * width, *z = z_r + real * width;
    T* to = grad_out + j * width;
    for (int64_t c = 0; c < width; ++c) {
      const T difference = f[c] - z[c];
      to[c] += pull * difference;
      total += double(difference) * double(difference);
    }
  }
  p.cost[entry] = lost ? nan : T(total / double(p.n));
  p.used[entry] = lost ? nan : T(double(std::count(hit, hit + m, 1)) / double(m));
}

}  // namespace

template <class T>
void transport_cost_cpu(const TransportCost<T>& p, int threads) {
  const SoftForest<T>& f = p.forest;
  if (f.batch == 0) return;
  const int64_t batch = f.batch, real = p.n * f.d_out, generated = f.n * f.d_out;
  Scratch<T> scratch(batch * (real + 3 * generated + p.n + 1));
  T *transformed = scratch.get(), *grad_out = transformed + batch * generated, *y = grad_out + batch * generated;
  T *x = y + batch * generated, *nearest = x + batch * real, *units = nearest + batch * p.n;
  Scratch<unsigned char> hit(f.n);

  soft_forest_cpu<T>(f, transformed, threads);
  for (int64_t entry = 0; entry < batch; ++entry) {
    const T *z_r = p.z_r + entry * p.z_r_stride, *from = transformed + entry * generated;
    units[entry] = unit(z_r, real, from, generated);
    const T by = std::isnan(units[entry]) ? T(1) : units[entry];
    divide(z_r, real, by, x + entry * real);
    divide(from, generated, by, y + entry * generated);
  }
  l2_argmin_cpu<T>({x, y, nullptr, nearest, p.index, batch, p.n, f.n, f.d_out, real, generated, 0}, threads);
  for (int64_t entry = 0; entry < batch; ++entry)
    pair(p, entry, std::isnan(units[entry]), transformed + entry * generated, grad_out + entry * generated, hit.get());
  soft_forest_backward_cpu<T>(f, grad_out, p.grad_z, nullptr, nullptr, threads);
}

template void transport_cost_cpu<float>(const TransportCost<float>&, int);
template void transport_cost_cpu<double>(const TransportCost<double>&, int);

}  // namespace otk
