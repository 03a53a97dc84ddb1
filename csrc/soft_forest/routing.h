// routing.h - the shares and leaf weights of a group of trees for one block of rows, and their reverse.
//
// A block is kCols rows, the two vectors of a register tile: every array here is [.., kCols], lanes are rows.
#pragma once
#include <cmath>

#include "common/tile.h"

namespace otk::OTK_ISA {

// exp(x) for x <= 0: 2^k times a degree-7 polynomial on |r| <= ln(2)/2, whose truncation error (r^8 / 8!) is below 2^-27.
inline vec<float> exp_nonpositive(vec<float> x) {
  const vec<float> shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the fraction is rounded away
  const vec<float> k = shifted - 12582912.0f;
  const vec<float> r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  vec<float> p = r * (1.0f / 5040) + (1.0f / 720);
  p = p * r + (1.0f / 120);
  p = p * r + (1.0f / 24);
  p = p * r + (1.0f / 6);
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const auto exponent = ((typename simd<float>::ints)shifted + 127) << 23;  // the low bits of `shifted` hold k
  return x < -87.3f ? vec<float>{} : p * (vec<float>)exponent;              // false for NaN, which then stays
}

inline vec<double> exp_nonpositive(vec<double> x) {
  for (int l = 0; l < simd<double>::lanes; ++l) x[l] = std::exp(x[l]);
  return x;
}

// left = sigmoid(x), right = sigmoid(-x)
template <class T>
inline void shares(vec<T> x, vec<T>& left, vec<T>& right) {
  const vec<T> e = exp_nonpositive(x < 0 ? x : -x);
  const vec<T> larger = 1 / (1 + e), smaller = e * larger;
  left = x < 0 ? smaller : larger;
  right = x < 0 ? larger : smaller;
}

template <class T>
struct Routing {
  static constexpr int R = kCols<T>, V = simd<T>::lanes;

  int64_t d, nodes;     // features of z, nodes of a tree
  const T* z;           // [d, R]
  const T* thresholds;  // [trees, nodes]

  // Leaf weights mu [count * (nodes + 1), R] of trees [first, first + count). Where asked for, each node's left share and
  // slope = reach * left * right (d mu / d logit, but for the leaves' difference) [count * nodes, R] are kept.
  void forward(int64_t first, int64_t count, T* mu, T* left, T* slope) const {
    for (int64_t t = 0; t < count; ++t) {
      T* tree = mu + t * (nodes + 1) * R;
      for (int part = 0; part < R; part += V) store<T>(tree + part, broadcast<T>(1));
      for (int64_t width = 1; width <= nodes; width *= 2)
        for (int64_t i = width - 1; i >= 0; --i) {  // downwards: node i's children overwrite what is done
          const int64_t node = width - 1 + i, at = (first + t) * nodes + node, kept = (t * nodes + node) * R;
          const T* feature = z + at % d * R;
          for (int part = 0; part < R; part += V) {
            vec<T> l, r;
            shares<T>(load<T>(feature + part) - thresholds[at], l, r);
            const vec<T> here = load<T>(tree + i * R + part);
            const vec<T> to_left = here * l;
            if (left) {
              store<T>(left + kept + part, l);
              store<T>(slope + kept + part, to_left * r);
            }
            store<T>(tree + 2 * i * R + part, to_left);
            store<T>(tree + (2 * i + 1) * R + part, here * r);
          }
        }
    }
  }

  // value [count * (nodes + 1), R] holds <grad_out, leaf> per leaf and is overwritten. Adds to grad_z [d, R] and
  // grad_thresholds [trees * nodes, V], whose lanes are summed at the end.
  void backward(int64_t first, int64_t count, const T* left, const T* slope, T* value, T* grad_z,
                T* grad_thresholds) const {
    for (int64_t t = 0; t < count; ++t) {
      T* tree = value + t * (nodes + 1) * R;
      for (int64_t width = (nodes + 1) / 2; width >= 1; width /= 2)
        for (int64_t i = 0; i < width; ++i) {
          const int64_t node = width - 1 + i, at = (first + t) * nodes + node, kept = (t * nodes + node) * R;
          vec<T> total{};
          for (int part = 0; part < R; part += V) {
            const vec<T> below = load<T>(tree + (2 * i + 1) * R + part);
            const vec<T> gain = load<T>(tree + 2 * i * R + part) - below;
            const vec<T> grad = load<T>(slope + kept + part) * gain;
            store<T>(tree + i * R + part, below + load<T>(left + kept + part) * gain);
            T* to = grad_z + at % d * R + part;
            store<T>(to, load<T>(to) + grad);
            total += grad;
          }
          store<T>(grad_thresholds + at * V, load<T>(grad_thresholds + at * V) - total);
        }
    }
  }
};

}  // namespace otk::OTK_ISA
