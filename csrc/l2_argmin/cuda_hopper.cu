// cuda_hopper.cu - candidates from tensor-core products on Hopper: bulk copies, wgmma, roles by warp.
//
// Layout    packed blocks of cuda_pack.cu. A work item's x, 256 rows, stays in shared memory (at most 128 KiB: rows of
//           four chunks); chunks of y, 128 columns x 128 bytes, stream through as many 16 KiB stages as are left of 224
//           KiB.
// Work      persistent blocks of nine warps take work items (schedule.h). Warp 8 issues one contiguous bulk copy a
//           stage, which lands on the stage's barrier. Two warpgroups own 128 rows each, as two halves of 64: both
//           halves' products of a tile are issued together, the first is read (cuda_candidates.h) while the second is
//           multiplied, and that one while the other warpgroup multiplies. 2 x 64 accumulators a thread; 288 threads
//           leave it 224 registers.
// Barriers  full[stage]: one arrival and the copy's bytes; empty[stage]: the eight warps that read it. x likewise, once
//           an item. Chunks of all items are one stream: stage and parity go on from item to item.
// Numerics  l2_argmin.h; scores and bar in cuda_candidates.h.
// Not yet run on a GPU.
#include "common/hopper.h"
#include "l2_argmin/cuda_candidates.h"

namespace otk::l2 {
namespace {

constexpr int kConsumers = 8, kThreads = 32 * kConsumers + 128, kRows = 2 * kBlock, kMostStages = 10;
constexpr int kSlotsInAll = 14;  // 224 KiB

struct Shared {
  BytesBarrier full[kMostStages], empty[kMostStages], x_full, x_empty;
  int counts[kRows];
};

// Most rows fill fewer: 10 stages suffice to hide a copy's way.
__host__ __device__ inline int stages_of(int chunks) {
  const int left = kSlotsInAll - 2 * chunks;
  return left < kMostStages ? left : kMostStages;
}

#if OTK_HOPPER

// A place in the stream of stages; parity flips each time round.
struct Ring {
  int stages, stage = 0, parity = 0;

