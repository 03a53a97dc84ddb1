// Runs the CUDA kernels' tests on the host, and those of the emulator: the ones that the argument names, or all.
#include <exception>
#include <string>

#include "check.h"

void test_cuda_emulator();
void test_cuda_fit_transport();
void test_cuda_l2_argmin();
void test_cuda_l2_argmin_plans();
void test_cuda_soft_forest();
void test_cuda_soft_forest_double_backward();

int main(int count, char** arguments) {
  const std::string op = count > 1 ? arguments[1] : "";
  try {
    if (op.empty() || op == "emulator") test_cuda_emulator();
    if (op.empty() || op == "fit_transport") test_cuda_fit_transport();
    if (op.empty() || op == "l2_argmin") test_cuda_l2_argmin();
    if (op.empty() || op == "l2_argmin_plans") test_cuda_l2_argmin_plans();
    if (op.empty() || op == "soft_forest") test_cuda_soft_forest();
    if (op.empty() || op == "soft_forest_double_backward") test_cuda_soft_forest_double_backward();
  } catch (const std::exception& e) {  // of a launch in which the emulator found a mistake
    std::printf("%s\n", e.what());
    return 1;
  }
  std::printf("%d failures\n", failures);
  return failures != 0;
}
