// cuda_hopper.cu - candidates from tensor-core products on Hopper: bulk copies, wgmma, roles by warp.
//
// Layout    packed blocks of cuda_pack.cu. A work item's x, 256 rows, stays in shared memory while it has at most four
//           chunks (128 KiB); chunks of y, 128 columns x 128 bytes, stream through as many 16 KiB stages as are left of
//           224 KiB. Longer rows stream x as well: four stages of three slots, the same chunk of x (two) and of y.
// Work      persistent blocks of three warpgroups take work items (schedule.h). A thread of the last one issues
//           contiguous bulk copies, which land on their stage's barrier. The others own 128 rows each, as two halves of
//           64: both halves' products of a tile are issued together, the first is read (cuda_candidates.h) while the
//           second is multiplied, and that one while the other warpgroup multiplies. 2 x 64 accumulators a thread; the
//           copying warpgroup gives its registers to the others, which then have 240.
//           Where x stays they take turns: a warpgroup issues a tile's products when the other has issued its own, so
//           that one reads while the other multiplies, and neither finds the tensor cores idle after both. Where it
//           streams, a stage is free when the products behind its own have been issued.
// Barriers  full[stage]: one arrival and the copy's bytes; empty[stage]: the eight warps that read it. x likewise, once
//           an item. Chunks of all items are one stream: stage and parity go on from item to item. turn[group]: the four
//           warps of the other warpgroup; the first turn is group 0's.
// Assembler a tile's products are one straight line behind one fence, for each number of chunks: every fence and every
//           branch would end a group of products, and their overlap. The warpgroup's number comes from a shuffle, so that
//           it, and the addresses of what is multiplied, are in uniform registers: in sm_90a's SASS no move to them
//           holds up a tile's products. With x streaming, each chunk is such a line of 8 products.
// Numerics  l2_argmin.h; scores and bar in cuda_candidates.h.
// Not yet run on a GPU.
#include "common/hopper.h"
#include "l2_argmin/cuda_candidates.h"

