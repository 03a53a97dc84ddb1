// cuda_launch.cu - which CUDA kernel runs a fit_transport.
#include "common/cuda.h"
#include "fit_transport/cuda_kernels.h"

namespace otk {
namespace {

What describe(const FitTransport<float>& problem) {
  return {"fit_transport", &problem, [](const char* op, const void* problem) {
            const auto& p = *static_cast<const FitTransport<float>*>(problem);
            const auto shape = [](std::initializer_list<int64_t> sizes) {
              std::string text;
              for (const int64_t size : sizes) text += (text.empty() ? "[" : ", ") + std::to_string(size);
              return text + "]";
            };
            return std::string(op) + " (cuda) z_r " + shape({p.batch, p.n, p.d_out}) + ", z_g " +
                   shape({p.batch, p.m, p.d}) + ", leaves " + shape({p.batch, p.trees, int64_t(1) << p.depth, p.d_out});
          }};
}

}  // namespace

// A cluster whose blocks hold 16 columns each or fewer, or else a larger one that has more memory; then smaller clusters,
// down to one block, for devices that cannot place the large ones; then blocks that meet in device memory; then the grid.
FitChoice fit_transport_choice(const FitTransport<float>& p, const Device& device) {
  const int preferred = preferred_blocks(p);
  for (int blocks = preferred; blocks <= SlicePlan::kMostBlocks; blocks *= 2)
    if (fit_transport_cluster_fits(p, SlicePlan(p, blocks, true), device)) return {FitChoice::kCluster, blocks};
  for (int blocks = preferred / 2; blocks >= 1; blocks /= 2)
    if (fit_transport_cluster_fits(p, SlicePlan(p, blocks, true), device)) return {FitChoice::kCluster, blocks};
  for (int blocks = preferred; blocks <= SlicePlan::kMostBlocks; blocks *= 2)
    if (fit_transport_cooperative_fits(p, SlicePlan(p, blocks, false), device)) return {FitChoice::kCooperative, blocks};
  return {FitChoice::kGrid, device.multiprocessors};  // a block a multiprocessor: all run at once
}

int64_t fit_transport_cuda_workspace(const FitTransport<float>& p) {
  if (p.batch == 0) return 0;
  const FitChoice choice = fit_transport_choice(p, current_device());
  switch (choice.kernel) {
    case FitChoice::kCluster: return 0;
    case FitChoice::kCooperative: return SlicePlan(p, choice.blocks, false).workspace_bytes(p.batch);
    default: return GridPlan(p, choice.blocks).bytes;
  }
}

void fit_transport_cuda(const FitTransport<float>& p, void* workspace, void* stream) {
  if (p.batch == 0) return;
  const FitChoice choice = fit_transport_choice(p, current_device());
  switch (choice.kernel) {
    case FitChoice::kCluster: return fit_transport_cluster(p, SlicePlan(p, choice.blocks, true), describe(p), stream);
    case FitChoice::kCooperative:
      return fit_transport_cooperative(p, SlicePlan(p, choice.blocks, false), workspace, describe(p), stream);
    default: return fit_transport_grid(p, choice.blocks, workspace, describe(p), stream);
  }
}

}  // namespace otk
