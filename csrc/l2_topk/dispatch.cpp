// dispatch.cpp - l2_topk on the instruction set of this machine.
#include "common/cpu_features.h"
#include "common/fork.h"
#include "l2_topk/l2_topk.h"

namespace otk {

#define OTK_DECLARE(isa)               \
  namespace isa {                      \
  template <class T>                   \
  void l2_topk(const L2TopK<T>&, int); \
  }
OTK_DECLARE(portable)
OTK_DECLARE(avx2)
OTK_DECLARE(avx512)
OTK_DECLARE(avx512bf16)
#undef OTK_DECLARE

template <class T>
void l2_topk_cpu(const L2TopK<T>& problem, int threads) {
  OTK_ON_CHOSEN_ISA(l2_topk<T>(problem, usable_threads(threads)))
}

template void l2_topk_cpu<float>(const L2TopK<float>&, int);
template void l2_topk_cpu<double>(const L2TopK<double>&, int);

}  // namespace otk
