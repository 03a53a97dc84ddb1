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

// Every step of a tile whose rows have `steps` steps, for both halves of a warpgroup's 128 rows.
void test_descriptors(int steps) {
  l2::Schedule s{};
  s.steps = steps;
  s.chunks = (steps + 3) / 4;
  constexpr uint32_t kX = 2 * l2::kSlotBytes, kStages = 7 * l2::kSlotBytes;
  const l2::Ring ring{5, 3};  // the fourth of five stages: the stream wraps
  for (const int half : {0, 1}) {
    given.clear();
    host_cuda::run({"multiply_tile", 1, 32, sizeof(l2::Shared), nullptr}, [&] {
      float acc[64];
      if (threadIdx.x == 0)
        l2::multiply_tile<Recorded, false>(acc, s, ring, kX + uint32_t(half) * (l2::kSlotBytes / 2), kStages,
                                           *shared_memory<l2::Shared>());
    });
    CHECK(int(given.size()) == steps);
    for (int k = 0; k < steps; ++k) {
      const uint32_t stage = uint32_t((ring.stage + k / 4) % ring.stages);
      for (const witness::Element element : {witness::Element::bf16, witness::Element::fp16, witness::Element::tf32}) {
        CHECK(given[size_t(k)].a == witness::descriptor(element, Operand::a, half, k, kX));
        CHECK(given[size_t(k)].b == witness::descriptor(element, Operand::b, 0, k % 4, kStages + stage * l2::kSlotBytes));
      }
      CHECK(given[size_t(k)].add == (k > 0));
    }
  }
}

// matrix_descriptor at every place where an atom can start.
void test_addresses() {
  for (uint32_t address = 0; address < 227 << 10; address += 1024)
    CHECK(matrix_descriptor(address) == witness::descriptor(witness::Element::bf16, Operand::b, 0, 0, address));
}

// score() and column_of() read the accumulators where wgmma leaves them.
template <int kSide>
void test_accumulators(witness::Element element) {
  constexpr int N = 16;
  const auto c_at = witness::wgmma_accumulators(element);
  float acc[4 * N];
  float2 h[N] = {};
  for (int k = 0; k < 4 * N; ++k) acc[k] = float(k);
  for (int thread = 0; thread < 128; ++thread)
    for (int i = 0; i < 2 * N; ++i) {
      const At at = c_at[size_t(thread * 64 + int(l2::score<N, kSide>(acc, h, i)))];
      const int lane = thread % 32;
      CHECK(at.row == thread / 32 * 16 + lane / 4 + 4 * kSide && at.column == l2::column_of(lane % 4 * 2, i));
    }
}

}  // namespace

void test_cute_hopper() {
  for (int steps = 1; steps <= 4 * witness::kChunks; ++steps) test_descriptors(steps);
  test_addresses();
  for (const witness::Element element : {witness::Element::bf16, witness::Element::fp16, witness::Element::tf32}) {
    test_accumulators<0>(element);
    test_accumulators<2>(element);
  }
}
