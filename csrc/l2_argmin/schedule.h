// schedule.h - which blocks do what in l2_argmin's CUDA kernels, where their workspace lies, and the candidates' bound.
//
// Packed points: blocks of kBlock rows, each ceil(d / coordinates per chunk) chunks of kBlock x 128 bytes, padded with
// zeros. A work item is (batch entry, group of x blocks, part of the columns). It visits its column blocks in order;
// the exact mode takes no candidates from the first one, whose maxima make the bar, and visits it once more at the end.
// Plain integers, the same on host and device: tests/cpp/test_cuda_l2_argmin.cpp walks through them.
#pragma once
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
inline constexpr int kCapacity = 32;                // candidates a list holds

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
  int64_t first, blocks;     // column blocks
  int part;
};

struct Schedule {
  int64_t batch, n, m, d;
  bool hopper, exact;
  int chunks, steps;         // 128-byte chunks of a row; 32-byte steps of its products, up to where d ends
  int64_t row_blocks, column_blocks;  // of one entry; row_blocks is a multiple of item_blocks
  int item_blocks;           // x blocks of a work item
  int parts, writers;        // of the columns; warps beside each other that share a row's columns
  int capacity;              // of one list of candidates

  __host__ __device__ int64_t rows() const { return row_blocks * kBlock; }
  __host__ __device__ int64_t columns() const { return column_blocks * kBlock; }
  __host__ __device__ int64_t items() const { return batch * parts * (row_blocks / item_blocks); }
  __host__ __device__ int64_t lists() const { return int64_t(parts) * writers; }
  __host__ __device__ int64_t packed_block_bytes() const { return int64_t(chunks) * kSlotBytes; }

  // Items in the order in which blocks take them: those that read the same columns run together.
  __host__ __device__ Item item(int64_t k) const {
    const int64_t groups = row_blocks / item_blocks, rest = k / groups;
    Item i;
    i.row_block = k % groups * item_blocks;
    i.part = int(rest % parts);
    i.entry = rest / parts;
    i.first = i.part * column_blocks / parts;
    i.blocks = (i.part + 1) * column_blocks / parts - i.first;
    return i;
  }
  __host__ __device__ int64_t visits(const Item& i) const { return i.blocks + exact; }
  __host__ __device__ static int64_t visited(const Item& i, int64_t visit) {
    return i.first + (visit < i.blocks ? visit : 0);
  }
  // Steps of chunk c.
  __host__ __device__ int steps_of(int c) const { return steps - 4 * c < 4 ? steps - 4 * c : 4; }
  // The list of row `row` of an entry that writer `writer` of part `part` fills.
  __host__ __device__ int64_t list(int64_t entry, int part, int writer, int64_t row) const {
    return (entry * lists() + int64_t(part) * writers + writer) * rows() + row;
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
  s.hopper = OTK_HAS_HOPPER && device.capability == 90 && s.chunks <= 4;
  s.item_blocks = s.hopper ? 2 : 1;
  s.writers = s.hopper ? 1 : 2;
  s.capacity = s.exact ? kCapacity : 1;
  s.row_blocks = divide_up(n, s.item_blocks * kBlock) * s.item_blocks;
  s.column_blocks = divide_up(m, kBlock);
  s.parts = choose_parts(batch * (s.row_blocks / s.item_blocks), s.column_blocks, device.multiprocessors);
  return s;
}

// Whether products pay: beyond 2^27 multiply-adds, and where a block of rows and of columns is not mostly padding.
// Smaller problems end in one launch. Chosen by count of operations, not yet measured.
inline bool products_pay(int64_t batch, int64_t n, int64_t m, int64_t d) {
  return d > kLowDimension && d <= kMostDimensions && n >= 32 && m >= 64 && n <= kMostPoints && m <= kMostPoints &&
         double(batch) * double(n) * double(m) * double(d) > double(1 << 27);
}

// The bound e_ij = x_error_i + spread_j of l2_argmin.h for products of bfloat16.
struct Bound {
  float norm;       // times |x'_i|^2 and |y'_j|^2
  float potential;  // times |p_j|
  float absolute;   // in each of both parts
};

inline Bound bound(int64_t d) {
  constexpr float u = 0x1p-24f;
  const float terms = float(divide_up(d, 64) * 64 + 16);
  return {1.003f / 256 + 4 * terms * u, 8 * u, 4 * terms * 0x1p-126f};
}

// Beyond this a norm's products may overflow: such rows, and rows that meet such columns, are undecided.
inline constexpr float kMostNorm = 0x1p100f;

// ---- workspace ------------------------------------------------------------------------------------------------------

// Byte offsets of the regions, each aligned to 256.
struct Regions {
  int64_t x, y;              // packed blocks [batch, row_blocks], [batch, column_blocks]
  int64_t x_error;           // float [batch, rows]: +inf where the row is undecided from the start, or padding
  int64_t half;              // float [batch, columns]: (p_j - |y'_j|^2) / 2, -inf beyond m
  int64_t spread;            // float [batch, column_blocks]: the block's largest part of e, +inf if one is wild
  int64_t lists;             // Candidate [batch, lists, rows, capacity]
  int64_t counts;            // int [batch, lists, rows], exact mode
  int64_t undecided_count;   // int [batch]
  int64_t undecided;         // int [batch, n]
  int64_t keys, tickets;     // Meeting
  int64_t bytes;
};

struct Candidate {
  int j;
  float score;
};

inline Regions regions(const Schedule& s) {
  Regions r{};
  const auto take = [&r](int64_t bytes) {
    const int64_t at = r.bytes;
    r.bytes += divide_up(bytes, 256) * 256;
    return at;
  };
  const int64_t lists = s.batch * s.lists() * s.rows();
  r.x = take(s.batch * s.row_blocks * s.packed_block_bytes());
  r.y = take(s.batch * s.column_blocks * s.packed_block_bytes());
  r.x_error = take(s.batch * s.rows() * 4);
  r.half = take(s.batch * s.columns() * 4);
  r.spread = take(s.batch * s.column_blocks * 4);
  r.lists = take(lists * s.capacity * int64_t(sizeof(Candidate)));
  r.counts = take(s.exact ? lists * 4 : 0);
  r.undecided_count = take(s.batch * 4);
  r.undecided = take(s.batch * s.n * 4);
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
