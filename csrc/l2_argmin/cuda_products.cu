// cuda_products.cu - candidates from tensor-core products, sm_80 and later: mma.sync fed by cp.async.
//
// Layout    packed blocks of cuda_pack.cu; a shared-memory slot holds one 128 x 128-byte chunk (16 KiB), six slots in
//           all. Up to two chunks a row, x stays resident and y streams through the other four slots; longer rows
//           stream both through three pairs. 96 KiB and a little: it fits the 99 KiB of sm_86 and sm_120.
// Work      a block takes work items (schedule.h) one after the other: 128 rows against a part of the columns, 128 at a
//           time. Eight warps, four by two, each with 32 x 64 products. Copies run kRing - 1 steps ahead of the
//           products, one barrier a step.
// Numerics  l2_argmin.h; scores and bar in cuda_candidates.h.
// Not yet run on a GPU.
#include "common/mma.h"
#include "l2_argmin/cuda_candidates.h"

namespace otk::l2 {
namespace {

constexpr int kThreads = 256, kSlots = 6, kWriters = 2, kMostResident = 2;

// A step of the stream: which visit, which chunk of it, and where in the ring it lies.
template <int kRing>
struct Cursor {
  int64_t visit = 0;
  int chunk = 0, slot = 0;

  __device__ void advance(int chunks) {
    slot = slot + 1 < kRing ? slot + 1 : 0;
    chunk = chunk + 1 < chunks ? chunk + 1 : 0;
    visit += chunk == 0;
  }
};

__device__ void copy_slot(unsigned char* to, const unsigned char* from) {
#pragma unroll
  for (int k = 0; k < kSlotBytes / (16 * kThreads); ++k) {
    const int at = 16 * (int(threadIdx.x) + kThreads * k);
    copy_async16(to + at, from + at);
  }
}

__device__ const unsigned char* swizzled(const unsigned char* slot, int row, int piece) {
  return slot + row * kChunkBytes + ((piece ^ (row & 7)) << 4);
}

// acc += this warp's 32 x 64 part of the chunk's products.
template <class Element>
__device__ void multiply_chunk(float (&acc)[2][32], const unsigned char* x, const unsigned char* y, int steps) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp % 4 * 32 + lane % 16, column = warp / 4 * 64 + lane / 16 * 8 + lane % 8;
#pragma unroll 1
  for (int k = 0; k < steps; ++k) {
    uint32_t a[2][4], b[4][4];
#pragma unroll
    for (int t = 0; t < 2; ++t) load_matrices(a[t], swizzled(x, row + 16 * t, 2 * k + lane / 16));
#pragma unroll
    for (int t = 0; t < 4; ++t) load_matrices(b[t], swizzled(y, column + 16 * t, 2 * k + lane / 8 % 2));
#pragma unroll
    for (int t = 0; t < 4; ++t)
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        multiply_add<Element>(acc[u] + 8 * t, a[u], b[t][0], b[t][1]);
        multiply_add<Element>(acc[u] + 8 * t + 4, a[u], b[t][2], b[t][3]);
      }
  }
}

template <class Element, bool kExact, bool kResident>
struct Solver {
  static constexpr int kRing = kResident ? kSlots - kMostResident : kSlots / 2;

  const Products& w;
  const Item item;
  const unsigned char* x;
  const unsigned char* y;
  unsigned char* slots;
  Lists lists;
  RowState<kExact> rows[2][2];  // rows 16 u + g and + 8 of the warp's 32

  __device__ Solver(const Products& products, int64_t k, unsigned char* shared)
      : w(products), item(products.schedule.item(k)), slots(shared) {
    const Schedule& s = w.schedule;
    x = w.x + (item.entry * s.row_blocks + item.row_block) * s.packed_block_bytes();
    y = w.y + item.entry * s.column_blocks * s.packed_block_bytes();
    int* const counts = reinterpret_cast<int*>(slots + kSlots * kSlotBytes);  // [kWriters, kBlock]
    lists = lists_of(w, item, writer(), item.row_block * kBlock, counts + writer() * kBlock);
    const float* const x_error = w.x_error + item.entry * s.rows() + item.row_block * kBlock;
#pragma unroll
    for (int r = 0; r < 4; ++r) rows[r / 2][r % 2].start(x_error[row(r)]);
    lists.counts[threadIdx.x / 32 % 4 * 32 + threadIdx.x % 32] = 0;
    __syncwarp();
  }

