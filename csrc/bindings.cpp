// bindings.cpp - the Python module otkernels._C: addresses, sizes and a stream. The only file that knows Python.
#ifndef OTK_WITH_CUDA
#define OTK_WITH_CUDA 0
#endif

#include <pybind11/functional.h>
#include <pybind11/pybind11.h>

#include <type_traits>

#include "assign/assign.h"
#include "common/cpu_features.h"
#include "common/cuda_status.h"
#include "fit_transport/fit_transport.h"
#include "l2_argmin/l2_argmin.h"
#include "l2_topk/l2_topk.h"
#include "soft_forest/double_backward.h"
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
  return {pointer<const T>(x),
          pointer<const T>(y),
          pointer<const T>(potential),
          pointer<T>(value),
          pointer<int64_t>(index),
          batch,
          n,
          m,
          d,
          x_stride,
          y_stride,
          potential_stride};
}

template <class T>
otk::L2TopK<T> topk_problem(Address x, Address y, Address potential, Address value, Address index, int64_t batch, int64_t n,
                            int64_t m, int64_t d, int64_t k, int64_t x_stride, int64_t y_stride, int64_t potential_stride) {
  return {pointer<const T>(x),
          pointer<const T>(y),
          pointer<const T>(potential),
          pointer<T>(value),
          pointer<int64_t>(index),
          batch,
          n,
          m,
          d,
          k,
          x_stride,
          y_stride,
          potential_stride};
}

template <class T>
otk::Assign<T> assign_problem(Address x, Address y, Address potential, Address index, Address u, Address v, Address primal,
                              Address dual, int64_t batch, int64_t n, int64_t m, int64_t d, int64_t x_stride,
                              int64_t y_stride, int64_t potential_stride) {
  return {pointer<const T>(x),
          pointer<const T>(y),
          pointer<const T>(potential),
          pointer<int64_t>(index),
          pointer<double>(u),
          pointer<double>(v),
          pointer<double>(primal),
          pointer<double>(dual),
          batch,
          n,
          m,
          d,
          x_stride,
          y_stride,
          potential_stride};
}

template <class T>
otk::AssignLists<T> assign_lists(Address x, Address y, Address potential, Address column, Address cost, Address least,
                                 Address bound, Address length, Address v, Address owner, Address match, int64_t n,
                                 int64_t m, int64_t d, int64_t capacity) {
  return {pointer<const T>(x),
          pointer<const T>(y),
          pointer<const T>(potential),
          pointer<int32_t>(column),
          pointer<double>(cost),
          pointer<double>(least),
          pointer<double>(bound),
          pointer<int32_t>(length),
          pointer<double>(v),
          pointer<int32_t>(owner),
          pointer<int32_t>(match),
          n,
          m,
          d,
          capacity};
}

// The search's arrays as addresses.
template <class T>
otk::AssignRest assign_paths(const otk::AssignLists<T>& lists, bool defer, int64_t* queue, int64_t count, int64_t* rows,
                             uint8_t* closed, int64_t* found, double* unlisted, otk::AssignAsk ask) {
  return otk::assign_paths_cpu(lists, defer, queue, count, {rows, closed, found, unlisted}, ask);
}

template <class T>
otk::SoftForest<T> forest(Address z, Address thresholds, Address leaves, int64_t batch, int64_t n, int64_t d, int64_t trees,
                          int64_t depth, int64_t d_out, int64_t z_stride, int64_t thresholds_stride,
                          int64_t leaves_stride) {
  return {pointer<const T>(z),
          pointer<const T>(thresholds),
          pointer<const T>(leaves),
          batch,
          n,
          d,
          trees,
          depth,
          d_out,
          z_stride,
          thresholds_stride,
          leaves_stride};
}

