// cuda_pack.cu - moves the points by a common centre and writes them as the product kernels read them.
//
// Layout    a block of 128 rows is `chunks` chunks of 128 rows x 128 bytes; piece p (16 bytes) of row r lies at piece
//           p ^ (r % 8): the swizzle of wgmma's 128-byte atoms, free of bank conflicts for ldmatrix. Zeros pad rows and
//           coordinates, so a chunk is one contiguous copy of 16 KiB.
// Work      a block packs one block of rows of x or of y; eight lanes share a row, so reads and writes run along it. Rows
//           are read twice, for their largest coordinate and for their values: the second time from a cache.
// Centre    the mean of up to 16 rows of y, the same sums in every block; zero where that is not finite.
// Numerics  tf32 and bfloat16 by rounding to nearest even. The exact mode has two float16 numbers for a coordinate, of
//           which the first stage multiplies the first: scaled by a power of two, one for each row of x and each block
//           of y, so that the largest coordinate lies in [2^14, 2^15). What the first, or both, leave of a coordinate is
//           exact in float32, and measured: l2_argmin.h. Norms come from the moved float32 coordinates.
// Copies    in the exact mode a column that equals an earlier one of its block, with no higher potential, is never the
//           nearest with the lowest index: its half norm is -inf, as beyond the last column. So a cloud that collapsed to
//           a point has one candidate a block, and no list overflows.
// Also      half norms of y, the parts of the bound, and the counts of undecided rows, which start at zero.
// Not yet run on a GPU.
#include <type_traits>

#include "common/half.h"
#include "common/mma.h"
#include "l2_argmin/cuda_candidates.h"

