// Runs the C++ tests on the instruction set that OTKERNELS_CPU names; exit code 77 where the machine lacks it.
#include <cstdio>
#include <stdexcept>

#include "check.h"
#include "common/cpu_features.h"

void test_assign();
void test_fit_transport();
void test_l2_argmin();
void test_l2_topk();
void test_soft_forest();

int main() {
  try {
    std::printf("instruction set: %s\n", otk::name(otk::chosen_isa()));
  } catch (const std::runtime_error& error) {
    std::printf("skipped: %s\n", error.what());
    return 77;
  }
  test_assign();
  test_fit_transport();
  test_l2_argmin();
  test_l2_topk();
  test_soft_forest();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
