// double_backward_routing.h - routing.h differentiated along tangents of z and thresholds (double_backward.h has the formulas).
#pragma once
#include "soft_forest/routing.h"

namespace otk::OTK_ISA {

template <class T>
struct DoubleRouting {
  static constexpr int R = kCols<T>, V = simd<T>::lanes;
  static constexpr int kKept = 5;  // arrays per node: left share, right share, its tangent, slope, its tangent

  int64_t d, nodes;  // features of z, nodes of a tree
  const T *z, *dz;  // [d, R]
  const T* thresholds;  // [trees, nodes]
  const T* dthresholds;  // likewise, or null

  // Leaf weights mu and tangents dmu [count * (nodes + 1), R] of trees [first, first + count), and what backward()
  // needs of their nodes: kept [count * nodes, kKept, R].
  void forward(int64_t first, int64_t count, T* mu, T* dmu, T* kept) const {
    for (int64_t t = 0; t < count; ++t) {
      T *reach = mu + t * (nodes + 1) * R, *dreach = dmu + t * (nodes + 1) * R;
      std::fill(reach, reach + R, T(1));
      std::fill(dreach, dreach + R, T(0));
      for (int64_t width = 1; width <= nodes; width *= 2)
        for (int64_t i = width - 1; i >= 0; --i) {  // downwards: node i's children overwrite what is done
          const int64_t node = width - 1 + i, at = (first + t) * nodes + node;
          split(at, reach + i * R, dreach + i * R, reach + 2 * i * R, dreach + 2 * i * R,
                kept + (t * nodes + node) * kKept * R);
        }
    }
  }

  // value and dvalue [count * (nodes + 1), R] hold <grad_out, leaf> and <grad_out, dleaf> per leaf and are overwritten.
  // Adds to grad_z [d, R] and grad_thresholds [trees * nodes, V], whose lanes are summed at the end.
  void backward(int64_t first, int64_t count, const T* kept, T* value, T* dvalue, T* grad_z, T* grad_thresholds) const {
    for (int64_t t = 0; t < count; ++t) {
      T *v = value + t * (nodes + 1) * R, *dv = dvalue + t * (nodes + 1) * R;
      for (int64_t width = (nodes + 1) / 2; width >= 1; width /= 2)
        for (int64_t i = 0; i < width; ++i) {
          const int64_t node = width - 1 + i, at = (first + t) * nodes + node;
          const vec<T> grad = merge(kept + (t * nodes + node) * kKept * R, v + 2 * i * R, dv + 2 * i * R, v + i * R,
                                    dv + i * R, grad_z + at % d * R);
          store<T>(grad_thresholds + at * V, load<T>(grad_thresholds + at * V) - grad);
        }
    }
  }

 private:
  // Reach and tangent of node `at` to those of its two children, which may overwrite them.
  void split(int64_t at, const T* reach, const T* dreach, T* children, T* dchildren, T* kept) const {
    const T *feature = z + at % d * R, *dfeature = dz + at % d * R;
    const T dthreshold = dthresholds ? dthresholds[at] : T(0);
    for (int part = 0; part < R; part += V, kept += V) {
      vec<T> left, right;
      shares<T>(load<T>(feature + part) - thresholds[at], left, right);
      const vec<T> dlogit = load<T>(dfeature + part) - dthreshold, both = left * right, dleft = both * dlogit;
      const vec<T> here = load<T>(reach + part), dhere = load<T>(dreach + part);
      const vec<T> slope = here * both, moved = here * dleft;
      store<T>(kept, left);
      store<T>(kept + R, right);
      store<T>(kept + 2 * R, dleft);
      store<T>(kept + 3 * R, slope);
      store<T>(kept + 4 * R, dhere * both + slope * (right - left) * dlogit);
      store<T>(children + part, here * left);
      store<T>(children + R + part, here * right);
      store<T>(dchildren + part, dhere * left + moved);
      store<T>(dchildren + R + part, dhere * right - moved);
    }
  }

  // Values and tangents of two children to their node's; returns its gradient, the two vectors added.
  vec<T> merge(const T* kept, const T* children, const T* dchildren, T* value, T* dvalue, T* grad_z) const {
    vec<T> total{};
    for (int part = 0; part < R; part += V, kept += V) {
      const vec<T> left = load<T>(kept), right = load<T>(kept + R);
      const vec<T> below = load<T>(children + R + part), dbelow = load<T>(dchildren + R + part);
      const vec<T> above = load<T>(children + part), dabove = load<T>(dchildren + part), gain = above - below;
      const vec<T> grad = load<T>(kept + 3 * R) * (dabove - dbelow) + load<T>(kept + 4 * R) * gain;
      store<T>(value + part, left * above + right * below);
      store<T>(dvalue + part, left * dabove + right * dbelow + load<T>(kept + 2 * R) * gain);
      store<T>(grad_z + part, load<T>(grad_z + part) + grad);
      total += grad;
    }
    return total;
  }
};

}  // namespace otk::OTK_ISA
