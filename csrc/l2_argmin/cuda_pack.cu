// cuda_pack.cu - moves the points by a common centre and writes them as the product kernels read them.
//
// Layout    a block of 128 rows is `chunks` chunks of 128 rows x 128 bytes; piece p (16 bytes) of row r lies at piece
//           p ^ (r % 8): the swizzle of wgmma's 128-byte atoms, free of bank conflicts for ldmatrix. Zeros pad rows and
//           coordinates, so a chunk is one contiguous copy of 16 KiB.
// Work      a block packs one block of rows of x or of y; eight lanes share a row, so reads and writes run along it.
// Centre    the mean of up to 16 rows of y, the same sums in every block; zero where that is not finite.
// Numerics  bfloat16 and tf32 by rounding to nearest even; norms from the moved float32 coordinates, see l2_argmin.h.
// Also      half norms of y, the parts of the bound, and the count of undecided rows, which starts at zero.
// Not yet run on a GPU.
#include "common/mma.h"
#include "l2_argmin/cuda_candidates.h"
#include "l2_argmin/cuda_distance.h"

namespace otk::l2 {
namespace {

constexpr int kThreads = 256, kPasses = kBlock / (kThreads / 8);
constexpr int64_t kCentreRows = 16;

// The upper `32 - kCut` bits of the nearest number that has no more; a NaN stays one.
template <int kCut>
__device__ unsigned rounded(float v) {
  const unsigned bits = __float_as_uint(v);
  if (v != v) return bits | 0x00400000u;
  return (bits + ((1u << (kCut - 1)) - 1) + (bits >> kCut & 1)) & ~((1u << kCut) - 1);
}

__device__ uint4 encode(const float (&v)[8]) {  // Bf16: the lower coordinate in the lower half
  return make_uint4(rounded<16>(v[0]) >> 16 | (rounded<16>(v[1]) & 0xffff0000u),
                    rounded<16>(v[2]) >> 16 | (rounded<16>(v[3]) & 0xffff0000u),
                    rounded<16>(v[4]) >> 16 | (rounded<16>(v[5]) & 0xffff0000u),
                    rounded<16>(v[6]) >> 16 | (rounded<16>(v[7]) & 0xffff0000u));
}

__device__ uint4 encode(const float (&v)[4]) {  // Tf32
  return make_uint4(rounded<13>(v[0]), rounded<13>(v[1]), rounded<13>(v[2]), rounded<13>(v[3]));
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

// Packs row `local` of a block (null: padding), eight lanes together; returns its squared norm.
template <class Element, bool kVector>
__device__ float pack_row(const float* row, int d, int chunks, const float* centre, int local, unsigned char* out) {
  constexpr int kPiece = 16 / Element::kBytes;
  const int piece = threadIdx.x % 8;
  unsigned char* to = out + local * kChunkBytes + ((piece ^ (local & 7)) << 4);
  float norm = 0;
  for (int c = 0; c < chunks; ++c, to += kSlotBytes) {
    const int k0 = (c * 8 + piece) * kPiece;
    float v[kPiece] = {};
#pragma unroll
    for (int e = 0; e < kPiece; e += 4) {
      const int k = k0 + e;
      if (!row || k >= d) continue;
      const float4 at = load4<kVector>(row, k, d);
      v[e] = at.x - centre[k];
      if (k + 1 < d) v[e + 1] = at.y - centre[k + 1];
      if (k + 2 < d) v[e + 2] = at.z - centre[k + 2];
      if (k + 3 < d) v[e + 3] = at.w - centre[k + 3];
    }
#pragma unroll
    for (int e = 0; e < kPiece; ++e) norm = __fmaf_rn(v[e], v[e], norm);
    *reinterpret_cast<uint4*>(to) = encode(v);
  }
  for (int step = 1; step < 8; step *= 2) norm += __shfl_xor_sync(~0u, norm, step);
  return norm;
}

// This column's half norm; returns its share of the bound.
__device__ float column_share(const Products& w, int64_t entry, int64_t j, float norm) {
  const L2Argmin<float>& p = w.p;
  const bool inside = j < p.m;
  const float offset = inside && p.potential ? p.potential[entry * p.potential_stride + j] : 0.0f;
  const float size = offset == -infinity() ? 0.0f : fabsf(offset);
  if (threadIdx.x % 8 == 0) w.half[entry * w.schedule.columns() + j] = inside ? (offset - norm) / 2 : -infinity();
  return norm + size < kMostNorm ? norm * w.bound.norm + size * w.bound.potential + w.bound.absolute : infinity();
}

// The largest `share` of the block, to *spread; shared: a float a warp.
__device__ void write_spread(float share, float* shared, float* spread) {
  share = fmaxf(share, __shfl_xor_sync(~0u, share, 8));
  share = fmaxf(share, __shfl_xor_sync(~0u, share, 16));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = share;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int k = 1; k < kThreads / 32; ++k) share = fmaxf(share, shared[k]);
  *spread = share;
}

template <class Element, bool kVector>
__global__ void __launch_bounds__(kThreads, 2) pack(const Products w) {
  const Schedule& s = w.schedule;
  const L2Argmin<float>& p = w.p;
  float* const shares = shared_memory<float>();  // [8], then the centre
  float* const centre = shares + kThreads / 32;
  const int64_t per_entry = s.row_blocks + s.column_blocks, entry = blockIdx.x / per_entry, b = blockIdx.x % per_entry;
  const bool is_x = b < s.row_blocks;
  const int64_t block = is_x ? b : b - s.row_blocks, count = is_x ? s.n : s.m;
  if (b == 0 && threadIdx.x == 0) w.undecided.count[entry] = 0;
  find_centre(p.y + entry * p.y_stride, s.m, s.d, int64_t(s.chunks) * (kChunkBytes / Element::kBytes), centre);
  __syncthreads();
  const float* const points = is_x ? p.x + entry * p.x_stride : p.y + entry * p.y_stride;
  unsigned char* const out = is_x ? w.x + (entry * s.row_blocks + block) * s.packed_block_bytes()
                                  : w.y + (entry * s.column_blocks + block) * s.packed_block_bytes();
  float share = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const int local = pass * (kThreads / 8) + int(threadIdx.x) / 8;
    const int64_t i = block * kBlock + local;
    const float norm =
        pack_row<Element, kVector>(i < count ? points + i * s.d : nullptr, int(s.d), s.chunks, centre, local, out);
    if (!is_x) {
      share = fmaxf(share, column_share(w, entry, i, norm));
    } else if (threadIdx.x % 8 == 0) {
      const bool live = i < count && norm < kMostNorm;
      w.x_error[entry * s.rows() + i] = live ? norm * w.bound.norm + w.bound.absolute : infinity();
    }
  }
  if (!is_x) write_spread(share, shares, w.spread + entry * s.column_blocks + block);
}

template <class Element>
void run(const Products& w, void* stream) {
  const Schedule& s = w.schedule;
  const L2Argmin<float>& p = w.p;
  const size_t bytes = sizeof(float) * size_t(kThreads / 32 + s.chunks * (kChunkBytes / Element::kBytes));
  const Launch l{describe("pack", p), s.batch * (s.row_blocks + s.column_blocks), kThreads, bytes, stream};
  const bool vector = aligned_rows(p.x, p.d, p.x_stride) && aligned_rows(p.y, p.d, p.y_stride);
  launch(l, vector ? pack<Element, true> : pack<Element, false>, w);
}

}  // namespace

void launch_pack(const Products& w, Precision precision, void* stream) {
  precision == Precision::tf32 ? run<Tf32>(w, stream) : run<Bf16>(w, stream);
}

}  // namespace otk::l2
