// dispatch.cpp - assignment on the instruction set of this machine.
#include "assign/assign.h"
#include "common/cpu_features.h"
#include "common/fork.h"

namespace otk {

#define OTK_DECLARE(isa)                                                                                                  \
  namespace isa {                                                                                                         \
  template <class T>                                                                                                      \
  void assign_dense(const Assign<T>&, int);                                                                               \
  template <class T>                                                                                                      \
  void assign_list(const AssignLists<T>&, const int64_t*, int64_t, const int64_t*, int64_t, const double*, double*, int); \
  template <class T>                                                                                                      \
  AssignRest assign_auction(const AssignLists<T>&, double, double, int64_t*, int64_t, int64_t*, int64_t, int64_t);        \
  template <class T>                                                                                                      \
  AssignRest assign_paths(const AssignLists<T>&, bool, int64_t*, int64_t, const AssignSearch&, const AssignAsk&);         \
  }
OTK_DECLARE(portable)
OTK_DECLARE(avx2)
OTK_DECLARE(avx512)
OTK_DECLARE(avx512bf16)
#undef OTK_DECLARE

template <class T>
void assign_dense_cpu(const Assign<T>& problem, int threads) {
  OTK_ON_CHOSEN_ISA(assign_dense<T>(problem, usable_threads(threads)))
}

template <class T>
void assign_list_cpu(const AssignLists<T>& lists, const int64_t* rows, int64_t count, const int64_t* found, int64_t k,
                     const double* unlisted, double* u, int threads) {
  OTK_ON_CHOSEN_ISA(assign_list<T>(lists, rows, count, found, k, unlisted, u, usable_threads(threads)))
}

template <class T>
AssignRest assign_auction_cpu(const AssignLists<T>& lists, double epsilon, double reach, int64_t* queue, int64_t count,
                              int64_t* stale, int64_t most_stale, int64_t most_steps) {
  OTK_ON_CHOSEN_ISA(assign_auction<T>(lists, epsilon, reach, queue, count, stale, most_stale, most_steps))
}

template <class T>
AssignRest assign_paths_cpu(const AssignLists<T>& lists, bool defer, int64_t* queue, int64_t count,
                            const AssignSearch& search, const AssignAsk& ask) {
  OTK_ON_CHOSEN_ISA(assign_paths<T>(lists, defer, queue, count, search, ask))
}

#define OTK_INSTANTIATE(T)                                                                                                 \
  template void assign_dense_cpu<T>(const Assign<T>&, int);                                                                \
  template void assign_list_cpu<T>(const AssignLists<T>&, const int64_t*, int64_t, const int64_t*, int64_t, const double*, \
                                   double*, int);                                                                          \
  template AssignRest assign_auction_cpu<T>(const AssignLists<T>&, double, double, int64_t*, int64_t, int64_t*, int64_t,   \
                                            int64_t);                                                                      \
  template AssignRest assign_paths_cpu<T>(const AssignLists<T>&, bool, int64_t*, int64_t, const AssignSearch&,             \
                                          const AssignAsk&);
OTK_INSTANTIATE(float)
OTK_INSTANTIATE(double)
#undef OTK_INSTANTIATE

}  // namespace otk
