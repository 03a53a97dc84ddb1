// schedule.h - which blocks do what in l2_argmin's CUDA kernels, where their workspace lies, and the candidates' bound.
//
// Packed points: blocks of kBlock rows, each ceil(d / coordinates per chunk) chunks of kBlock x 128 bytes, padded with
// zeros. A work item is (batch entry, group of x blocks, part of the columns). It visits its column blocks in order;
// the exact mode takes no candidates from the first one, whose maxima make the bar, and visits it once more at the end.
// Plain integers, the same on host and device: tests/cpp/test_cuda_l2_argmin_plans.cpp walks through them.
//
// Stages of the exact mode. Products of float16 leave most rows with a few candidates (cuda_candidates.h). A row that
// has very many gives up and comes to the second stage, whose points are sums of two float16 numbers; the rows that
// give up there are solved by differences. The counts of rows stay on the device: nothing waits for the host.
#pragma once
#include <algorithm>
#include <cstdint>

#include "common/cuda.h"
#include "l2_argmin/l2_argmin.h"

// Whether sm_90a is among the architectures of this build (CMakeLists.txt says so); elsewhere that kernel is empty.
#ifndef OTK_HAS_HOPPER
#define OTK_HAS_HOPPER 0
#endif

namespace otk::l2 {

inline constexpr int kLowDimension = 8;             // up to here the low kernel
inline constexpr int64_t kMostDimensions = 8192;    // the centre lies in shared memory; d u < 1/8 by far
inline constexpr int64_t kMostPoints = (int64_t(1) << 31) - 512;  // of one side in the product kernels: 32-bit columns
inline constexpr int kBlock = 128;                  // rows of a packed block
inline constexpr int kChunkBytes = 128;             // of a row: one swizzle atom's width
inline constexpr int kSlotBytes = kBlock * kChunkBytes;
inline constexpr int kCapacity = 64;                // candidates a list holds: two a lane
inline constexpr int kMostPatience = 1 << 16;       // settlings that are counted
inline constexpr int kCrowded = 32;                 // more of them are thinned out before the next block of columns
inline constexpr int kSplitWriters = 2;             // of the second stage, whose products are cuda_products.cu's

__host__ __device__ inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- exact by differences -------------------------------------------------------------------------------------------

struct Direct {
  int rows;       // of x in a block
  int64_t parts;  // of the columns; more than one needs a Meeting
};

// Up to kOneLaunch columns the parts stay one; beyond, enough blocks to fill the machine.
inline Direct plan_direct(int64_t batch, int64_t n, int64_t m, int64_t d, int multiprocessors) {
  constexpr int64_t kOneLaunch = 2048, kPart = 512;
  const bool low = d <= kLowDimension;
  const int most = low ? 128 : 8, least = low ? 32 : 1, step = low ? 4 : 2;
  int rows = most;
  if (m > kOneLaunch && batch * divide_up(n, most) < 2 * multiprocessors) {
    while (rows > least && rows / step >= n) rows /= step;
    const int64_t wanted = divide_up(4 * multiprocessors, batch * divide_up(n, rows)), parts = divide_up(m, kPart);
    return {rows, wanted < parts ? wanted : parts};
  }
  while (rows > least && batch * divide_up(n, rows) < multiprocessors) rows /= step;
  return {rows, 1};
}

// ---- candidates from products ---------------------------------------------------------------------------------------

struct Item {
  int64_t entry, row_block;  // the first of its x blocks
  int64_t first, blocks;     // column blocks; none: there is no such item
  int part;
};

struct Schedule {
  int64_t batch, n, m, d;
  bool hopper, exact, split;  // split: the second stage of the exact mode, for the rows that gave up in the first
  int chunks, steps;          // 128-byte chunks of a row; 32-byte steps of its products, up to where d ends
  int64_t row_blocks, column_blocks;  // of one entry; row_blocks is a multiple of item_blocks
  int item_blocks;            // x blocks of a work item
  int parts, writers;         // of the columns; warps beside each other that share a row's columns
  int capacity;               // of one list of candidates
  int64_t entry_items;        // of one entry, at most
  int64_t fill;               // items of an entry that fill the machine
  int64_t entry_lists;        // lists of one entry, for either stage

  __host__ __device__ int64_t rows() const { return row_blocks * kBlock; }
  __host__ __device__ int64_t columns() const { return column_blocks * kBlock; }
  __host__ __device__ int64_t items() const { return batch * entry_items; }
  __host__ __device__ int64_t packed_block_bytes() const { return int64_t(chunks) * kSlotBytes; }

