// cuda_products.cu - candidates from tensor-core products, sm_80 and later: mma.sync fed by cp.async.
//
// Layout    packed blocks of cuda_pack.cu; a shared-memory slot holds one 128 x 128-byte chunk (16 KiB), six slots in
//           all. Up to two chunks a row, x stays resident and y streams through the other four slots; longer rows
//           stream both through three pairs, or four where eight slots fit. 96 KiB and a little: it fits the 99 KiB of
//           sm_86 and sm_120.
// Work      a block takes work items (schedule.h) one after the other: 128 rows against a part of the columns, 128 at a
//           time. Eight warps, four by two, each with 32 x 64 products. One barrier a step; copies run kRing - 2 steps
//           ahead of it.
// Overlap   the warps of the first 64 columns multiply a step behind its barrier, the others behind the next one, so
//           that the first read a tile's products at the start of a step in which the others multiply the same tile's last
//           chunk, and the others read them at its end, while the first multiply again. Read together, with one barrier
//           for all, they would leave the tensor cores idle for a quarter of the time at 128 coordinates (by a count of
//           instructions on sm_80: some 700 issue slots a scheduler after 2048 cycles of products).
// Split     the second stage multiplies low x by high y, high by low, then high by high: three times the chunks, the
//           small products first. Its rows are those of a list, gathered piece by piece.
// Numerics  l2_argmin.h; scores and bar in cuda_candidates.h.
// Not yet run on a GPU.
#include "common/mma.h"
#include "l2_argmin/cuda_candidates.h"

namespace otk::l2 {
namespace {

constexpr int kThreads = 256, kWriters = kSplitWriters, kMostResident = 2;

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

constexpr int slots_of(bool resident, int ring) { return resident ? kMostResident + ring : 2 * ring; }

template <class Element, bool kExact, bool kResident, bool kSplit, int kRing>
struct Solver {
  static constexpr int kSlots = slots_of(kResident, kRing);
  static constexpr int kCopies = kSlotBytes / (16 * kThreads);  // pieces of a chunk that a thread copies

  const Products& w;
  const Item item;
  const int64_t count;  // rows of the entry to solve
  const int chunks;     // of a row's products
  unsigned char* slots;
  Collector collector;
  RowState<kExact> rows[4];  // rows g, + 8, + 16 and + 24 of the warp's 32
  int gathered[kCopies];        // the rows of which this thread copies pieces

  __device__ Solver(const Products& products, const Item& of, int64_t rows_left, unsigned char* shared)
      : w(products),
        item(of),
        count(rows_left),
        chunks(w.schedule.chunks * (kSplit ? 3 : 1)),
        slots(shared),
        collector{products, of.entry, of.row_block * kBlock, rows_left, {}} {
    const Schedule& s = w.schedule;
    int* const counts = reinterpret_cast<int*>(slots + kSlots * kSlotBytes);  // [kWriters, kBlock]
    collector.lists = {w.lists + list_of(0) * s.capacity, counts + writer() * kBlock};
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const bool here = !kSplit || item.row_block * kBlock + row(r) < count;
      rows[r].start(here ? collector.facts_of(row(r)) : RowFacts{0.0f, 0.0f, infinity(), 0.0f});
    }
    if constexpr (kSplit)
      for (int k = 0; k < kCopies; ++k) {
        const int64_t slot = item.row_block * kBlock + (int(threadIdx.x) + kThreads * k) / 8;
        gathered[k] = w.rows.list[item.entry * w.p.n + (slot < count ? slot : count - 1)];
      }
    collector.lists.counts[threadIdx.x / 32 % 4 * 32 + threadIdx.x % 32] = 0;
    __syncwarp();
  }

  __device__ int writer() const { return threadIdx.x / 128; }
  __device__ int row(int r) const { return threadIdx.x / 32 % 4 * 32 + 8 * r + threadIdx.x % 32 / 4; }
  __device__ int64_t list_of(int row) const {
    return w.schedule.list(item.entry, item.part, writer(), item.row_block * kBlock + row, count);
  }

  __device__ unsigned char* y_slot(int slot) const {
    return slots + (kResident ? kMostResident + slot : 2 * slot + 1) * kSlotBytes;
  }
  __device__ unsigned char* x_slot(const Cursor<kRing>& at) const {
    return slots + (kResident ? at.chunk : 2 * at.slot) * kSlotBytes;
  }

  // Which part of x (and of y) a chunk of products takes: 0 the high ones, 1 the low ones.
  __device__ int x_part(int chunk) const { return kSplit && chunk < w.schedule.chunks; }
  __device__ int y_part(int chunk) const { return kSplit && !x_part(chunk) && chunk < 2 * w.schedule.chunks; }

  __device__ const unsigned char* chunk_of(const unsigned char* packed, int64_t block, int chunk) const {
    return packed + (block * w.schedule.chunks + (kSplit ? chunk % w.schedule.chunks : chunk)) * kSlotBytes;
  }

  // A chunk of the listed rows: piece p of row r lies where r % 8 puts it, here and there.
  __device__ void gather(unsigned char* to, int chunk) const {
    const int64_t first = item.entry * w.schedule.row_blocks;
#pragma unroll
    for (int k = 0; k < kCopies; ++k) {
      const int at = int(threadIdx.x) + kThreads * k, r = at / 8, piece = at % 8, from = gathered[k] % kBlock;
      const unsigned char* const chunks_of = chunk_of(w.x[x_part(chunk)], first + gathered[k] / kBlock, chunk);
      copy_async16(to + r * kChunkBytes + ((piece ^ (r & 7)) << 4),
                   chunks_of + from * kChunkBytes + ((piece ^ (from & 7)) << 4));
    }
  }

