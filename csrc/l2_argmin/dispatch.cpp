// dispatch.cpp - l2_argmin on the instruction set of this machine.
#include "common/cpu_features.h"
#include "common/fork.h"
#include "l2_argmin/l2_argmin.h"

namespace otk {

#define OTK_DECLARE(isa)                   \
  namespace isa {                          \
  template <class T>                       \
  void l2_argmin(const L2Argmin<T>&, int); \
  }
OTK_DECLARE(portable)
OTK_DECLARE(avx2)
OTK_DECLARE(avx512)
OTK_DECLARE(avx512bf16)
#undef OTK_DECLARE

template <class T>
void l2_argmin_cpu(const L2Argmin<T>& problem, int threads) {
  OTK_ON_CHOSEN_ISA(l2_argmin<T>(problem, usable_threads(threads)))
}

template void l2_argmin_cpu<float>(const L2Argmin<float>&, int);
template void l2_argmin_cpu<double>(const L2Argmin<double>&, int);

}  // namespace otk
