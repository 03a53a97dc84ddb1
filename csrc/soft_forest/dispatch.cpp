// dispatch.cpp - soft_forest on the instruction set of this machine.
#include "common/cpu_features.h"
#include "common/fork.h"
#include "soft_forest/double_backward.h"
#include "soft_forest/soft_forest.h"

namespace otk {

#define OTK_DECLARE(isa)                                                                                               \
  namespace isa {                                                                                                      \
  template <class T>                                                                                                   \
  void soft_forest(const SoftForest<T>&, T*, int);                                                                     \
  template <class T>                                                                                                   \
  void soft_forest_backward(const SoftForest<T>&, const T*, T*, T*, T*, int);                                          \
  template <class T>                                                                                                   \
  void soft_forest_double_backward(const SoftForest<T>&, const T*, const T*, const T*, const T*, T*, T*, T*, T*, int); \
  }
OTK_DECLARE(portable)
OTK_DECLARE(avx2)
OTK_DECLARE(avx512)
OTK_DECLARE(avx512bf16)
#undef OTK_DECLARE

template <class T>
void soft_forest_cpu(const SoftForest<T>& forest, T* out, int threads) {
  OTK_ON_CHOSEN_ISA(soft_forest<T>(forest, out, usable_threads(threads)))
}

template <class T>
void soft_forest_backward_cpu(const SoftForest<T>& forest, const T* grad_out, T* grad_z, T* grad_thresholds, T* grad_leaves,
                              int threads) {
  OTK_ON_CHOSEN_ISA(
      soft_forest_backward<T>(forest, grad_out, grad_z, grad_thresholds, grad_leaves, usable_threads(threads)))
}

template <class T>
void soft_forest_double_backward_cpu(const SoftForest<T>& forest, const T* grad_out, const T* dz, const T* dthresholds,
                                     const T* dleaves, T* grad_grad_out, T* grad_z, T* grad_thresholds, T* grad_leaves,
                                     int threads) {
  OTK_ON_CHOSEN_ISA(soft_forest_double_backward<T>(forest, grad_out, dz, dthresholds, dleaves, grad_grad_out, grad_z,
                                                   grad_thresholds, grad_leaves, usable_threads(threads)))
}

#define OTK_INSTANTIATE(T)                                                                                               \
  template void soft_forest_cpu<T>(const SoftForest<T>&, T*, int);                                                       \
  template void soft_forest_backward_cpu<T>(const SoftForest<T>&, const T*, T*, T*, T*, int);                            \
  template void soft_forest_double_backward_cpu<T>(const SoftForest<T>&, const T*, const T*, const T*, const T*, T*, T*, \
                                                   T*, T*, int);
OTK_INSTANTIATE(float)
OTK_INSTANTIATE(double)

}  // namespace otk
