// The emulator's instructions (cuda_on_host) against CuTe's traits: mma.sync, ldmatrix, wgmma and the numbers they read.
#include <cmath>
#include <random>

#include "cute/compare.h"

namespace {

using namespace otk;
using namespace cute_test;

// Every word: what the emulator multiplies by is what CuTe says it stands for.
template <class Element>
void test_numbers() {
  std::mt19937 generator(1);
  for (uint32_t k = 0; k < 65536; ++k) {
    const uint32_t word = Element::kBytes == 2 ? k : k << 16 | (generator() & 0xffff);
    unsigned char bytes[4];
    std::memcpy(bytes, &word, 4);
    const float ours = host_cuda::factor_at(Element{}, bytes), theirs = witness::value(kElement<Element>, word);
    CHECK(std::isnan(theirs) ? std::isnan(ours) : std::bit_cast<uint32_t>(ours) == std::bit_cast<uint32_t>(theirs));
  }
}

// ---- mma.sync -------------------------------------------------------------------------------------------------------

struct Registers {
  uint32_t a[4] = {}, b[2] = {};
  float c[4] = {};
};

// C += A B^T on a warp, whose registers CuTe's tables fill and read.
template <class Element>
void multiply(const std::vector<float>& a, const std::vector<float>& b, std::vector<float>& c) {
  constexpr int kA = 16 / Element::kBytes, kB = 8 / Element::kBytes;
  const auto a_at = witness::mma(kElement<Element>, Operand::a), b_at = witness::mma(kElement<Element>, Operand::b),
             c_at = witness::mma(kElement<Element>, Operand::c);
  CHECK(a_at.size() == 32 * kA && b_at.size() == 32 * kB && c_at.size() == 32 * 4);
  Registers warp[32];
  for (int lane = 0; lane < 32; ++lane) {
    for (int v = 0; v < kA; ++v) {
      const At at = a_at[size_t(lane * kA + v)];
      put<Element>(warp[lane].a, v, word_of<Element>(a[size_t(at.row * kStep<Element> + at.column)]));
    }
    for (int v = 0; v < kB; ++v) {
      const At at = b_at[size_t(lane * kB + v)];
      put<Element>(warp[lane].b, v, word_of<Element>(b[size_t(at.row * kStep<Element> + at.column)]));
    }
    for (int v = 0; v < 4; ++v) {
      const At at = c_at[size_t(lane * 4 + v)];
      warp[lane].c[v] = c[size_t(at.row * 8 + at.column)];
    }
  }
  host_cuda::run({"mma", 1, 32, 0, nullptr}, [&] {
    Registers& r = warp[threadIdx.x];
    multiply_add<Element>(r.c, r.a, r.b[0], r.b[1]);
  });
  for (int lane = 0; lane < 32; ++lane)
    for (int v = 0; v < 4; ++v) {
      const At at = c_at[size_t(lane * 4 + v)];
      c[size_t(at.row * 8 + at.column)] = warp[lane].c[v];
    }
}

// Every element of A alone, with a B whose elements all differ: row m of C shows where A(m, k) met B(n, k).
template <class Element>
void test_mma() {
  constexpr int kSteps = kStep<Element>;
  std::vector<float> b(size_t(8 * kSteps));
  for (size_t k = 0; k < b.size(); ++k) b[k] = float(1 + k);
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < kSteps; ++k) {
      std::vector<float> a(size_t(16 * kSteps)), c(16 * 8);
      a[size_t(m * kSteps + k)] = 1;
      for (size_t i = 0; i < c.size(); ++i) c[i] = float(1000 * (i + 1));
      multiply<Element>(a, b, c);
      for (int i = 0; i < 16; ++i)
        for (int n = 0; n < 8; ++n)
          CHECK(c[size_t(i * 8 + n)] == float(1000 * (i * 8 + n + 1)) + (i == m ? b[size_t(n * kSteps + k)] : 0));
    }
}

// ---- ldmatrix -------------------------------------------------------------------------------------------------------

// Rows of random bits at places that have nothing to do with each other; every bit of every register.
void test_ldmatrix() {
  std::mt19937 generator(2);
  constexpr int kBytes = 8192;
  uint32_t memory[kBytes / 4], loaded[32][4];
  for (uint32_t& word : memory) word = generator();
  int places[32];
  for (int lane = 0; lane < 32; ++lane) places[lane] = (lane * 37 + 11) % (kBytes / 16) * 16;
  on_host(32, kBytes, [&] {
    unsigned char* const shared = shared_memory<unsigned char>();
    if (threadIdx.x == 0) std::memcpy(shared, memory, kBytes);
    __syncwarp();
    load_matrices(loaded[threadIdx.x], shared + places[threadIdx.x]);
  });
  for (int lane = 0; lane < 32; ++lane)
    for (int bit = 0; bit < 128; ++bit) {
      const At from = witness::ldmatrix(lane, bit);
      const uint32_t word = memory[places[from.row] / 4 + from.column / 32];
      CHECK((loaded[lane][bit / 32] >> bit % 32 & 1) == (word >> from.column % 32 & 1));
    }
}

