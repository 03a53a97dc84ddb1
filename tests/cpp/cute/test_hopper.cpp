// cuda_hopper.cu against CuTe: the descriptors of every product, bit by bit, and where the accumulators' rows and columns
// are taken to be.
//
// Its source is part of this file, so that what is tested is what the kernel runs.
#include "cute/compare.h"
#include "l2_argmin/cuda_hopper.cu"

namespace {

using namespace otk;
using namespace cute_test;

// An element type whose product writes down what it is given.
struct Recorded {
  static constexpr int kBytes = 2;
};

struct Given {
  uint64_t a, b;
  bool add;
};

std::vector<Given> given;

}  // namespace

template <>
void otk::warpgroup_multiply<Recorded>(float (&)[64], uint64_t a, uint64_t b, bool add) {
  given.push_back({a, b, add});
}

namespace {

constexpr uint32_t kX = 2 * l2::kSlotBytes, kStages = 7 * l2::kSlotBytes;

// The products of one call, in one thread's order.
template <class Call>
void record(Call call) {
  given.clear();
  host_cuda::run({"multiply", 1, 32, 0, nullptr}, [&] {
    float acc[64];
    if (threadIdx.x == 0) call(acc);
  });
}

// Step k of chunk c is given half's rows of x, and the tile's rows of y in stage `stage`.
void expect(const Given& step, int half, int c, int k, uint32_t stage, bool add) {
  for (const witness::Element element : {witness::Element::bf16, witness::Element::fp16, witness::Element::tf32}) {
    CHECK(step.a == witness::descriptor(element, Operand::a, half, 4 * c + k, kX));
    CHECK(step.b == witness::descriptor(element, Operand::b, 0, k, kStages + stage * l2::kSlotBytes));
  }
  CHECK(step.add == add);
}

// Every step of a tile whose rows have kChunks chunks, for both halves of a warpgroup's 128 rows.
template <int kChunks>
void test_tile() {
  uint32_t y[kChunks];
  for (uint32_t c = 0; c < kChunks; ++c) y[c] = kStages + (3 + c) % 5 * l2::kSlotBytes;  // five stages: the stream wraps
  for (const int half : {0, 1}) {
    record([&](float (&acc)[64]) {
      l2::multiply_tile<Recorded, kChunks>(acc, kX + uint32_t(half) * (l2::kSlotBytes / 2), y);
    });
    CHECK(given.size() == 4 * kChunks);
    for (int k = 0; k < 4 * kChunks; ++k) expect(given[size_t(k)], half, k / 4, k % 4, uint32_t(3 + k / 4) % 5, k > 0);
  }
}

// A chunk of rows that stream.
template <bool kAdd>
void test_chunk() {
  for (const int half : {0, 1}) {
    record([&](float (&acc)[64]) {
      l2::multiply_chunk<Recorded, kAdd>(acc, kX + uint32_t(half) * (l2::kSlotBytes / 2), kStages);
    });
    CHECK(given.size() == 4);
    for (int k = 0; k < 4; ++k) expect(given[size_t(k)], half, 0, k, 0, kAdd || k > 0);
  }
}

// matrix_descriptor at every place where an atom can start.
void test_addresses() {
  for (uint32_t address = 0; address < 227 << 10; address += 1024)
    CHECK(matrix_descriptor(address) == witness::descriptor(witness::Element::bf16, Operand::b, 0, 0, address));
}

// accumulator_of() and column_of() say where wgmma leaves the columns of rows g (side 0) and g + 8 (side 2).
template <int kSide>
void test_accumulators(witness::Element element) {
  const auto c_at = witness::wgmma_accumulators(element);
  for (int thread = 0; thread < 128; ++thread)
    for (int i = 0; i < 32; ++i) {
      const At at = c_at[size_t(thread * 64 + l2::accumulator_of<kSide>(i))];
      const int lane = thread % 32;
      CHECK(at.row == thread / 32 * 16 + lane / 4 + 4 * kSide && at.column == l2::column_of(lane % 4 * 2, i));
    }
}

}  // namespace

void test_cute_hopper() {
  test_tile<1>();
  test_tile<2>();
  test_tile<3>();
  test_tile<4>();
  test_chunk<false>();
  test_chunk<true>();
  test_addresses();
  for (const witness::Element element : {witness::Element::bf16, witness::Element::fp16, witness::Element::tf32}) {
    test_accumulators<0>(element);
    test_accumulators<2>(element);
  }
}