  // Where an entry has `count` rows to solve (all n of them in the first stage): into how many parts the columns fall.
  // The second stage learns its count on the device, and fills it with what the first one's lists have room for.
  __host__ __device__ int parts_of(int64_t count) const {
    if (!split || count == 0) return parts;
    const int64_t groups = divide_up(count, kBlock), wanted = divide_up(fill, groups), room = entry_items / groups;
    const int64_t some = wanted < room ? wanted : room;
    return int(some < column_blocks ? some : column_blocks);
  }
  __host__ __device__ int64_t rows_of(int64_t count) const { return split ? divide_up(count, kBlock) * kBlock : rows(); }
  __host__ __device__ int64_t lists_of(int64_t count) const { return int64_t(parts_of(count)) * writers; }

  // How often a list may be settled down to its best before its row gives up. By a count of operations, not yet measured,
  // a candidate's distance costs what 80 columns' float16 products cost and five columns' distances in cuda_direct.cu, and
  // a settled list has some 33 candidates. So a row has patience for a hundredth of the columns in the first stage, before
  // the second one costs less, and for a fifth there, before differences alone do.
  __host__ __device__ int patience_of(int64_t count) const {
    const int64_t most = 2 + columns() / ((split ? 160 : 2048) * lists_of(count));
    return int(most < kMostPatience ? most : kMostPatience);
  }

