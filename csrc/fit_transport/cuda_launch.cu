// cuda_launch.cu - which CUDA kernel runs a fit_transport: the cluster where it fits, else the grid.
#include "common/cuda.h"
#include "fit_transport/cuda_kernels.h"

namespace otk {
namespace {

int64_t grid_blocks(const Device& device) { return device.multiprocessors; }  // one a multiprocessor: all run at once

std::string describe(const FitTransport<float>& p) {
  const auto shape = [](std::initializer_list<int64_t> sizes) {
    std::string text;
    for (const int64_t size : sizes) text += (text.empty() ? "[" : ", ") + std::to_string(size);
    return text + "]";
  };
  return "fit_transport (cuda) z_r " + shape({p.batch, p.n, p.d_out}) + ", z_g " + shape({p.batch, p.m, p.d}) +
         ", leaves " + shape({p.batch, p.trees, int64_t(1) << p.depth, p.d_out});
}

}  // namespace

int64_t fit_transport_cuda_workspace(const FitTransport<float>& p) {
  const Device device = current_device();
  if (p.batch == 0 || fit_transport_cluster_blocks(p, device)) return 0;
  return GridPlan(p, grid_blocks(device)).bytes;
}

void fit_transport_cuda(const FitTransport<float>& p, void* workspace, void* stream) {
  if (p.batch == 0) return;
  const Device device = current_device();
  if (const int blocks = fit_transport_cluster_blocks(p, device))
    fit_transport_cluster(p, blocks, describe(p), stream);
  else
    fit_transport_grid(p, grid_blocks(device), workspace, describe(p), stream);
}

}  // namespace otk
