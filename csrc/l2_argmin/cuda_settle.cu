// cuda_settle.cu - a row's candidates become its result: those below the final bar drop out, the rest are summed again.
//
// Work      a warp owns a row. Pass 1 over its lists (one a part and writer) finds L_i = max fl(s - e); pass 2 sums the
//           survivors from the differences of the points as given, eight at a time, four lanes each, and keeps the
//           lowest (cost, j). Without candidates' bound (tf32, bf16) the row's best score chooses the pair.
// Undecided an overflowed list, no candidate at all, or a norm or column beyond the bound: the row is appended to the
// list
//           that direct solves. The order in that list is chance, its rows' results are not.
// Not yet run on a GPU.
#include "l2_argmin/cuda_candidates.h"
#include "l2_argmin/cuda_distance.h"

namespace otk::l2 {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

__device__ float warp_max(float v) {
  for (int step = 1; step < 32; step *= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
  return v;
}

// The cost of (row, j) as a key, by four lanes.
template <bool kVector>
__device__ Key key_of(const L2Argmin<float>& p, int64_t entry, const float* x, int j) {
  const float sum = squared_distance<kVector>(x, p.y + entry * p.y_stride + int64_t(j) * p.d, int(p.d));
  return make_key(p.potential ? sum - __ldg(p.potential + entry * p.potential_stride + j) : sum, uint32_t(j));
}

// This lane's candidate of list `at`, if any; false where the list overflowed.
struct Loaded {
  Candidate candidate;
  float error;
  bool here, whole;
};

__device__ Loaded load_candidate(const Products& w, int64_t entry, int64_t at, float x_error) {
  const int count = w.counts[at], lane = threadIdx.x % 32;
  Loaded l{{0, 0.0f}, 0.0f, lane < count && lane < kCapacity, count <= kCapacity};
  if (l.here) {
    l.candidate = w.lists[at * kCapacity + lane];
    l.error = x_error + w.spread[entry * w.schedule.column_blocks + l.candidate.j / kBlock];
  }
  return l;
}

// The lowest key among the row's candidates, in every lane; kNone where it is undecided. survivors: [kCapacity], the
// warp's.
template <bool kVector>
__device__ Key settle_exact(const Products& w, int64_t entry, int64_t row, const float* x, float x_error, int* survivors) {
  const Schedule& s = w.schedule;
  const int lane = threadIdx.x % 32;
  float low = most_negative();
  bool whole = true;
  for (int64_t l = 0; l < s.lists(); ++l) {
    const Loaded c = load_candidate(w, entry, s.list(entry, 0, int(l), row), x_error);
    whole &= c.whole;
    if (c.here) low = fmaxf(low, c.candidate.score - c.error);
  }
  if (!whole) return kNone;
  low = warp_max(low);
  Key key = kNone;
  for (int64_t l = 0; l < s.lists(); ++l) {
    const Loaded c = load_candidate(w, entry, s.list(entry, 0, int(l), row), x_error);
    const bool alive = c.here && c.candidate.score >= low - c.error;
    const unsigned mask = __ballot_sync(~0u, alive);
    if (alive) survivors[__popc(mask & ((1u << lane) - 1))] = c.candidate.j;
    __syncwarp();
    const int count = __popc(mask);
    for (int first = 0; first < count; first += 8) {
      const int at = first + lane / 4;
      const Key other = key_of<kVector>(w.p, entry, x, survivors[at < count ? at : 0]);
      if (at < count && other < key) key = other;
    }
    __syncwarp();
  }
  return lower_key(lower_key(lower_key(key, 4), 8), 16);
}

// The key of the pair with the best score, the lowest column of these; kNone where it is undecided.
template <bool kVector>
__device__ Key settle_best(const Products& w, int64_t entry, int64_t row, const float* x) {
  const Schedule& s = w.schedule;
  Candidate best{0, -infinity()};
  for (int64_t l = threadIdx.x % 32; l < s.lists(); l += 32) {
    const Candidate c = w.lists[s.list(entry, 0, int(l), row)];
    if (c.score > best.score || (c.score == best.score && c.j < best.j)) best = c;
  }
  const float score = warp_max(best.score);
  Key at = best.score == score ? Key(uint32_t(best.j)) : kNone;
  for (int step = 1; step < 32; step *= 2) at = lower_key(at, step);
  if (!(fabsf(score) < infinity())) return kNone;
  return key_of<kVector>(w.p, entry, x, int(at));
}

template <bool kExact, bool kVector>
__global__ void __launch_bounds__(kThreads, 2) settle(const Products w) {
  const int64_t k = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (k >= w.p.batch * w.p.n) return;  // a whole warp
  const int64_t entry = k / w.p.n, row = k % w.p.n;
  const float x_error = w.x_error[entry * w.schedule.rows() + row];
  const float* const x = w.p.x + entry * w.p.x_stride + row * w.p.d;
  Key key = kNone;
  if (x_error < infinity()) {
    if constexpr (kExact)
      key = settle_exact<kVector>(w, entry, row, x, x_error, shared_memory<int>() + threadIdx.x / 32 * kCapacity);
    else
      key = settle_best<kVector>(w, entry, row, x);
  }
  if (threadIdx.x % 32 != 0) return;
  if (key != kNone && key != 0) {
    write_result(w.p, entry, row, key);
  } else {
    const int64_t slot = entry * w.p.n + atomicAdd(w.undecided.count + entry, 1);
    w.undecided.list[slot] = int(row);
    w.meeting.keys[slot] = kNone;
    w.meeting.tickets[slot] = 0;
  }
}

template <bool kExact>
void run(const Products& w, void* stream) {
  const L2Argmin<float>& p = w.p;
  const size_t bytes = kExact ? sizeof(int) * kWarps * kCapacity : 0;
  const Launch l{describe("settle", p), divide_up(p.batch * p.n, kWarps), kThreads, bytes, stream};
  const bool vector = aligned_rows(p.x, p.d, p.x_stride) && aligned_rows(p.y, p.d, p.y_stride);
  launch(l, vector ? settle<kExact, true> : settle<kExact, false>, w);
}

}  // namespace

void launch_settle(const Products& w, void* stream) { w.schedule.exact ? run<true>(w, stream) : run<false>(w, stream); }

}  // namespace otk::l2
