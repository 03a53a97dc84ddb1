// Compares what csrc's CUDA kernels and their emulator (cuda_on_host) take for the tensor cores' maps with CuTe.
//
// Each of these was changed once, one at a time, and the test went red: every one of the 64 bits of matrix_descriptor;
// the swizzle's mask (each bit), source and target in the emulator, cuda_products.cu and cuda_pack.cu; every index of a
// fragment, an accumulator or a row in the emulator's ldmatrix, mma.sync and wgmma; lanes' rows and pieces, tiles, order
// of operands in cuda_products.cu; pieces, rows, chunks and halves of words in cuda_pack.cu; steps, chunks, stages and
// `add` in cuda_hopper.cu; score() and column_of() of cuda_candidates.h; exponent, mantissa and mask of each number.
#include <exception>

#include "check.h"

void test_cute_hopper();
void test_cute_instructions();
void test_cute_pack();
void test_cute_products();

int main() {
  try {
    test_cute_instructions();
    test_cute_products();
    test_cute_pack();
    test_cute_hopper();
  } catch (const std::exception& e) {  // of a launch in which the emulator found a mistake
    std::printf("%s\n", e.what());
    return 1;
  }
  std::printf("%d failures\n", failures);
  return failures != 0;
}