  // The k-th item of an entry, in the order in which blocks take them: those that read the same columns run together.
  __host__ __device__ Item item(int64_t entry, uint32_t k, int64_t count) const {
    const auto groups = uint32_t(rows_of(count) / (item_blocks * kBlock)), all = uint32_t(parts_of(count));
    Item i{entry, 0, 0, 0, 0};
    if (k >= groups * all) return i;
    i.row_block = k % groups * item_blocks;
    i.part = int(k / groups);
    const auto columns_of_all = uint32_t(column_blocks);  // 32-bit divisions: the kernel's producer has few registers
    const uint32_t share = columns_of_all / all, more = columns_of_all % all, part = uint32_t(i.part);
    i.first = part * share + (part < more ? part : more);
    i.blocks = share + (part < more);
    return i;
  }
  __host__ __device__ int64_t visits(const Item& i) const { return i.blocks + exact; }
  __host__ __device__ static int64_t visited(const Item& i, int64_t visit) {
    return i.first + (visit < i.blocks ? visit : 0);
  }
  // Steps of chunk c.
  __host__ __device__ int steps_of(int c) const { return steps - 4 * c < 4 ? steps - 4 * c : 4; }
  // The list of row `row` of an entry that writer `writer` of part `part` fills.
  __host__ __device__ int64_t list(int64_t entry, int64_t part, int writer, int64_t row, int64_t count) const {
    return entry * entry_lists + (part * writers + writer) * rows_of(count) + row;
  }
};

// The number of parts for which the busiest block passes over the fewest column blocks, counting two more for each
// item's start and end; the fewest parts of these.
inline int choose_parts(int64_t groups, int64_t column_blocks, int multiprocessors) {
  int best = 1;
  int64_t best_cost = INT64_MAX;
  for (int parts = 1; parts <= multiprocessors && parts <= column_blocks; ++parts) {
    const int64_t cost = divide_up(groups * parts, multiprocessors) * (divide_up(column_blocks, parts) + 2);
    if (cost < best_cost) best = parts, best_cost = cost;
  }
  return best;
}

inline Schedule plan_products(int64_t batch, int64_t n, int64_t m, int64_t d, Precision precision, Device device) {
  Schedule s{};
  s.batch = batch, s.n = n, s.m = m, s.d = d;
  const int bytes = precision == Precision::tf32 ? 4 : 2;
  s.chunks = int(divide_up(d * bytes, kChunkBytes));
  s.steps = int(divide_up(d * bytes, 32));
  s.exact = precision == Precision::exact;
  s.hopper = OTK_HAS_HOPPER && device.capability == 90;
  s.item_blocks = s.hopper ? 2 : 1;
  s.writers = s.hopper ? 1 : 2;
  s.capacity = s.exact ? kCapacity : 1;
  s.row_blocks = divide_up(n, s.item_blocks * kBlock) * s.item_blocks;
  s.column_blocks = divide_up(m, kBlock);
  s.parts = choose_parts(batch * (s.row_blocks / s.item_blocks), s.column_blocks, device.multiprocessors);
  s.entry_items = s.parts * (s.row_blocks / s.item_blocks);
  s.fill = divide_up(device.multiprocessors, std::max<int64_t>(1, batch));
  s.entry_lists = s.parts * s.writers * s.rows();
  if (s.exact) {
    s.entry_lists = std::max(s.entry_lists, std::max(s.row_blocks, s.fill) * kSplitWriters * kBlock);
  }
  return s;
}

// The second stage of `first`, for any number of its rows.
inline Schedule plan_split(const Schedule& first) {
  Schedule s = first;
  s.split = true, s.hopper = false;
  s.item_blocks = 1, s.writers = kSplitWriters, s.parts = 1;
  s.entry_items = first.entry_lists / (kSplitWriters * kBlock);
  return s;
}

// Whether products pay: beyond 2^27 multiply-adds, and where a block of rows and of columns is not mostly padding: a
// multiply-add on tensor cores is taken for a sixteenth of one in a difference, packing and settling included. Smaller
// problems end in one launch. Chosen by count of operations, not yet measured.
inline bool products_pay(int64_t batch, int64_t n, int64_t m, int64_t d) {
  if (d <= kLowDimension || d > kMostDimensions || n > kMostPoints || m > kMostPoints) return false;
  const double own = double(n) * double(m) * double(d);
  const double padded = double(divide_up(n, 2 * kBlock) * 2 * kBlock) * double(divide_up(m, kBlock) * kBlock) *
                        double(divide_up(d, kChunkBytes / 2) * (kChunkBytes / 2));
  return double(batch) * own > double(1 << 27) && padded < 16 * own;
}

// What a point, and a block of columns, adds to the bound e_ij of l2_argmin.h:
//     e_ij = along_J norm_i + norm_J lost_i + fixed_i + fixed_J,  and  x'_i . y'_j = scale_i scale_J (product of what is packed)
struct alignas(16) RowFacts {
  float norm, lost, fixed, scale;  // fixed: +inf where the row is undecided from the start, or padding
};
struct alignas(16) BlockFacts {
  float norm, along, fixed, scale;  // fixed: +inf where a column of the block is wild
};

// The constants of these.
struct Bound {
  float grow;      // times a root: rounds it up
  float vanished;  // added to a sum of squares: what of them may have vanished
  float unit;      // 1.25 (d + 16) u
  float x_square;  // times |x'_i|^2
  float absolute;
};

inline Bound bound(int64_t d) {
  constexpr float u = 0x1p-24f;
  const float terms = float(divide_up(d, kChunkBytes / 2) * (kChunkBytes / 2) + 16);
  return {1 + 2 * terms * u, terms * 0x1p-126f, 1.25f * terms * u, 4 * u, 4 * terms * 0x1p-126f};
}

// Of a squared norm; beyond, with room, products and scales may overflow: such rows, and rows that meet such columns, are
// undecided.
inline constexpr float kMostNorm = 0x1p100f;
// Coordinates are scaled so that the largest lies in [2^14, 2^15); those below 2^kLeastExponent are not scaled further.
inline constexpr int kTopExponent = 14, kLeastExponent = -60, kMostExponent = 50;

// ---- workspace ------------------------------------------------------------------------------------------------------

struct alignas(8) Candidate {
  int j;
  float score;
};

// Byte offsets of the regions, each aligned to 256. The second of two is that of the second stage.
struct Regions {
  int64_t x[2], y[2];        // packed blocks [batch, row_blocks], [batch, column_blocks]: high parts, low parts
  int64_t row_facts[2];      // RowFacts [batch, rows]
  int64_t block_facts[2];    // BlockFacts [batch, column_blocks]
  int64_t half;              // float [batch, columns]: (p_j - |y'_j|^2) / 2, -inf beyond m
  int64_t lists;             // Candidate [batch, entry_lists, capacity]
  int64_t counts;            // int [batch, entry_lists], exact mode
  int64_t left_count[2];     // int [batch]: rows that the first and the second stage left undecided
  int64_t left[2];           // int [batch, n]
  int64_t keys, tickets;     // Meeting
  int64_t bytes;
};

inline Regions regions(const Schedule& s) {
  Regions r{};
  const auto take = [&r](int64_t bytes) {
    const int64_t at = r.bytes;
    r.bytes += divide_up(bytes, 256) * 256;
    return at;
  };
  for (int stage = 0; stage < 2; ++stage) {
    const int64_t batch = stage == 0 || s.exact ? s.batch : 0;
    r.x[stage] = take(batch * s.row_blocks * s.packed_block_bytes());
    r.y[stage] = take(batch * s.column_blocks * s.packed_block_bytes());
    r.row_facts[stage] = take(batch * s.rows() * int64_t(sizeof(RowFacts)));
    r.block_facts[stage] = take(batch * s.column_blocks * int64_t(sizeof(BlockFacts)));
    r.left_count[stage] = take(batch * 4);
    r.left[stage] = take(batch * s.n * 4);
  }
  r.half = take(s.batch * s.columns() * 4);
  r.lists = take(s.batch * s.entry_lists * s.capacity * int64_t(sizeof(Candidate)));
  r.counts = take(s.exact ? s.batch * s.entry_lists * 4 : 0);
  r.keys = take(s.batch * s.n * 8);
  r.tickets = take(s.batch * s.n * 4);
  return r;
}

inline Regions regions(const Direct& plan, int64_t rows) {
  Regions r{};
  if (plan.parts == 1) return r;
  r.tickets = divide_up(rows * 8, 256) * 256;
  r.bytes = r.tickets + divide_up(rows * 4, 256) * 256;
  return r;
}

}  // namespace otk::l2
