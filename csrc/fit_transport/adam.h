// adam.h - one Adam step on a stretch of leaves.
#pragma once
#include "fit_transport/fit_transport.h"

namespace otk::OTK_ISA {

template <class T>
void adam(int64_t count, const T* grad, T* leaf, T* exp_avg, T* exp_avg_sq, const AdamStep<T>& step);

}  // namespace otk::OTK_ISA
