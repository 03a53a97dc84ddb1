// memory.h - uninitialised, 64-byte aligned scratch that frees itself. Not in an instruction set's namespace on purpose:
// the functions are forced inline, so nothing of them is shared between builds.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <new>

namespace otk {

template <class T>
class Scratch {
 public:
  __attribute__((always_inline)) explicit Scratch(size_t count)
      : data_(static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 127) / 64 * 64))) {
    if (!data_) throw std::bad_alloc();
  }
  __attribute__((always_inline)) ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  __attribute__((always_inline)) T* get() const { return data_; }

 private:
  T* data_;
};

}  // namespace otk