  __device__ int writer() const { return threadIdx.x / 128; }
  __device__ int row(int r) const { return threadIdx.x / 32 % 4 * 32 + 8 * r + threadIdx.x % 32 / 4; }

  __device__ unsigned char* y_slot(int slot) const {
    return slots + (kResident ? kMostResident + slot : 2 * slot + 1) * kSlotBytes;
  }
  __device__ unsigned char* x_slot(const Cursor<kRing>& at) const {
    return slots + (kResident ? at.chunk : 2 * at.slot) * kSlotBytes;
  }

  // Starts the copies of a step, or an empty group past the end.
  __device__ void fetch(const Cursor<kRing>& at, int64_t visits) {
    if (at.visit < visits) {
      const int64_t block = w.schedule.visited(item, at.visit);
      copy_slot(y_slot(at.slot), y + (block * w.schedule.chunks + at.chunk) * kSlotBytes);
      if (!kResident || at.visit == 0) copy_slot(x_slot(at), x + at.chunk * kSlotBytes);
    }
    commit_copies();
  }

  __device__ void take_tile(const float (&acc)[2][32], const float2 (&h)[8], float spread, int column, bool collect) {
    take<8, 0>(acc[0], h, rows[0][0], spread, column, collect, lists, row(0));
    take<8, 2>(acc[0], h, rows[0][1], spread, column, collect, lists, row(1));
    take<8, 0>(acc[1], h, rows[1][0], spread, column, collect, lists, row(2));
    take<8, 2>(acc[1], h, rows[1][1], spread, column, collect, lists, row(3));
  }

  __device__ void run() {
    const Schedule& s = w.schedule;
    const int64_t visits = s.visits(item);
    const float* const half = w.half + item.entry * s.columns();
    const int own = writer() * 64 + threadIdx.x % 4 * 2;
    Cursor<kRing> ahead, at;
#pragma unroll
    for (int k = 0; k < kRing - 1; ++k) fetch(ahead, visits), ahead.advance(s.chunks);
    float acc[2][32] = {};
    float2 h[8];
    for (; at.visit < visits; at.advance(s.chunks)) {
      wait_copies<kRing - 2>();
      __syncthreads();  // this step has landed for all, and all are done with the one whose slot is fetched next
      fetch(ahead, visits), ahead.advance(s.chunks);
      const int64_t block = s.visited(item, at.visit);
      const bool ends = at.chunk == s.chunks - 1;
      if (ends) load_halves(half, block * kBlock + own, h);
      multiply_chunk<Element>(acc, x_slot(at), y_slot(at.slot), s.steps_of(at.chunk));
      if (!ends) continue;
      const float spread = __ldg(w.spread + item.entry * s.column_blocks + block);
      take_tile(acc, h, spread, int(block * kBlock) + own, at.visit > 0);
#pragma unroll
      for (int k = 0; k < 64; ++k) acc[k / 32][k % 32] = 0;
    }
    const int64_t first = s.list(item.entry, item.part, writer(), item.row_block * kBlock);
#pragma unroll
    for (int r = 0; r < 4; ++r) finish(w, rows[r / 2][r % 2], lists, row(r), first + row(r));
  }
};

template <class Element, bool kExact, bool kResident>
__global__ void __launch_bounds__(kThreads, 1) products(const Products w) {
  for (int64_t k = blockIdx.x; k < w.schedule.items(); k += gridDim.x) {
    __syncthreads();  // the slots are free
    Solver<Element, kExact, kResident>(w, k, shared_memory<unsigned char>()).run();
  }
}

template <class Element, bool kExact>
void run(const Products& w, int multiprocessors, void* stream) {
  const int64_t items = w.schedule.items();
  const size_t bytes = kSlots * kSlotBytes + sizeof(int) * kWriters * kBlock;
  const Launch l{describe("products", w.p), items < multiprocessors ? items : multiprocessors, kThreads, bytes, stream};
  const bool resident = w.schedule.chunks <= kMostResident;
  launch(l, resident ? products<Element, kExact, true> : products<Element, kExact, false>, w);
}

}  // namespace

void launch_products(const Products& w, Precision precision, int multiprocessors, void* stream) {
  if (precision == Precision::exact) return run<Bf16, true>(w, multiprocessors, stream);
  if (precision == Precision::bf16) return run<Bf16, false>(w, multiprocessors, stream);
  run<Tf32, false>(w, multiprocessors, stream);
}

}  // namespace otk::l2
