// cuda_products.cu against CuTe: the addresses that its lanes give to ldmatrix make exactly the fragments of mma.sync, and
// the accumulators' rows and columns are those that cuda_candidates.h takes them for.
//
// Its source is part of this file, so that what is tested is what the kernel runs.
#include "cute/compare.h"
#include "l2_argmin/cuda_products.cu"

namespace {

using namespace otk;
using namespace cute_test;

// An element type whose product writes down what it is given.
struct Recorded {
  static constexpr int kBytes = 2;
};

struct Given {
  const float* c;
  uint32_t a[4], b[2];
};

std::vector<Given> given[256];  // by thread

}  // namespace

template <>
void otk::multiply_add<Recorded>(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  given[threadIdx.x].push_back({c, {a[0], a[1], a[2], a[3]}, {b0, b1}});
}

namespace {

// Of a chunk of x and one of y whose elements all differ; tiles of C: 4 x 2 warps of 32 x 64, in fragments of 16 x 8.
template <class Element>
void test_fragments() {
  constexpr int kA = 16 / Element::kBytes, kB = 8 / Element::kBytes, kSteps = 4;
  const auto id = [](int matrix, int row, int k) { return uint32_t((matrix * 128 + row) * kChunk<Element> + k); };
  for (std::vector<Given>& all : given) all.clear();
  ptrdiff_t offset[256][64];
  host_cuda::run({"multiply_chunk", 1, l2::kThreads, 2 * l2::kSlotBytes, nullptr}, [&] {
    unsigned char* const shared = shared_memory<unsigned char>();
    if (threadIdx.x == 0) {
      fill_block<Element>(shared, 1, [&](int row, int k) { return id(0, row, k); });
      fill_block<Element>(shared + l2::kSlotBytes, 1, [&](int row, int k) { return id(1, row, k); });
    }
    __syncthreads();
    float acc[2][32];
    l2::multiply_chunk<Recorded>(acc, shared, shared + l2::kSlotBytes, kSteps);
    for (size_t k = 0; k < given[threadIdx.x].size() && k < 64; ++k)
      offset[threadIdx.x][k] = given[threadIdx.x][k].c - &acc[0][0];
  });
  const auto a_at = witness::mma(kElement<Element>, Operand::a), b_at = witness::mma(kElement<Element>, Operand::b);
  for (int thread = 0; thread < l2::kThreads; ++thread) {
    const int lane = thread % 32, warp = thread / 32;
    CHECK(given[thread].size() == kSteps * 16);
    int products[64] = {};  // by accumulator
    for (size_t k = 0; k < given[thread].size(); ++k) {
      const int first = int(offset[thread][k]), step = products[first]++;
      const int row = warp % 4 * 32 + first / 32 * 16, column = warp / 4 * 64 + first % 32 / 4 * 8;
      for (int v = 0; v < kA; ++v) {
        const At at = a_at[size_t(lane * kA + v)];
        CHECK(element_at<Element>(given[thread][k].a, v) == id(0, row + at.row, step * kStep<Element> + at.column));
      }
      for (int v = 0; v < kB; ++v) {
        const At at = b_at[size_t(lane * kB + v)];
        CHECK(element_at<Element>(given[thread][k].b, v) == id(1, column + at.row, step * kStep<Element> + at.column));
      }
    }
    for (int first = 0; first < 64; ++first) CHECK(products[first] == (first % 4 ? 0 : kSteps));
  }
}

// accumulator_of() and column_of() say where mma.sync leaves the columns of rows g (side 0) and g + 8 (side 2).
template <class Element, int kSide>
void test_accumulators() {
  const auto c_at = witness::mma(kElement<Element>, Operand::c);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 16; ++i) {
      const int k = l2::accumulator_of<kSide>(i);
      const At at = c_at[size_t(lane * 4 + k % 4)];
      CHECK(at.row == lane / 4 + 4 * kSide && 8 * (k / 4) + at.column == l2::column_of(lane % 4 * 2, i));
    }
}

template <class Element>
void test_element() {
  test_fragments<Element>();
  test_accumulators<Element, 0>();
  test_accumulators<Element, 2>();
}

}  // namespace

void test_cute_products() {
  test_element<Bf16>();
  test_element<Fp16>();
  test_element<Tf32>();
}