namespace otk::l2 {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kTeam = 8, kPasses = kBlock / (kThreads / kTeam);
constexpr int64_t kCentreRows = 16;

// The upper `32 - kCut` bits of the nearest number that has no more; a NaN stays one.
template <int kCut>
__device__ unsigned rounded(float v) {
  const unsigned bits = __float_as_uint(v);
  if (v != v) return bits | 0x00400000u;
  return (bits + ((1u << (kCut - 1)) - 1) + (bits >> kCut & 1)) & ~((1u << kCut) - 1);
}

__device__ uint4 encode(const float (&v)[8]) {  // bfloat16, the lower coordinate in the lower half
  return make_uint4(rounded<16>(v[0]) >> 16 | (rounded<16>(v[1]) & 0xffff0000u),
                    rounded<16>(v[2]) >> 16 | (rounded<16>(v[3]) & 0xffff0000u),
                    rounded<16>(v[4]) >> 16 | (rounded<16>(v[5]) & 0xffff0000u),
                    rounded<16>(v[6]) >> 16 | (rounded<16>(v[7]) & 0xffff0000u));
}

__device__ uint4 encode(const float (&v)[4]) {  // tf32
  return make_uint4(rounded<13>(v[0]), rounded<13>(v[1]), rounded<13>(v[2]), rounded<13>(v[3]));
}

__device__ float power_of_two(int exponent) { return __int_as_float((exponent + 127) << 23); }

// The exponent of the factor that takes coordinates of at most `largest` to below 2^15.
__device__ int scaling(float largest) {
  const int exponent = (__float_as_int(largest) >> 23) - 127;
  return kTopExponent - (exponent < kLeastExponent ? kLeastExponent : exponent > kMostExponent ? kMostExponent : exponent);
}

__device__ void find_centre(const float* y, int64_t m, int64_t d, int64_t padded, float* centre) {
  const int64_t rows = m < kCentreRows ? m : kCentreRows, step = m / rows;
  for (int64_t k = threadIdx.x; k < padded; k += kThreads) {
    float sum = 0;
    for (int64_t r = 0; k < d && r < rows; ++r) sum += y[r * step * d + k];
    const float mean = sum / float(rows);
    centre[k] = mean - mean == 0 ? mean : 0.0f;
  }
}

// Coordinates k0 .. of a row (null: padding) moved by -centre; zeros past the last.
template <int kCount>
__device__ void load_moved(const Products& w, const float* row, int k0, const float* centre, float (&v)[kCount]) {
  const int d = int(w.p.d);
#pragma unroll
  for (int e = 0; e < kCount; e += 4) {
    const int k = k0 + e;
    const bool here = row && k < d;
    const float4 at = !here ? make_float4(0, 0, 0, 0) : w.vector ? load4<true>(row, k, d) : load4<false>(row, k, d);
    v[e] = here ? at.x - centre[k] : 0.0f;
    v[e + 1] = here && k + 1 < d ? at.y - centre[k + 1] : 0.0f;
    v[e + 2] = here && k + 2 < d ? at.z - centre[k + 2] : 0.0f;
    v[e + 3] = here && k + 3 < d ? at.w - centre[k + 3] : 0.0f;
  }
}

__device__ float team_sum(float v) {
  for (int step = 1; step < kTeam; step *= 2) v += __shfl_xor_sync(~0u, v, step);
  return v;
}

__device__ float team_max(float v) {
  for (int step = 1; step < kTeam; step *= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
  return v;
}

// The largest v of the block; shared: a float a warp.
__device__ float block_max(float v, float* shared) {
  for (int step = 1; step < 32; step *= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
  for (int k = 0; k < kWarps; ++k) v = fmaxf(v, shared[k]);
  return v;
}

// Of one row: its squared norm, its largest coordinate, the squares of what one float16 number and two leave of it, and
// a number that equal rows share.
struct Measures {
  float norm = 0, largest = 0, lost[2] = {};
  uint32_t hash = 0;
};

// One block of rows, and where it goes; eight lanes together.
struct Packer {
  const Products& w;
  const float* centre;
  unsigned char* to[2];

  __device__ Measures measure(const float* row) const {
    Measures of;
    for (int c = 0; c < w.schedule.chunks; ++c) {
      float v[8];
      load_moved(w, row, (c * kTeam + int(threadIdx.x) % kTeam) * 8, centre, v);
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        of.norm = __fmaf_rn(v[e], v[e], of.norm), of.largest = fmaxf(of.largest, fabsf(v[e]));
        of.hash = (of.hash ^ __float_as_uint(v[e])) * 16777619u;  // Fowler, Noll and Vo's
      }
    }
    of.norm = team_sum(of.norm), of.largest = team_max(of.largest);
    for (int step = 1; step < kTeam; step *= 2) of.hash += __shfl_xor_sync(~0u, of.hash, step);
    return of;
  }

  // Whether column `local` of the block (its row is `row`) equals an earlier one of no lower potential; hashes: the block's.
  __device__ bool is_copy(const float* block, const float* potentials, int local, const uint32_t* hashes) const {
    const int lane = int(threadIdx.x) % kTeam, d = int(w.p.d);
    int first = local;
    for (int k = lane; k < local; k += kTeam)
      if (hashes[k] == hashes[local] && k < first) first = k;
    for (int step = 1; step < kTeam; step *= 2) {
      const int other = __shfl_xor_sync(~0u, first, step);
      first = other < first ? other : first;
    }
    bool same = first < local && (!potentials || potentials[local] <= potentials[first]);
    for (int k = lane; same && k < d; k += kTeam) same = block[int64_t(first) * d + k] == block[int64_t(local) * d + k];
    const unsigned equal = __ballot_sync(~0u, same), team = 0xffu << (threadIdx.x % 32 / kTeam * kTeam);
    return (equal & team) == team;
  }

  __device__ int64_t place(int c, int local) const {
    const int piece = int(threadIdx.x) % kTeam;
    return int64_t(c) * kSlotBytes + local * kChunkBytes + ((piece ^ (local & 7)) << 4);
  }

  // Row `local` of the block as two float16 numbers a coordinate, scaled by 2^exponent.
  __device__ void split(const float* row, int local, int exponent, Measures& of) const {
    const float up = power_of_two(exponent), down = power_of_two(-exponent);
    for (int c = 0; c < w.schedule.chunks; ++c) {
      float v[8];
      load_moved(w, row, (c * kTeam + int(threadIdx.x) % kTeam) * 8, centre, v);
      uint32_t high[8], low[8];
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        high[e] = to_half(v[e] * up);
        const float rest = v[e] - from_half(high[e]) * down;
        low[e] = to_half(rest * up);
        const float last = rest - from_half(low[e]) * down;
        of.lost[0] = __fmaf_rn(rest, rest, of.lost[0]);
        of.lost[1] = __fmaf_rn(last, last, of.lost[1]);
      }
      *reinterpret_cast<uint4*>(to[0] + place(c, local)) =
          make_uint4(high[0] | high[1] << 16, high[2] | high[3] << 16, high[4] | high[5] << 16, high[6] | high[7] << 16);
      *reinterpret_cast<uint4*>(to[1] + place(c, local)) =
          make_uint4(low[0] | low[1] << 16, low[2] | low[3] << 16, low[4] | low[5] << 16, low[6] | low[7] << 16);
    }
    of.lost[0] = team_sum(of.lost[0]), of.lost[1] = team_sum(of.lost[1]);
  }

  // Row `local` of the block in one number of another type a coordinate.
  template <class Element>
  __device__ Measures round(const float* row, int local) const {
    constexpr int kPiece = 16 / Element::kBytes;
    Measures of;
    for (int c = 0; c < w.schedule.chunks; ++c) {
      float v[kPiece];
      load_moved(w, row, (c * kTeam + int(threadIdx.x) % kTeam) * kPiece, centre, v);
#pragma unroll
      for (int e = 0; e < kPiece; ++e) of.norm = __fmaf_rn(v[e], v[e], of.norm);
      *reinterpret_cast<uint4*>(to[0] + place(c, local)) = encode(v);
    }
    of.norm = team_sum(of.norm);
    return of;
  }
};

// Square roots of sums of squares, or more.
__device__ float length(const Bound& bound, float squares) { return bound.grow * sqrtf(squares + bound.vanished); }

// Of row i of x, for both stages. What the first number left counts in the second stage as well: the product of two low
// parts is not formed.
__device__ void write_row(const Products& w, int64_t at, bool inside, const Measures& of, int exponent) {
  const Bound& b = w.bound;
  const bool live = inside && of.norm < kMostNorm;
  const float lost0 = length(b, of.lost[0]), lost1 = length(b, of.lost[1]) + 0x1p-9f * lost0;
  const float norm = length(b, of.norm) + lost0;
  const float fixed = live ? b.x_square * of.norm + b.absolute : infinity();
  for (int stage = 0; stage <= int(w.schedule.exact); ++stage)
    w.row_facts[stage][at] = live ? RowFacts{norm, stage ? lost1 : lost0, fixed, power_of_two(-exponent)}
                                  : RowFacts{0.0f, 0.0f, infinity(), 0.0f};
}

// Of a block of y from the largest of its columns' norms, losses and |y'|^2 + |p|.
__device__ void write_block(const Products& w, int64_t at, float norm, float lost0, float lost1, float size, int exponent) {
  const Bound& b = w.bound;
  // Where the coordinates are too small to be scaled up, nothing bounds what their first number leaves; where even their
  // squares vanish, the lengths are large enough.
  const bool tame = size < kMostNorm && (norm == 0 || exponent < kTopExponent - kLeastExponent);
  const float longest = length(b, norm) + length(b, lost0);
  for (int stage = 0; stage <= int(w.schedule.exact); ++stage)
    w.block_facts[stage][at] = {1.01f * longest, 1.01f * length(b, stage ? lost1 : lost0) + 4 * b.unit * longest,
                                tame ? b.unit * size + b.absolute : infinity(), power_of_two(-exponent)};
}

template <class Element>
__global__ void __launch_bounds__(kThreads, 2) pack(const Products w) {
  constexpr bool kSplit = std::is_same_v<Element, Fp16>;
  const Schedule& s = w.schedule;
  const L2Argmin<float>& p = w.p;
  float* const shared = shared_memory<float>();  // [kWarps], then the block's hashes, then the centre
  uint32_t* const hashes = reinterpret_cast<uint32_t*>(shared + kWarps);
  float* const centre = shared + kWarps + kBlock;
  const int64_t per_entry = s.row_blocks + s.column_blocks, entry = blockIdx.x / per_entry, b = blockIdx.x % per_entry;
  const bool is_x = b < s.row_blocks;
  const int64_t block = is_x ? b : b - s.row_blocks, count = is_x ? s.n : s.m;
  if (b == 0 && threadIdx.x == 0) w.next.count[entry] = w.direct.count[entry] = 0;
  find_centre(p.y + entry * p.y_stride, s.m, s.d, int64_t(s.chunks) * (kChunkBytes / Element::kBytes), centre);
  __syncthreads();
  const float* const points = is_x ? p.x + entry * p.x_stride : p.y + entry * p.y_stride;
  const int64_t at = is_x ? entry * s.row_blocks + block : entry * s.column_blocks + block;
  Packer packer{w, centre, {}};
  for (int part = 0; part < 2; ++part) packer.to[part] = (is_x ? w.x : w.y)[part] + at * s.packed_block_bytes();
  const auto row_of = [&](int pass) { return block * kBlock + pass * (kThreads / kTeam) + int(threadIdx.x) / kTeam; };

  Measures of[kPasses];
  float largest = 0;
#pragma unroll
  for (int pass = 0; kSplit && pass < kPasses; ++pass) {
    const int64_t i = row_of(pass);
    of[pass] = packer.measure(i < count ? points + i * s.d : nullptr);
    largest = fmaxf(largest, of[pass].largest);
    if (threadIdx.x % kTeam == 0) hashes[i % kBlock] = of[pass].hash;
  }
  if (kSplit && !is_x) largest = block_max(largest, shared);
  float norm = 0, lost0 = 0, lost1 = 0, size = 0;
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) {
    const int64_t i = row_of(pass);
    const float* const row = i < count ? points + i * s.d : nullptr;
    const int local = int(i % kBlock), exponent = kSplit ? scaling(is_x ? of[pass].largest : largest) : 0;
    if constexpr (kSplit)
      packer.split(row, local, exponent, of[pass]);
    else
      of[pass] = packer.round<Element>(row, local);
    const bool writes = threadIdx.x % kTeam == 0;
    if (is_x && writes) write_row(w, entry * s.rows() + i, i < count, of[pass], exponent);
    if (is_x) continue;
    const float offset = row && p.potential ? p.potential[entry * p.potential_stride + i] : 0.0f;
    bool taken = row;
    if constexpr (kSplit) {
      const float* const potentials = p.potential ? p.potential + entry * p.potential_stride + block * kBlock : nullptr;
      taken = !packer.is_copy(points + block * kBlock * s.d, potentials, row ? local : 0, hashes) && row;
    }
    if (writes) w.half[entry * s.columns() + i] = taken ? (offset - of[pass].norm) / 2 : -infinity();
    const float whole = of[pass].norm + (offset == -infinity() ? 0.0f : fabsf(offset));
    size = whole < kMostNorm ? fmaxf(size, whole) : infinity();
    norm = fmaxf(norm, of[pass].norm), lost0 = fmaxf(lost0, of[pass].lost[0]), lost1 = fmaxf(lost1, of[pass].lost[1]);
  }
  if (is_x) return;
  norm = block_max(norm, shared), lost0 = block_max(lost0, shared), lost1 = block_max(lost1, shared);
  size = block_max(size, shared);
  if (threadIdx.x == 0) write_block(w, at, norm, lost0, lost1, size, kSplit ? scaling(largest) : 0);
}

template <class Element>
void run(const Products& w, void* stream) {
  const Schedule& s = w.schedule;
  const size_t bytes = sizeof(float) * size_t(kWarps + kBlock + s.chunks * (kChunkBytes / Element::kBytes));
  const Launch l{describe("pack", w.p), s.batch * (s.row_blocks + s.column_blocks), kThreads, bytes, stream};
  launch(l, pack<Element>, w);
}

}  // namespace

void launch_pack(const Products& w, Precision precision, void* stream) {
  if (precision == Precision::exact) return run<Fp16>(w, stream);
  precision == Precision::tf32 ? run<Tf32>(w, stream) : run<Bf16>(w, stream);
}

}  // namespace otk::l2
