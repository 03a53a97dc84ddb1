// cuda_argmin.cu - which launches solve a problem: differences alone for few dimensions and small problems, otherwise
// pack, products, settle, and differences for the rows that these left undecided. All on `stream`, none waits for the
// host.
#include <stdexcept>

#include "l2_argmin/cuda_steps.h"

namespace otk {
namespace l2 {
namespace {

Direct direct_plan(const L2Argmin<float>& p) {
  return plan_direct(p.batch, p.n, p.m, p.d, current_device().multiprocessors);
}

// A batch that shares y and potential is one problem with more rows.
L2Argmin<float> joined(L2Argmin<float> p) {
  const bool shared = p.y_stride == 0 && (!p.potential || p.potential_stride == 0) && p.x_stride == p.n * p.d;
  if (p.batch > 1 && shared && p.batch * p.n <= kMostPoints) {
    p.n *= p.batch;
    p.batch = 1;
  }
  return p;
}

bool use_products(const L2Argmin<float>& p) { return products_pay(p.batch, p.n, p.m, p.d); }

}  // namespace

int64_t workspace_by_differences(const L2Argmin<float>& p) { return regions(direct_plan(p), p.batch * p.n).bytes; }

void by_differences(const L2Argmin<float>& p, void* workspace, void* stream) {
  const Direct plan = direct_plan(p);
  Meeting meeting{};
  if (plan.parts > 1) {
    unsigned char* const base = static_cast<unsigned char*>(workspace);
    meeting = {reinterpret_cast<Key*>(base), reinterpret_cast<int*>(base + regions(plan, p.batch * p.n).tickets)};
    launch_reset(p, meeting, stream);
  }
  (p.d <= kLowDimension ? launch_low : launch_direct)(p, plan, meeting, stream);
}

int64_t workspace_by_products(const L2Argmin<float>& p, Precision precision) {
  return regions(plan_products(p.batch, p.n, p.m, p.d, precision, current_device())).bytes;
}

void by_products(const L2Argmin<float>& p, Precision precision, void* workspace, void* stream) {
  const Device device = current_device();
  const Schedule s = plan_products(p.batch, p.n, p.m, p.d, precision, device);
  const Products w = products_at(p, s, workspace);
  launch_pack(w, precision, stream);
  (s.hopper ? launch_products_hopper : launch_products)(w, precision, device.multiprocessors, stream);
  launch_settle(w, stream);
  launch_undecided(p, w.undecided, w.meeting, device.multiprocessors, stream);
}

}  // namespace l2

int64_t l2_argmin_cuda_workspace(const L2Argmin<float>& problem, Precision precision) {
  if (problem.batch == 0 || problem.n == 0) return 0;
  const L2Argmin<float> p = l2::joined(problem);
  return l2::use_products(p) ? l2::workspace_by_products(p, precision) : l2::workspace_by_differences(p);
}

void l2_argmin_cuda(const L2Argmin<float>& problem, Precision precision, void* workspace, void* stream) {
  if (problem.batch == 0 || problem.n == 0) return;
  const L2Argmin<float> p = l2::joined(problem);
  if (p.m >= UINT32_MAX || p.d > INT32_MAX - 16)
    throw std::runtime_error(l2::describe("any", p).append(": more than 2^32 - 2 columns or 2^31 - 17 coordinates"));
  if (l2::use_products(p)) return l2::by_products(p, precision, workspace, stream);
  l2::by_differences(p, workspace, stream);
}

}  // namespace otk