template <class T>
otk::FitTransport<T> transport(Address z_r, Address z_g, Address thresholds, Address leaves, Address exp_avg,
                               Address exp_avg_sq, Address step, Address index, Address cost, int64_t batch, int64_t n,
                               int64_t m, int64_t d, int64_t trees, int64_t depth, int64_t d_out, int64_t iters,
                               int64_t z_r_stride, int64_t z_g_stride, int64_t thresholds_stride, bool literal, double lr,
                               double beta1, double beta2, double eps) {
  return {pointer<const T>(z_r),
          pointer<const T>(z_g),
          pointer<const T>(thresholds),
          pointer<T>(leaves),
          pointer<T>(exp_avg),
          pointer<T>(exp_avg_sq),
          pointer<float>(step),
          pointer<int64_t>(index),
          pointer<T>(cost),
          batch,
          n,
          m,
          d,
          trees,
          depth,
          d_out,
          iters,
          z_r_stride,
          z_g_stride,
          thresholds_stride,
          literal,
          {lr, beta1, beta2, eps}};
}

template <class T>
otk::TransportCost<T> transport_cost(Address z_r, Address z_g, Address thresholds, Address leaves, Address index,
                                     Address cost, Address used, Address grad_z, int64_t batch, int64_t n, int64_t m,
                                     int64_t d, int64_t trees, int64_t depth, int64_t d_out, int64_t z_r_stride,
                                     int64_t z_g_stride, int64_t thresholds_stride, int64_t leaves_stride, bool literal) {
  return {
      forest<T>(z_g, thresholds, leaves, batch, m, d, trees, depth, d_out, z_g_stride, thresholds_stride, leaves_stride),
      pointer<const T>(z_r),
      n,
      z_r_stride,
      literal,
      pointer<int64_t>(index),
      pointer<T>(cost),
      pointer<T>(used),
      pointer<T>(grad_z)};
}

// What Python passes for a parameter: an address for a pointer, a number for an enumerator, anything else as it is.
template <class P>
using Wire = std::conditional_t<std::is_pointer_v<P>, Address, std::conditional_t<std::is_enum_v<P>, int, P>>;

template <class P>
P unwire(Wire<P> wire) {
  if constexpr (std::is_pointer_v<P>)
    return reinterpret_cast<P>(wire);
  else
    return static_cast<P>(wire);
}

// `function` as Python calls it: the arguments of `describe`, which make its problem, then its further ones.
template <class Problem, class... Described, class Result, class... Rest>
auto bound(Problem (*describe)(Described...), Result (*function)(const Problem&, Rest...)) {
  return
      [=](Described... described, Wire<Rest>... rest) { return function(describe(described...), unwire<Rest>(rest)...); };
}

