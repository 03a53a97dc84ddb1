// memory.h - uninitialised, 64-byte aligned scratch that frees itself. The first kStackBytes are on the stack: a small
// problem must not wait for the heap, which may trim and fault its pages anew at each call (half a microsecond of 11 at 64 x 64 x 128).
// Outside the instruction sets' namespaces on purpose: all is forced inline, so no code is shared between builds.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <new>

namespace otk {

template <class T>
class Scratch {
 public:
  __attribute__((always_inline)) explicit Scratch(size_t count)
      : heap_(count * sizeof(T) <= kStackBytes ? nullptr : std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64)) {
    if (!heap_ && count * sizeof(T) > kStackBytes) throw std::bad_alloc();
  }
  __attribute__((always_inline)) ~Scratch() {
    if (heap_) std::free(heap_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  __attribute__((always_inline)) T* get() { return reinterpret_cast<T*>(heap_ ? heap_ : stack_); }

 private:
  static constexpr size_t kStackBytes = 48 << 10;
  void* heap_;
  alignas(64) unsigned char stack_[kStackBytes];
};

}  // namespace otk