  __device__ void advance() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

// One thread: everything that is read, in the order in which it is read.
__device__ void produce(const Products& w, unsigned char* x_slots, unsigned char* stages, Shared& shared) {
  const Schedule& s = w.schedule;
  Ring ring{stages_of(s.chunks)};
  int parity = 1;
  for (int64_t k = blockIdx.x; k < s.items(); k += gridDim.x, parity ^= 1) {
    const Item item = s.item(k);
    const unsigned char* const x = w.x + (item.entry * s.row_blocks + item.row_block) * s.packed_block_bytes();
    const unsigned char* const y = w.y + item.entry * s.column_blocks * s.packed_block_bytes();
    wait_barrier(&shared.x_empty, parity);
    arrive_expecting(&shared.x_full, uint32_t(2 * s.chunks * kSlotBytes));
    for (int c = 0; c < 2 * s.chunks; ++c)
      copy_bulk(x_slots + c * kSlotBytes, x + c * kSlotBytes, kSlotBytes, &shared.x_full);
    for (int64_t visit = 0; visit < s.visits(item); ++visit) {
      const unsigned char* const block = y + s.visited(item, visit) * s.packed_block_bytes();
      for (int c = 0; c < s.chunks; ++c, ring.advance()) {
        wait_barrier(&shared.empty[ring.stage], ring.parity ^ 1);
        arrive_expecting(&shared.full[ring.stage], kSlotBytes);
        copy_bulk(stages + ring.stage * kSlotBytes, block + c * kSlotBytes, kSlotBytes, &shared.full[ring.stage]);
      }
    }
  }
}

// acc (+)= the products of kSteps steps of a chunk.
template <int kSteps, class Element>
__device__ __forceinline__ void multiply_chunk(float (&acc)[64], uint64_t a, uint64_t b, bool add) {
  begin_products();
#pragma unroll
  for (int k = 0; k < kSteps; ++k) warpgroup_multiply<Element>(acc, a + 2 * k, b + 2 * k, add || k > 0);
}

// acc = products of 64 rows, whose chunks start at x, with the tile whose first chunk is at `ring`: one group.
template <class Element, bool kWait>
__device__ __forceinline__ void multiply_tile(float (&acc)[64], const Schedule& s, Ring ring, uint32_t x, uint32_t stages,
                                              Shared& shared) {
  const int last = s.chunks - 1;
#pragma unroll 1
  for (int c = 0; c < last; ++c, ring.advance(), x += kSlotBytes) {
    if (kWait) wait_barrier(&shared.full[ring.stage], ring.parity);
    multiply_chunk<4, Element>(acc, matrix_descriptor(x), matrix_descriptor(stages + ring.stage * kSlotBytes), c > 0);
  }
  if (kWait) wait_barrier(&shared.full[ring.stage], ring.parity);
  const uint64_t a = matrix_descriptor(x), b = matrix_descriptor(stages + ring.stage * kSlotBytes);
  const int steps = s.steps_of(last);
  // Straight lines: a commit that is apart from its products costs the assembler an empty product.
  if (steps == 1) {
    multiply_chunk<1, Element>(acc, a, b, last > 0);
    commit_products();
  } else if (steps == 2) {
    multiply_chunk<2, Element>(acc, a, b, last > 0);
    commit_products();
  } else if (steps == 3) {
    multiply_chunk<3, Element>(acc, a, b, last > 0);
    commit_products();
  } else {
    multiply_chunk<4, Element>(acc, a, b, last > 0);
    commit_products();
  }
}

template <class Element, bool kExact>
__device__ void consume(const Products& w, unsigned char* x_slots, unsigned char* stages, Shared& shared) {
  const Schedule& s = w.schedule;
  const int lane = threadIdx.x % 32, group = threadIdx.x / 128, own = threadIdx.x % 4 * 2;
  const int row0 = group * kBlock + threadIdx.x / 32 % 4 * 16 + lane / 4;  // + 8, and + 64 for the second half
  const uint32_t x = shared_address(x_slots) + uint32_t(group * s.chunks * kSlotBytes), y = shared_address(stages);
  Ring ring{stages_of(s.chunks)};
  int parity = 0;
  float acc0[64], acc1[64];
  for (int64_t k = blockIdx.x; k < s.items(); k += gridDim.x, parity ^= 1) {
    const Item item = s.item(k);
    const Lists lists = lists_of(w, item, 0, item.row_block * kBlock, shared.counts);
    const float* const x_error = w.x_error + item.entry * s.rows() + item.row_block * kBlock;
    const float* const half = w.half + item.entry * s.columns();
    RowState<kExact> rows[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = row0 + r / 2 * 64 + r % 2 * 8;
      rows[r].start(x_error[row]);
      if (lane % 4 == 0) shared.counts[row] = 0;
    }
    __syncwarp();
    wait_barrier(&shared.x_full, parity);
    for (int64_t visit = 0; visit < s.visits(item); ++visit) {
      const int64_t block = s.visited(item, visit);
      const int column = int(block * kBlock) + own;
      float2 h[16];
      load_halves(half, column, h);
      const float spread = __ldg(w.spread + item.entry * s.column_blocks + block);
      multiply_tile<Element, true>(acc0, s, ring, x, y, shared);
      multiply_tile<Element, false>(acc1, s, ring, x + kSlotBytes / 2, y, shared);
      wait_products<1>(acc0);
      take<16, 0>(acc0, h, rows[0], spread, column, visit > 0, lists, row0);
      take<16, 2>(acc0, h, rows[1], spread, column, visit > 0, lists, row0 + 8);
      wait_products<0>(acc1);
      for (int c = 0; c < s.chunks; ++c, ring.advance())
        if (lane == 0) arrive(&shared.empty[ring.stage]);
      take<16, 0>(acc1, h, rows[2], spread, column, visit > 0, lists, row0 + 64);
      take<16, 2>(acc1, h, rows[3], spread, column, visit > 0, lists, row0 + 72);
    }
    if (lane == 0) arrive(&shared.x_empty);
    const int64_t first = s.list(item.entry, item.part, 0, item.row_block * kBlock);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = row0 + r / 2 * 64 + r % 2 * 8;
      finish(w, rows[r], lists, row, first + row);
    }
  }
}

#endif

template <class Element, bool kExact>
__global__ void __launch_bounds__(kThreads, 1) products(const Products w) {
#if OTK_HOPPER
  unsigned char* const x_slots = shared_memory<unsigned char>();
  unsigned char* const stages = x_slots + 2 * w.schedule.chunks * kSlotBytes;
  const int count = stages_of(w.schedule.chunks);
  Shared& shared = *reinterpret_cast<Shared*>(stages + count * kSlotBytes);
  if (threadIdx.x == 0) {
    for (int k = 0; k < count; ++k) {
      init_barrier(&shared.full[k], 1);
      init_barrier(&shared.empty[k], kConsumers);
    }
    init_barrier(&shared.x_full, 1);
    init_barrier(&shared.x_empty, kConsumers);
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < 32 * kConsumers) {
    more_registers<240>();
    consume<Element, kExact>(w, x_slots, stages, shared);
  } else {
    fewer_registers<24>();
    if (threadIdx.x == 32 * kConsumers) produce(w, x_slots, stages, shared);
  }
#endif
}

template <class Element, bool kExact>
void run(const Products& w, int multiprocessors, void* stream) {
  const int64_t items = w.schedule.items();
  const size_t bytes = size_t(2 * w.schedule.chunks + stages_of(w.schedule.chunks)) * kSlotBytes + sizeof(Shared);
  const Launch l{describe("hopper", w.p), items < multiprocessors ? items : multiprocessors, kThreads, bytes, stream};
  launch(l, products<Element, kExact>, w);
}

}  // namespace

void launch_products_hopper(const Products& w, Precision precision, int multiprocessors, void* stream) {
  if (precision == Precision::exact) return run<Bf16, true>(w, multiprocessors, stream);
  if (precision == Precision::bf16) return run<Bf16, false>(w, multiprocessors, stream);
  run<Tf32, false>(w, multiprocessors, stream);
}

}  // namespace otk::l2
