// witness.cpp - CuTe's side of the comparison: see witness.h.
#include <cstddef>

// CuTe asks this of a shared pointer when it makes a descriptor. Here such a pointer is the address itself.
#define CUTE_CVTA_GENERIC_TO_SHARED_ACTIVATED 1
static std::size_t __cvta_generic_to_shared(const void* p) { return reinterpret_cast<std::size_t>(p); }

#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_atom.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>
#include <cute/tensor.hpp>

#include "witness.h"

namespace witness {
namespace {

using namespace cute;

template <Element>
struct Of;
template <>
struct Of<Element::bf16> {
  using Type = cutlass::bfloat16_t;
  using Mma = SM80_16x8x16_F32BF16BF16F32_TN;
  using Wgmma = SM90_64x128x16_F32BF16BF16_SS<GMMA::Major::K, GMMA::Major::K>;
};
template <>
struct Of<Element::fp16> {
  using Type = cutlass::half_t;
  using Mma = SM80_16x8x16_F32F16F16F32_TN;
  using Wgmma = SM90_64x128x16_F32F16F16_SS<GMMA::Major::K, GMMA::Major::K>;
};
template <>
struct Of<Element::tf32> {
  using Type = cutlass::tfloat32_t;
  using Mma = SM80_16x8x8_F32TF32TF32F32_TN;
  using Wgmma = SM90_64x128x8_F32TF32TF32_SS_TN<>;
};

// visit(Of<element>{})
template <class Visit>
auto with(Element element, Visit visit) {
  if (element == Element::bf16) return visit(Of<Element::bf16>{});
  if (element == Element::fp16) return visit(Of<Element::fp16>{});
  return visit(Of<Element::tf32>{});
}

// A layout from (thread, value) to row + rows * column.
template <class Layout>
std::vector<At> table(Layout layout, int rows) {
  std::vector<At> all;
  for (int thread = 0; thread < size<0>(layout); ++thread)
    for (int value = 0; value < size<1>(layout); ++value) {
      const int at = layout(thread, value);
      all.push_back({at % rows, at / rows});
    }
  return all;
}

// The block as a tensor in shared memory at `address`.
template <class Type>
auto block_at(uintptr_t address) {
  using Width = Int<kChunks * 128 / int(sizeof(Type))>;
  return make_tensor(make_smem_ptr(reinterpret_cast<Type*>(address)),
                     tile_to_shape(GMMA::Layout_K_SW128_Atom<Type>{}, Shape<_128, Width>{}));
}

}  // namespace

std::vector<At> mma(Element element, Operand operand) {
  return with(element, [operand](auto of) {
    using Traits = MMA_Traits<typename decltype(of)::Mma>;
    const int m = size<0>(typename Traits::Shape_MNK{}), n = size<1>(typename Traits::Shape_MNK{});
    if (operand == Operand::a) return table(typename Traits::ALayout{}, m);
    if (operand == Operand::b) return table(typename Traits::BLayout{}, n);
    return table(typename Traits::CLayout{}, m);
  });
}

At ldmatrix(int lane, int bit) {
  using Traits = Copy_Traits<SM75_U32x4_LDSM_N>;
  // Both layouts go from (thread, bit) to one numbering of all bits; the source's has 128 a thread, one after the other.
  const int at = typename Traits::DstLayout{}(lane, bit);
  for (int source = 0; source < size<0>(typename Traits::SrcLayout{}); ++source)
    for (int b = 0; b < size<1>(typename Traits::SrcLayout{}); ++b)
      if (typename Traits::SrcLayout{}(source, b) == at) return {source, b};
  return {-1, -1};
}

std::vector<At> wgmma_accumulators(Element element) {
  return with(element, [](auto of) {
    using Traits = MMA_Traits<typename decltype(of)::Wgmma>;
    static_assert(size<0>(typename Traits::CLayout{}) == 128 && size<1>(typename Traits::CLayout{}) == 64);
    return table(typename Traits::CLayout{}, 64);
  });
}

int packed_offset(Element element, int row, int k) {
  return with(element, [row, k](auto of) {
    constexpr uintptr_t kBase = 1 << 20;
    auto block = block_at<typename decltype(of)::Type>(kBase);
    return int(reinterpret_cast<uintptr_t>(raw_pointer_cast(&block(row, k))) - kBase);
  });
}

uint64_t descriptor(Element element, Operand operand, int half, int step, uint32_t address) {
  return with(element, [=](auto of) {
    auto product = make_tiled_mma(typename decltype(of)::Wgmma{});
    auto thread = product.get_slice(0);
    auto block = block_at<typename decltype(of)::Type>(address);
    if (operand == Operand::a) {
      auto fragments = thread.make_fragment_A(thread.partition_A(block));  // [1, 2, steps]
      return (*fragments(_, half, step).data()).desc_;
    }
    auto fragments = thread.make_fragment_B(thread.partition_B(block));  // [1, 1, steps]
    return (*fragments(_, 0, step).data()).desc_;
  });
}

float value(Element element, uint32_t word) {
  return with(element, [word](auto of) {
    using Type = typename decltype(of)::Type;
    if constexpr (sizeof(Type) == 2)
      return float(Type::bitcast(uint16_t(word)));
    else
      return float(Type::bitcast(word));
  });
}

}  // namespace witness