namespace otk::l2 {
namespace {

constexpr int kConsumers = 8, kThreads = 32 * kConsumers + 128, kRows = 2 * kBlock, kMostStages = 10;
constexpr int kSlotsInAll = 14;  // 224 KiB
constexpr int kStreamed = 0;     // as the number of chunks: x streams, whatever the number

struct Shared {
  BytesBarrier full[kMostStages], empty[kMostStages], x_full, x_empty, turn[2];
  int counts[kRows];
};

__host__ __device__ constexpr int stage_slots(int chunks) { return chunks == kStreamed ? 3 : 1; }

// 10 stages suffice to hide a copy's way.
__host__ __device__ constexpr int stages_of(int chunks) {
  const int left = (kSlotsInAll - 2 * chunks) / stage_slots(chunks);
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

__device__ inline Item item_of(const Schedule& s, uint32_t k) {
  const uint32_t entry = k / uint32_t(s.entry_items);
  return s.item(entry, k - entry * uint32_t(s.entry_items), s.n);
}

// One thread: everything that is read, in the order in which it is read.
template <int kChunks>
__device__ void produce(const Products& w, unsigned char* x_slots, unsigned char* stages, Shared& shared) {
  const Schedule& s = w.schedule;
  constexpr int kSlots = stage_slots(kChunks);
  Ring ring{stages_of(kChunks)};
  int parity = 1;
  for (uint32_t k = blockIdx.x; k < uint32_t(s.items()); k += gridDim.x, parity ^= 1) {
    const Item item = item_of(s, k);
    const unsigned char* const x = w.x[0] + (item.entry * s.row_blocks + item.row_block) * s.packed_block_bytes();
    const unsigned char* const y = w.y[0] + item.entry * s.column_blocks * s.packed_block_bytes();
    if constexpr (kChunks != kStreamed) {
      wait_barrier(&shared.x_empty, parity);
      arrive_expecting(&shared.x_full, uint32_t(2 * kChunks * kSlotBytes));
      for (int c = 0; c < 2 * kChunks; ++c)
        copy_bulk(x_slots + c * kSlotBytes, x + c * kSlotBytes, kSlotBytes, &shared.x_full);
    }
    for (int64_t visit = 0; visit < s.visits(item); ++visit) {
      const unsigned char* const block = y + s.visited(item, visit) * s.packed_block_bytes();
      for (int c = 0; c < s.chunks; ++c, ring.advance()) {
        BytesBarrier* const full = &shared.full[ring.stage];
        unsigned char* const stage = stages + ring.stage * kSlots * kSlotBytes;
        wait_barrier(&shared.empty[ring.stage], ring.parity ^ 1);
        arrive_expecting(full, kSlots * kSlotBytes);
        copy_bulk(stage, block + c * kSlotBytes, kSlotBytes, full);
        if constexpr (kChunks != kStreamed) continue;
        copy_bulk(stage + kSlotBytes, x + c * kSlotBytes, kSlotBytes, full);
        copy_bulk(stage + 2 * kSlotBytes, x + (s.chunks + c) * kSlotBytes, kSlotBytes, full);
      }
    }
  }
}

// acc (+)= products of 64 rows' chunk with a tile's, in a straight line. Chunks are multiplied whole: a shorter last one
// has zeros.
template <class Element, bool kAdd>
__device__ __forceinline__ void multiply_chunk(float (&acc)[64], uint32_t x, uint32_t y) {
  const uint64_t a = matrix_descriptor(x), b = matrix_descriptor(y);
#pragma unroll
  for (int k = 0; k < kChunkBytes / 32; ++k) warpgroup_multiply<Element>(acc, a + 2 * k, b + 2 * k, kAdd || k > 0);
}

// acc = products of 64 rows, whose chunks start at x, with a tile's chunks: one group.
template <class Element, int kChunks>
__device__ __forceinline__ void multiply_tile(float (&acc)[64], uint32_t x, const uint32_t (&y)[kChunks]) {
  multiply_chunk<Element, false>(acc, x, y[0]);
#pragma unroll
  for (int c = 1; c < kChunks; ++c) multiply_chunk<Element, true>(acc, x + c * kSlotBytes, y[c]);
  commit_products();
}

// The same of both halves where x streams, a chunk at a time; `ring` passes over the stages. A chunk's stage is free when
// the next one's products are under way and its own have ended.
template <class Element>
__device__ __forceinline__ void multiply_stream(float (&acc0)[64], float (&acc1)[64], int chunks, int group,
                                                uint32_t stages, Ring& ring, Shared& shared) {
  const auto first_half = [&] { return stages + (3 * ring.stage + 1 + group) * kSlotBytes; };
  const auto columns = [&] { return stages + 3 * ring.stage * kSlotBytes; };
  wait_barrier(&shared.full[ring.stage], ring.parity);
  begin_products();
  multiply_chunk<Element, false>(acc0, first_half(), columns());
  multiply_chunk<Element, false>(acc1, first_half() + kSlotBytes / 2, columns());
  commit_products();
#pragma unroll 1
  for (int c = 1; c < chunks; ++c) {
    const int before = ring.stage;
    ring.advance();
    wait_barrier(&shared.full[ring.stage], ring.parity);
    begin_products();  // which the assembler would put here itself
    multiply_chunk<Element, true>(acc0, first_half(), columns());
    multiply_chunk<Element, true>(acc1, first_half() + kSlotBytes / 2, columns());
    commit_products();
    wait_earlier_products<1>();
    if (threadIdx.x % 32 == 0) arrive(&shared.empty[before]);
  }
  wait_products<0>(acc0);
  wait_products<0>(acc1);
  if (threadIdx.x % 32 == 0) arrive(&shared.empty[ring.stage]);
  ring.advance();
}

template <class Element, bool kExact, int kChunks>
__device__ void consume(const Products& w, unsigned char* x_slots, unsigned char* stages, Shared& shared) {
  const Schedule& s = w.schedule;
  const int lane = threadIdx.x % 32, group = __shfl_sync(~0u, int(threadIdx.x) / 128, 0), own = threadIdx.x % 4 * 2;
  const int row0 = group * kBlock + threadIdx.x / 32 % 4 * 16 + lane / 4;  // + 8, and + 64 for the second half
  const uint32_t x = shared_address(x_slots) + uint32_t(group * kChunks * kSlotBytes), y = shared_address(stages);
  Ring ring{stages_of(kChunks)};
  int parity = 0, turn = 0;
  for (uint32_t k = blockIdx.x; k < uint32_t(s.items()); k += gridDim.x, parity ^= 1) {
    const Item item = item_of(s, k);
    const int64_t first = s.list(item.entry, item.part, 0, item.row_block * kBlock, s.n);
    const RowFacts* const facts = w.row_facts[0] + item.entry * s.rows() + item.row_block * kBlock;
    const Lists lists{w.lists + first * s.capacity, shared.counts};
    const Collector collector{w, item.entry, item.row_block * kBlock, s.n, lists};
    const auto row_of = [row0](int r) { return row0 + r / 2 * 64 + r % 2 * 8; };
    const float* const half = w.half + item.entry * s.columns();
    RowState<kExact> rows[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      rows[r].start(facts[row_of(r)]);
      if (lane % 4 == 0) shared.counts[row_of(r)] = 0;
    }
    __syncwarp();
    if constexpr (kChunks != kStreamed) wait_barrier(&shared.x_full, parity);
    const int visits = int(s.visits(item)), first_block = int(item.first);  // columns have 31 bits
    for (int visit = 0; visit < visits; ++visit, ++turn) {
      float acc0[64], acc1[64];  // of this visit alone: thinning out takes their registers
      const int block = first_block + (visit < visits - int(kExact) ? visit : 0), column = block * kBlock + own;
      float2 h[16];
      load_halves(half, column, h);
      const BlockFacts of = load_facts(w.block_facts[0] + item.entry * s.column_blocks + block);
      if constexpr (kChunks == kStreamed) {
        multiply_stream<Element>(acc0, acc1, s.chunks, group, y, ring, shared);
      } else {
        uint32_t chunks[kChunks];
        Ring ahead = ring;
#pragma unroll
        for (int c = 0; c < kChunks; ++c, ahead.advance()) {
          wait_barrier(&shared.full[ahead.stage], ahead.parity);
          chunks[c] = y + ahead.stage * kSlotBytes;
        }
        wait_barrier(&shared.turn[group], (turn + 1 - group) & 1);
        begin_products();
        multiply_tile<Element, kChunks>(acc0, x, chunks);
        multiply_tile<Element, kChunks>(acc1, x + kSlotBytes / 2, chunks);
        __syncwarp();  // all lanes have had their turn before it may come round
        if (lane == 0) arrive(&shared.turn[1 - group]);
        wait_products<1>(acc0);
      }
      bool crowded = take<16, 0>(acc0, h, rows[0], load_facts(facts + row0), of, column, visit > 0, lists, row0);
      crowded |= take<16, 2>(acc0, h, rows[1], load_facts(facts + row0 + 8), of, column, visit > 0, lists, row0 + 8);
      if constexpr (kChunks != kStreamed) {
        wait_products<0>(acc1);
#pragma unroll
        for (int c = 0; c < kChunks; ++c, ring.advance())
          if (lane == 0) arrive(&shared.empty[ring.stage]);
      }
      crowded |= take<16, 0>(acc1, h, rows[2], load_facts(facts + row0 + 64), of, column, visit > 0, lists, row0 + 64);
      crowded |= take<16, 2>(acc1, h, rows[3], load_facts(facts + row0 + 72), of, column, visit > 0, lists, row0 + 72);
      if (__any_sync(~0u, crowded)) collector.thin_out_all(rows, row_of);
    }
    if (kChunks != kStreamed && lane == 0) arrive(&shared.x_empty);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      finish(w, rows[r], lists, row_of(r), first + row_of(r));
    }
  }
}

#endif

template <class Element, bool kExact, int kChunks>
__global__ void __launch_bounds__(kThreads, 1) products(const Products w) {
#if OTK_HOPPER
  unsigned char* const x_slots = shared_memory<unsigned char>();
  unsigned char* const stages = x_slots + 2 * kChunks * kSlotBytes;
  constexpr int count = stages_of(kChunks);
  Shared& shared = *reinterpret_cast<Shared*>(stages + count * stage_slots(kChunks) * kSlotBytes);
  if (threadIdx.x == 0) {
    for (int k = 0; k < count; ++k) {
      init_barrier(&shared.full[k], 1);
      init_barrier(&shared.empty[k], kConsumers);
    }
    init_barrier(&shared.x_full, 1);
    init_barrier(&shared.x_empty, kConsumers);
    for (BytesBarrier& turn : shared.turn) init_barrier(&turn, kConsumers / 2);
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < 32 * kConsumers) {
    more_registers<240>();
    consume<Element, kExact, kChunks>(w, x_slots, stages, shared);
  } else {
    fewer_registers<24>();
    if (threadIdx.x == 32 * kConsumers) produce<kChunks>(w, x_slots, stages, shared);
  }
#endif
}

template <class Element, bool kExact, int kChunks>
void run_with(const Products& w, int multiprocessors, void* stream) {
  const int64_t items = w.schedule.items();
  const size_t bytes = size_t(2 * kChunks + stages_of(kChunks) * stage_slots(kChunks)) * kSlotBytes + sizeof(Shared);
  const Launch l{describe("hopper", w.p), items < multiprocessors ? items : multiprocessors, kThreads, bytes, stream};
  launch(l, products<Element, kExact, kChunks>, w);
}

template <class Element, bool kExact>
void run(const Products& w, int multiprocessors, void* stream) {
  switch (w.schedule.chunks) {
    case 1: return run_with<Element, kExact, 1>(w, multiprocessors, stream);
    case 2: return run_with<Element, kExact, 2>(w, multiprocessors, stream);
    case 3: return run_with<Element, kExact, 3>(w, multiprocessors, stream);
    case 4: return run_with<Element, kExact, 4>(w, multiprocessors, stream);
    default: return run_with<Element, kExact, kStreamed>(w, multiprocessors, stream);
  }
}

}  // namespace

void launch_products_hopper(const Products& w, Precision precision, int multiprocessors, void* stream) {
  if (precision == Precision::exact) return run<Fp16, true>(w, multiprocessors, stream);
  if (precision == Precision::bf16) return run<Bf16, false>(w, multiprocessors, stream);
  run<Tf32, false>(w, multiprocessors, stream);
}

}  // namespace otk::l2
