// Compares what csrc's CUDA kernels and their emulator (cuda_on_host) take for the tensor cores' maps with CuTe.
#include "check.h"

void test_cute_hopper();
void test_cute_instructions();
void test_cute_pack();
void test_cute_products();

int main() {
  test_cute_instructions();
  test_cute_products();
  test_cute_pack();
  test_cute_hopper();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
