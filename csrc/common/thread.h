// thread.h - this thread's number in its OpenMP team; 0 in a build without OpenMP.
#pragma once
#ifdef _OPENMP
#include <omp.h>
#endif

namespace otk::OTK_ISA {

inline int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace otk::OTK_ISA