  // Starts the copies of a step, or an empty group past the end.
  __device__ void fetch(const Cursor<kRing>& at, int64_t visits) {
    if (at.visit < visits) {
      const int64_t block = item.entry * w.schedule.column_blocks + w.schedule.visited(item, at.visit);
      copy_slot(y_slot(at.slot), chunk_of(w.y[y_part(at.chunk)], block, at.chunk));
      if constexpr (kSplit)
        gather(x_slot(at), at.chunk);
      else if (!kResident || at.visit == 0)
        copy_slot(x_slot(at), chunk_of(w.x[0], item.entry * w.schedule.row_blocks + item.row_block, at.chunk));
    }
    commit_copies();
  }

  __device__ void take_tile(const float (&acc)[2][32], const float2 (&h)[8], const BlockFacts& block, int column,
                            bool collect) {
    bool crowded =
        take<8, 0>(acc[0], h, rows[0], collector.facts_of(row(0)), block, column, collect, collector.lists, row(0));
    crowded |= take<8, 2>(acc[0], h, rows[1], collector.facts_of(row(1)), block, column, collect, collector.lists, row(1));
    crowded |= take<8, 0>(acc[1], h, rows[2], collector.facts_of(row(2)), block, column, collect, collector.lists, row(2));
    crowded |= take<8, 2>(acc[1], h, rows[3], collector.facts_of(row(3)), block, column, collect, collector.lists, row(3));
    if (__any_sync(~0u, crowded)) collector.thin_out_all(rows, [this](int r) { return row(r); });
  }

  // The step that `ahead` is at, less kRing - 2, has landed for all, and all are done with the step before last, whose slot
  // is fetched into.
  __device__ void meet(Cursor<kRing>& ahead, int64_t visits) {
    wait_copies<kRing - 3>();
    __syncthreads();
    fetch(ahead, visits), ahead.advance(chunks);
  }

  __device__ void run() {
    const Schedule& s = w.schedule;
    const int64_t visits = s.visits(item);
    const float* const half = w.half + item.entry * s.columns();
    const int own = writer() * 64 + threadIdx.x % 4 * 2;
    const bool late = writer() == 1;
    Cursor<kRing> ahead, at;
#pragma unroll
    for (int k = 0; k < kRing - 2; ++k) fetch(ahead, visits), ahead.advance(chunks);
    meet(ahead, visits);
    float acc[2][32] = {};
    float2 h[8];
    for (; at.visit < visits; at.advance(chunks)) {
      if (late) meet(ahead, visits);
      const int64_t block = s.visited(item, at.visit);
      const bool ends = at.chunk == chunks - 1;
      if (ends) load_halves(half, block * kBlock + own, h);
      multiply_chunk<Element>(acc, x_slot(at), y_slot(at.slot), s.steps_of(kSplit ? at.chunk % s.chunks : at.chunk));
      if (!late) meet(ahead, visits);
      if (!ends) continue;
      const BlockFacts facts = load_facts(w.block_facts[kSplit] + item.entry * s.column_blocks + block);
      take_tile(acc, h, facts, int(block * kBlock) + own, at.visit > 0);
#pragma unroll
      for (int k = 0; k < 64; ++k) acc[k / 32][k % 32] = 0;
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) finish(w, rows[r], collector.lists, row(r), list_of(row(r)));
  }
};

template <class Element, bool kExact, bool kResident, bool kSplit, int kRing>
__global__ void __launch_bounds__(kThreads, 1) products(const Products w) {
  const auto items = uint32_t(w.schedule.items()), entry_items = uint32_t(w.schedule.entry_items);
  for (uint32_t k = blockIdx.x; k < items; k += gridDim.x) {
    const uint32_t entry = k / entry_items;
    const int64_t count = w.rows.of(entry, w.p.n);
    const Item item = w.schedule.item(entry, k - entry * entry_items, count);
    if (item.blocks == 0) continue;
    __syncthreads();  // the slots are free
    Solver<Element, kExact, kResident, kSplit, kRing>(w, item, count, shared_memory<unsigned char>()).run();
  }
}

template <class Element, bool kExact, bool kResident, bool kSplit, int kRing>
void run_with(const Products& w, int multiprocessors, void* stream) {
  const int64_t items = w.schedule.items();
  const size_t bytes = slots_of(kResident, kRing) * kSlotBytes + sizeof(int) * kWriters * kBlock;
  const Launch l{describe("products", w.p), items < multiprocessors ? items : multiprocessors, kThreads, bytes, stream};
  launch(l, products<Element, kExact, kResident, kSplit, kRing>, w);
}

template <class Element, bool kExact, bool kSplit = false>
void run(const Products& w, int multiprocessors, void* stream) {
  if constexpr (!kSplit)
    if (w.schedule.chunks <= kMostResident) return run_with<Element, kExact, true, false, 4>(w, multiprocessors, stream);
  if (current_device().shared_bytes >= (slots_of(false, 4) + 1) * kSlotBytes)
    return run_with<Element, kExact, false, kSplit, 4>(w, multiprocessors, stream);
  run_with<Element, kExact, false, kSplit, 3>(w, multiprocessors, stream);
}

}  // namespace

void launch_products(const Products& w, Precision precision, int multiprocessors, void* stream) {
  if (w.schedule.split) return run<Fp16, true, true>(w, multiprocessors, stream);
  if (precision == Precision::exact) return run<Fp16, true>(w, multiprocessors, stream);
  if (precision == Precision::bf16) return run<Bf16, false>(w, multiprocessors, stream);
  run<Tf32, false>(w, multiprocessors, stream);
}

}  // namespace otk::l2
