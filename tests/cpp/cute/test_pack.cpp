// cuda_pack.cu against CuTe: every coordinate of a packed block lies where a K-major tile with a 128-byte swizzle has it.
//
// Its source is part of this file, so that what is tested is what the kernel runs.
#include "cute/compare.h"
#include "l2_argmin/cuda_pack.cu"

namespace {

using namespace otk;
using namespace cute_test;

// Coordinates that say their row in one turn and their place in the other: all elements hold 1 to 256.
template <class Element>
void test_element() {
  constexpr int kChunks = witness::kChunks, d = kChunks * kChunk<Element>;
  const std::vector<float> centre(d, 0.0f);
  for (const bool by_row : {true, false}) {
    const auto number = [by_row](int row, int k) { return float(by_row ? row + 1 : k + 1); };
    std::vector<float> points(size_t(128 * d));
    for (int row = 0; row < 128; ++row)
      for (int k = 0; k < d; ++k) points[size_t(row * d + k)] = number(row, k);
    Guarded<unsigned char> packed(size_t(kChunks * l2::kSlotBytes), 0xff), low(size_t(kChunks * l2::kSlotBytes), 0xff);
    l2::Products w{};
    w.p.d = d;
    w.schedule.chunks = kChunks;
    host_cuda::run({"pack", 1, l2::kThreads, 0, nullptr}, [&] {
      const l2::Packer packer{w, centre.data(), {packed.data(), low.data()}};
      for (int pass = 0; pass < l2::kPasses; ++pass) {
        const int local = pass * (l2::kThreads / l2::kTeam) + int(threadIdx.x) / l2::kTeam;
        const float* const row = points.data() + local * d;
        l2::Measures of;
        if constexpr (std::is_same_v<Element, Fp16>)
          packer.split(row, local, 0, of);
        else
          packer.round<Element>(row, local);
      }
    });
    CHECK(packed.intact() && low.intact());
    for (int row = 0; row < 128; ++row)
      for (int k = 0; k < d; ++k) {
        const int at = witness::packed_offset(kElement<Element>, row, k);
        CHECK(element_at<Element>(packed.data() + at, 0) == word_of<Element>(number(row, k)));
      }
  }
}

}  // namespace

void test_cute_pack() {
  test_element<Bf16>();
  test_element<Fp16>();
  test_element<Tf32>();
}
