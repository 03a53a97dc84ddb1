// cuda_settle.cu - a row's candidates become its result: those below the final bar drop out, the rest are summed again.
//
// Work      a warp owns a row. Pass 1 over its lists (one a part and writer) finds L_i = max fl(s - e); pass 2 sums the
//           survivors from the differences of the points as given, eight at a time, four lanes each, and keeps the
//           lowest (cost, j). Without candidates' bound (tf32, bf16) the row's best score chooses the pair.
// Undecided a row that gave up joins the second stage's list, or, after that, the list that direct solves; so does one
//           that has no candidate at all, or a norm or a column beyond the bound. The order in these lists is chance, their
//           rows' results are not.
// Not yet run on a GPU.
#include "l2_argmin/cuda_candidates.h"

namespace otk::l2 {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

__device__ float warp_max(float v) {
  for (int step = 1; step < 32; step *= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
  return v;
}

// What a row's lists say: its lowest key in every lane, or why there is none.
struct Verdict {
  Key key;  // kNone: undecided
  bool wild;  // because of a column beyond the bound: products will not help
};

// The `at`-th candidate of a list, and the bound of its error.
struct Loaded {
  Candidate candidate;
  float error;
};

__device__ Loaded load_candidate(const Products& w, int64_t entry, int64_t list, int at, const RowFacts& row) {
  const Candidate c = w.lists[list * kCapacity + at];
  const BlockFacts* const blocks = w.block_facts[w.schedule.split] + entry * w.schedule.column_blocks;
  return {c, error_of(row, load_facts(blocks + c.j / kBlock))};
}

__device__ Verdict settle_exact(const Products& w, int64_t entry, int64_t slot, int64_t count, const float* x,
                                const RowFacts& row) {
  const Schedule& s = w.schedule;
  const int lane = threadIdx.x % 32;
  const int64_t lists = s.lists_of(count);
  float low = most_negative();
  int most = 0;
  for (int64_t l = 0; l < lists; ++l) {
    const int64_t list = s.list(entry, 0, int(l), slot, count);
    const int size = w.counts[list];
    most = size > most ? size : most;
    if (size > kCapacity) continue;  // no count: its entries may never have been written
    for (int at = lane; at < size; at += 32) {
      const Loaded c = load_candidate(w, entry, list, at, row);
      low = fmaxf(low, c.candidate.score - c.error);
    }
  }
  if (most > kCapacity) return {kNone, most == kWild};
  low = warp_max(low);
  Key key = kNone;
  for (int64_t l = 0; l < lists; ++l) {
    const int64_t list = s.list(entry, 0, int(l), slot, count);
    const int size = w.counts[list];
    for (int first = 0; first < size; first += 32) {
      Loaded c{};
      const bool here = first + lane < size;
      if (here) c = load_candidate(w, entry, list, first + lane, row);
      const Key other = nearest_of(w, entry, x, c.candidate.j, here && c.candidate.score >= low - c.error);
      key = other < key ? other : key;
    }
  }
  return {key, false};
}

// The key of the pair with the best score, the lowest column of these; kNone where it is undecided.
__device__ Key settle_best(const Products& w, int64_t entry, int64_t row, const float* x) {
  const Schedule& s = w.schedule;
  Candidate best{0, -infinity()};
  for (int64_t l = threadIdx.x % 32; l < s.lists_of(s.n); l += 32) {
    const Candidate c = w.lists[s.list(entry, 0, int(l), row, s.n)];
    if (c.score > best.score || (c.score == best.score && c.j < best.j)) best = c;
  }
  const float score = warp_max(best.score);
  Key at = best.score == score ? Key(uint32_t(best.j)) : kNone;
  for (int step = 1; step < 32; step *= 2) at = lower_key(at, step);
  if (!(fabsf(score) < infinity())) return kNone;
  return key_of(w, entry, x, int(at));
}

template <bool kExact>
__global__ void __launch_bounds__(kThreads, 2) settle(const Products w) {
  const int64_t k = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (k >= w.p.batch * w.p.n) return;  // a whole warp
  const int64_t entry = k / w.p.n, slot = k % w.p.n, count = w.rows.of(entry, w.p.n);
  if (slot >= count) return;
  const int64_t row = w.rows.list ? w.rows.list[entry * w.p.n + slot] : slot;
  const RowFacts facts = w.row_facts[w.schedule.split][entry * w.schedule.rows() + row];
  const float* const x = w.p.x + entry * w.p.x_stride + row * w.p.d;
  Verdict verdict{kNone, true};
  if (facts.fixed < infinity()) {
    if constexpr (kExact)
      verdict = settle_exact(w, entry, slot, count, x, facts);
    else
      verdict.key = settle_best(w, entry, row, x);
  }
  if (threadIdx.x % 32 != 0) return;
  if (verdict.key != kNone && verdict.key != 0) return write_result(w.p, entry, row, verdict.key);
  const Undecided& to = verdict.wild ? w.direct : w.next;
  const int64_t at = entry * w.p.n + atomicAdd(to.count + entry, 1);
  to.list[at] = int(row);
  if (to.list != w.direct.list) return;
  w.meeting.keys[at] = kNone;
  w.meeting.tickets[at] = 0;
}

template <bool kExact>
void run(const Products& w, void* stream) {
  launch({describe("settle", w.p), divide_up(w.p.batch * w.p.n, kWarps), kThreads, 0, stream}, settle<kExact>, w);
}

}  // namespace

void launch_settle(const Products& w, void* stream) { w.schedule.exact ? run<true>(w, stream) : run<false>(w, stream); }

}  // namespace otk::l2
