// dispatch.cpp - fit_transport on the instruction set of this machine.
#include "common/cpu_features.h"
#include "common/fork.h"
#include "fit_transport/fit_transport.h"

namespace otk {

#define OTK_DECLARE(isa)                           \
  namespace isa {                                  \
  template <class T>                               \
  void fit_transport(const FitTransport<T>&, int); \
  }
OTK_DECLARE(portable)
OTK_DECLARE(avx2)
OTK_DECLARE(avx512)
OTK_DECLARE(avx512bf16)
#undef OTK_DECLARE

template <class T>
void fit_transport_cpu(const FitTransport<T>& problem, int threads) {
  OTK_ON_CHOSEN_ISA(fit_transport<T>(problem, usable_threads(threads)))
}

template void fit_transport_cpu<float>(const FitTransport<float>&, int);
template void fit_transport_cpu<double>(const FitTransport<double>&, int);

}  // namespace otk
