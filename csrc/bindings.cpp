// bindings.cpp - the Python module otkernels._C: addresses, sizes and a stream. The only file that knows Python.
#ifndef OTK_WITH_CUDA
#define OTK_WITH_CUDA 0
#endif

#include <pybind11/pybind11.h>

#include "common/cpu_features.h"
#include "l2_argmin/l2_argmin.h"
#include "soft_forest/soft_forest.h"

namespace py = pybind11;

namespace {

using Address = uintptr_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

template <class T>
otk::L2Argmin<T> l2_problem(Address x, Address y, Address potential, Address value, Address index, int64_t batch, int64_t n,
                            int64_t m, int64_t d, int64_t x_stride, int64_t y_stride, int64_t potential_stride) {
  return {pointer<const T>(x), pointer<const T>(y), pointer<const T>(potential), pointer<T>(value), pointer<int64_t>(index),
          batch, n, m, d, x_stride, y_stride, potential_stride};
}

template <class T>
void l2_argmin_cpu(Address x, Address y, Address potential, Address value, Address index, int64_t batch, int64_t n, int64_t m,
                   int64_t d, int64_t x_stride, int64_t y_stride, int64_t potential_stride, int threads) {
  otk::l2_argmin_cpu(
      l2_problem<T>(x, y, potential, value, index, batch, n, m, d, x_stride, y_stride, potential_stride), threads);
}

#if OTK_WITH_CUDA
void l2_argmin_cuda(Address x, Address y, Address potential, Address value, Address index, int64_t batch, int64_t n, int64_t m,
                    int64_t d, int64_t x_stride, int64_t y_stride, int64_t potential_stride, Address stream) {
  otk::l2_argmin_cuda(
      l2_problem<float>(x, y, potential, value, index, batch, n, m, d, x_stride, y_stride, potential_stride),
      pointer<void>(stream));
}
#endif

template <class T>
otk::SoftForest<T> forest(Address z, Address thresholds, Address leaves, int64_t batch, int64_t n, int64_t d, int64_t trees,
                          int64_t depth, int64_t d_out, int64_t z_stride, int64_t thresholds_stride, int64_t leaves_stride) {
  return {pointer<const T>(z), pointer<const T>(thresholds), pointer<const T>(leaves), batch, n, d, trees, depth, d_out,
          z_stride, thresholds_stride, leaves_stride};
}

template <class T>
void soft_forest_cpu(Address z, Address thresholds, Address leaves, int64_t batch, int64_t n, int64_t d, int64_t trees,
                     int64_t depth, int64_t d_out, int64_t z_stride, int64_t thresholds_stride, int64_t leaves_stride,
                     Address out, int threads) {
  otk::soft_forest_cpu(
      forest<T>(z, thresholds, leaves, batch, n, d, trees, depth, d_out, z_stride, thresholds_stride, leaves_stride),
      pointer<T>(out), threads);
}

template <class T>
void soft_forest_backward_cpu(Address z, Address thresholds, Address leaves, int64_t batch, int64_t n, int64_t d, int64_t trees,
                              int64_t depth, int64_t d_out, int64_t z_stride, int64_t thresholds_stride, int64_t leaves_stride,
                              Address grad_out, Address grad_z, Address grad_thresholds, Address grad_leaves, int threads) {
  otk::soft_forest_backward_cpu(
      forest<T>(z, thresholds, leaves, batch, n, d, trees, depth, d_out, z_stride, thresholds_stride, leaves_stride),
      pointer<const T>(grad_out), pointer<T>(grad_z), pointer<T>(grad_thresholds), pointer<T>(grad_leaves), threads);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled kernels of otkernels: raw addresses in, results written in place. Use otkernels' functions.";
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  module.def("l2_argmin_cpu_f32", &l2_argmin_cpu<float>, unlocked);
  module.def("l2_argmin_cpu_f64", &l2_argmin_cpu<double>, unlocked);
  module.def("soft_forest_cpu_f32", &soft_forest_cpu<float>, unlocked);
  module.def("soft_forest_cpu_f64", &soft_forest_cpu<double>, unlocked);
  module.def("soft_forest_backward_cpu_f32", &soft_forest_backward_cpu<float>, unlocked);
  module.def("soft_forest_backward_cpu_f64", &soft_forest_backward_cpu<double>, unlocked);
#if OTK_WITH_CUDA
  module.def("l2_argmin_cuda_f32", &l2_argmin_cuda, unlocked);
#endif
  module.def("built_with_cuda", [] { return bool(OTK_WITH_CUDA); }, "Whether the CUDA kernels are in this build.");
  module.def("cpu_isa", [] { return otk::name(otk::chosen_isa()); }, "The instruction set that the CPU kernels use here.");
}
