// check.h - the little that the C++ tests need: a check that names itself, buffers with guard zones.
#pragma once
#include <cstdio>
#include <random>
#include <vector>

inline int failures = 0;

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                         \
    }                                                                     \
  } while (false)

// `size` elements that start as poison, between guards that must still be there in the end.
template <class T>
class Guarded {
 public:
  Guarded(size_t size, T poison) : poison_(poison), data_(size + 2 * kGuard, poison), size_(size) {}
  T* data() { return data_.data() + kGuard; }
  T operator[](size_t i) const { return data_[kGuard + i]; }
  bool intact() const {
    for (size_t g = 0; g < kGuard; ++g)
      if (data_[g] != poison_ || data_[kGuard + size_ + g] != poison_) return false;
    return true;
  }

 private:
  static constexpr size_t kGuard = 32;
  T poison_;
  std::vector<T> data_;
  size_t size_;
};

template <class T>
std::vector<T> normal(size_t size, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> draw;
  std::vector<T> values(size);
  for (T& value : values) value = T(draw(generator));
  return values;
}