// ---- wgmma ----------------------------------------------------------------------------------------------------------

// Every place of 16 bytes that the emulator reads for a row of a descriptor's matrix, in the order of its coordinates.
template <class Element>
void test_rows() {
  constexpr int kBlock = witness::kChunks * 128 * 128, kPiece = 16 / Element::kBytes;
  host_cuda::run({"rows of a matrix", 1, 32, kBlock, nullptr}, [] {
    if (threadIdx.x != 0) return;
    for (const Operand operand : {Operand::a, Operand::b})
      for (int half = 0; half < (operand == Operand::a ? 2 : 1); ++half)
        for (int step = 0; step < 4 * witness::kChunks; ++step) {
          const uint64_t matrix = witness::descriptor(kElement<Element>, operand, half, step, 0);
          for (int row = 0; row < (operand == Operand::a ? 64 : 128); ++row)
            for (int piece = 0; piece < 2; ++piece) {
              const unsigned char* const place = host_cuda::row_at(matrix, unsigned(row))[size_t(piece)];
              const int k = step * kStep<Element> + piece * kPiece;
              CHECK(place - shared_memory<unsigned char>() ==
                    witness::packed_offset(kElement<Element>, 64 * half + row, k));
            }
        }
  });
}

using Number = std::function<float(int, int)>;  // of a row and a coordinate, or of a row and a column

// Two warpgroups multiply rows 0 .. 63 and 64 .. 127 of A by B at step `step` of the second chunk of four, with CuTe's
// layout, descriptors and accumulators.
template <class Element>
void check_wgmma(int step, const Number& a, const Number& b, const Number& start, bool add) {
  constexpr int kChunks = witness::kChunks, kBytes = kChunks * 128 * 128;
  const int at = 4 + step;
  float out[256][64];
  on_host(256, 2 * kBytes, [&] {
    unsigned char* const shared = shared_memory<unsigned char>();
    if (threadIdx.x == 0) {
      const auto word = [](const Number& number) {
        return [&number](int row, int k) { return word_of<Element>(number(row, k)); };
      };
      fill_block<Element>(shared, kChunks, word(a));
      fill_block<Element>(shared + kBytes, kChunks, word(b));
      fence_async_proxy();
    }
    __syncthreads();
    const auto c_at = witness::wgmma_accumulators(kElement<Element>);
    const int half = int(threadIdx.x) / 128;
    float acc[64];
    for (int v = 0; v < 64; ++v) {
      const At c = c_at[threadIdx.x % 128 * 64 + size_t(v)];
      acc[v] = start(64 * half + c.row, c.column);
    }
    begin_products();
    warpgroup_multiply<Element>(acc, witness::descriptor(kElement<Element>, Operand::a, half, at, 0),
                                witness::descriptor(kElement<Element>, Operand::b, 0, at, kBytes), add);
    commit_products();
    wait_products<0>(acc);
    std::memcpy(out[threadIdx.x], acc, sizeof acc);
  });
  const auto c_at = witness::wgmma_accumulators(kElement<Element>);
  for (int thread = 0; thread < 256; ++thread)
    for (int v = 0; v < 64; ++v) {
      const At c = c_at[size_t(thread % 128 * 64 + v)];
      const int row = thread / 128 * 64 + c.row;
      double sum = add ? start(row, c.column) : 0.0;
      for (int k = at * kStep<Element>; k < (at + 1) * kStep<Element>; ++k) sum += double(a(row, k)) * b(c.column, k);
      CHECK(out[thread][v] == float(sum));
    }
}

template <class Element>
void test_wgmma() {
  constexpr int kSteps = kStep<Element>;
  const Number start = [](int row, int column) { return float(1024 * (row * 128 + column + 1)); };
  // A has one 1 a row and a step, at a place that moves from row to row and, over the turns, everywhere; B says which of
  // its columns, and then which of its coordinates, was met.
  for (int turn = 0; turn < kSteps; ++turn) {
    const Number a = [turn](int row, int k) { return float(k % kSteps == (row + turn) % kSteps); };
    const int step = turn % 4;
    check_wgmma<Element>(step, a, [](int n, int) { return float(n + 1); }, start, true);
    check_wgmma<Element>(step, a, [](int, int k) { return float(k + 1); }, start, false);
  }
  std::mt19937 generator(3);
  std::vector<float> numbers(2 * 128 * 256);
  for (float& number : numbers) number = float(int(generator() % 15) - 7);
  const auto random = [&numbers](int matrix) {
    return [&numbers, matrix](int row, int k) { return numbers[size_t((matrix * 128 + row) * 256 + k)]; };
  };
  for (int step = 0; step < 4; ++step) check_wgmma<Element>(step, random(0), random(1), start, step % 2 == 0);
}

template <class Element>
void test_element() {
  test_numbers<Element>();
  test_mma<Element>();
  test_rows<Element>();
  test_wgmma<Element>();
}

}  // namespace

void test_cute_instructions() {
  test_element<Bf16>();
  test_element<Fp16>();
  test_element<Tf32>();
  test_ldmatrix();
}
