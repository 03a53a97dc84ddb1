// cuda_argmin.cu - which launches solve a problem: differences alone for few dimensions and small problems, otherwise
// pack, products, settle, in the exact mode both of the latter again for the rows that gave up (schedule.h), and
// differences for those that are left. A batch, or the rows of one entry, is solved in parts where its workspace would
// take more than its points. All on `stream`, none waits for the host.
#include <algorithm>
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

namespace {

Schedule first_stage(const L2Argmin<float>& p, Precision precision) {
  return plan_products(p.batch, p.n, p.m, p.d, precision, current_device());
}

struct Share {
  int64_t entries, rows, bytes;
};

Share share_of(const L2Argmin<float>& p, Precision precision, int64_t free) {
  const int64_t width = divide_up(p.d, kChunkBytes / 2) * (kChunkBytes / 2);
  const int64_t most = 4 * width * (p.batch * p.n + (p.y_stride ? p.batch : 1) * p.m) + free;
  L2Argmin<float> part = p;
  const auto bytes_of = [&](int64_t batch, int64_t n) {
    L2Argmin<float> some = p;
    some.batch = batch, some.n = n;
    return batch && n ? regions(first_stage(some, precision)).bytes : 0;
  };
  while (true) {  // of full parts and of the last ones, which may fall into more parts of columns
    const int64_t bytes = std::max(
        {bytes_of(part.batch, part.n), bytes_of(p.batch % part.batch, part.n), bytes_of(part.batch, p.n % part.n)});
    const bool numbered = first_stage(part, precision).items() < INT32_MAX;  // in 32 bits
    if ((bytes <= most && numbered) || (part.batch == 1 && part.n <= 2 * kBlock)) return {part.batch, part.n, bytes};
    if (part.batch > 1)
      part.batch = divide_up(part.batch, 2);
    else
      part.n = divide_up(part.n, 4 * kBlock) * 2 * kBlock;
  }
}

L2Argmin<float> part_of(L2Argmin<float> p, int64_t entry, int64_t entries, int64_t row, int64_t rows) {
  p.x += entry * p.x_stride + row * p.d;
  p.y += entry * p.y_stride;
  if (p.potential) p.potential += entry * p.potential_stride;
  p.value += entry * p.n + row;
  p.index += entry * p.n + row;
  p.batch = std::min(entries, p.batch - entry);
  p.n = std::min(rows, p.n - row);
  return p;
}

void solve_part(const L2Argmin<float>& p, Precision precision, void* workspace, void* stream) {
  const int multiprocessors = current_device().multiprocessors;
  const Schedule first = first_stage(p, precision);
  const Products w = products_at(p, first, false, workspace);
  launch_pack(w, precision, stream);
  (first.hopper ? launch_products_hopper : launch_products)(w, precision, multiprocessors, stream);
  launch_settle(w, stream);
  if (first.exact) {
    const Products rest = products_at(p, first, true, workspace);
    launch_products(rest, precision, multiprocessors, stream);
    launch_settle(rest, stream);
  }
  launch_undecided(p, w.direct, w.meeting, multiprocessors, stream);
}

}  // namespace

int64_t workspace_by_products(const L2Argmin<float>& p, Precision precision, int64_t free) {
  return share_of(p, precision, free).bytes;
}

void by_products(const L2Argmin<float>& p, Precision precision, void* workspace, void* stream, int64_t free) {
  const Share share = share_of(p, precision, free);
  for (int64_t entry = 0; entry < p.batch; entry += share.entries)
    for (int64_t row = 0; row < p.n; row += share.rows)  // one part of the rows where there are several entries
      solve_part(part_of(p, entry, share.entries, row, share.rows), precision, workspace, stream);
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
    throw std::runtime_error(l2::describe("any", p).text() + ": more than 2^32 - 2 columns or 2^31 - 17 coordinates");
  if (l2::use_products(p)) return l2::by_products(p, precision, workspace, stream);
  l2::by_differences(p, workspace, stream);
}

}  // namespace otk