// CMakeLists.txt writes these texts; an empty one names what this build lacks.
py::dict build_info() {
  py::dict info;
  info["compiler"] = OTK_COMPILER;
  info["cpu"] = OTK_CPU_BUILT;
  info["openmp"] = OTK_OPENMP_BUILT;
  info["cuda"] = OTK_CUDA_BUILT;
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled kernels of otkernels: raw addresses in, results written in place. Use otkernels' functions.";
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  module.def("l2_argmin_cpu_f32", bound(&l2_problem<float>, &otk::l2_argmin_cpu<float>), unlocked);
  module.def("l2_argmin_cpu_f64", bound(&l2_problem<double>, &otk::l2_argmin_cpu<double>), unlocked);
  module.def("l2_topk_cpu_f32", bound(&topk_problem<float>, &otk::l2_topk_cpu<float>), unlocked);
  module.def("l2_topk_cpu_f64", bound(&topk_problem<double>, &otk::l2_topk_cpu<double>), unlocked);
  py::class_<otk::AssignRest>(module, "AssignRest")
      .def_readonly("rows", &otk::AssignRest::rows)
      .def_readonly("missing", &otk::AssignRest::missing)
      .def_readonly("stale", &otk::AssignRest::stale)
      .def_readonly("steps", &otk::AssignRest::steps)
      .def_readonly("listed", &otk::AssignRest::listed);
  module.def("assign_dense_cpu_f32", bound(&assign_problem<float>, &otk::assign_dense_cpu<float>), unlocked);
  module.def("assign_list_cpu_f32", bound(&assign_lists<float>, &otk::assign_list_cpu<float>), unlocked);
  module.def("assign_auction_cpu_f32", bound(&assign_lists<float>, &otk::assign_auction_cpu<float>), unlocked);
  module.def("assign_paths_cpu_f32", bound(&assign_lists<float>, &assign_paths<float>), unlocked);
  module.def("assign_dense_cpu_f64", bound(&assign_problem<double>, &otk::assign_dense_cpu<double>), unlocked);
  module.def("assign_list_cpu_f64", bound(&assign_lists<double>, &otk::assign_list_cpu<double>), unlocked);
  module.def("assign_auction_cpu_f64", bound(&assign_lists<double>, &otk::assign_auction_cpu<double>), unlocked);
  module.def("assign_paths_cpu_f64", bound(&assign_lists<double>, &assign_paths<double>), unlocked);
  module.def("soft_forest_cpu_f32", bound(&forest<float>, &otk::soft_forest_cpu<float>), unlocked);
  module.def("soft_forest_cpu_f64", bound(&forest<double>, &otk::soft_forest_cpu<double>), unlocked);
  module.def("soft_forest_backward_cpu_f32", bound(&forest<float>, &otk::soft_forest_backward_cpu<float>), unlocked);
  module.def("soft_forest_backward_cpu_f64", bound(&forest<double>, &otk::soft_forest_backward_cpu<double>), unlocked);
  module.def("soft_forest_double_backward_cpu_f32", bound(&forest<float>, &otk::soft_forest_double_backward_cpu<float>),
             unlocked);
  module.def("soft_forest_double_backward_cpu_f64", bound(&forest<double>, &otk::soft_forest_double_backward_cpu<double>),
             unlocked);
  module.def("fit_transport_cpu_f32", bound(&transport<float>, &otk::fit_transport_cpu<float>), unlocked);
  module.def("fit_transport_cpu_f64", bound(&transport<double>, &otk::fit_transport_cpu<double>), unlocked);
  module.def("transport_cost_cpu_f32", bound(&transport_cost<float>, &otk::transport_cost_cpu<float>), unlocked);
  module.def("transport_cost_cpu_f64", bound(&transport_cost<double>, &otk::transport_cost_cpu<double>), unlocked);
#if OTK_WITH_CUDA
  module.def("l2_argmin_cuda", bound(&l2_problem<float>, &otk::l2_argmin_cuda), unlocked);
  module.def("l2_argmin_cuda_workspace", bound(&l2_problem<float>, &otk::l2_argmin_cuda_workspace), unlocked);
  module.def("soft_forest_cuda", bound(&forest<float>, &otk::soft_forest_cuda), unlocked);
  module.def("soft_forest_cuda_workspace", bound(&forest<float>, &otk::soft_forest_cuda_workspace), unlocked);
  module.def("soft_forest_backward_cuda", bound(&forest<float>, &otk::soft_forest_backward_cuda), unlocked);
  module.def("soft_forest_backward_cuda_workspace", bound(&forest<float>, &otk::soft_forest_backward_cuda_workspace),
             unlocked);
  module.def("soft_forest_double_backward_cuda", bound(&forest<float>, &otk::soft_forest_double_backward_cuda), unlocked);
  module.def("soft_forest_double_backward_cuda_workspace",
             bound(&forest<float>, &otk::soft_forest_double_backward_cuda_workspace), unlocked);
  module.def("fit_transport_cuda", bound(&transport<float>, &otk::fit_transport_cuda), unlocked);
  module.def("fit_transport_cuda_workspace", bound(&transport<float>, &otk::fit_transport_cuda_workspace), unlocked);
  module.def("cuda_fault", &otk::cuda_fault, "Why the CUDA kernels cannot run on a device; empty when they can.");
  module.def("cuda_built_version", &otk::cuda_built_version, "1000 * major + 10 * minor");
#endif
  module.def("built_with_cuda", [] { return bool(OTK_WITH_CUDA); }, "Whether the CUDA kernels are in this build.");
  module.def("build_info", &build_info, "What was compiled into this module; empty texts for what was not.");
  module.def("cpu_isa", [] { return otk::name(otk::chosen_isa()); }, "The instruction set that the CPU kernels use here.");
}
