// l2_argmin.h - fused pairwise-L2 argmin (the c-transform of a potential, Peyre & Cuturi 2019, ch. 5).
//   value[i] = min_j |x_i - y_j|^2 - potential[j];   index[i] = the lowest j that attains it
// Layout    x [batch, n, d], y [batch, m, d], rows dense, batches a stride apart (0 shares one); potential [batch, m]
//           or null; value, index [batch, n] dense.
// Memory    O(n + m): the n-by-m cost is never written.
// Contract  n == 0 or batch == 0 is a no-op, m >= 1, d >= 1. A row whose costs hold a NaN gets index -1 and value NaN.
//
// Numerics. u is the unit roundoff (2^-24 or 2^-53). Candidates come from the product form
//     s_ij = x_i . y_j - (|y_j|^2 - potential_j) / 2,     cost_ij = |x_i|^2 - 2 s_ij,
// on points moved by a common centre c, so that a cloud far from the origin keeps its digits. With x' = fl(x - c), Cauchy
// and Schwarz bound what s errs by, each norm being that of the moved points:
//     centring     fl(x - c) is within u |x - c| of x - c, which moves a cost by at most 4 u (|x'|^2 + |y'|^2) to first
//                  order, s by half of that
//     half norm    (d + 2) u (|y'|^2 + |p|) / 2
//     products     d multiply-adds that start at the half norm: (d + 2) u ((|y'|^2 + |p|) / 2 + |x'| |y'|)
//     rounding     x' and y' may be rounded to h(x') and h(y') before they are multiplied; what that took, r = x' - h(x'),
//                  is exact in float32, and product.h shows that it moves s by at most 1.004 (|r_x| |y'| + |x'| |r_y|)
// together at most
//     e_ij := 1.01 (|r_x| |y'| + |x'| |r_y|) + 1.25 (d + 16) u (|y'|^2 + |p| + |x'| |y'|) + 4 u |x'|^2 + underflow,
// with room for second-order terms (d u < 1/8, beyond which e is infinite), for subnormals that an instruction takes for
// zero, and for the roundings of e and of its comparisons. Norms are rounded up by 1 + 2 (d + 16) u, their squares by d of
// the smallest normal number before the root is taken, so that squares that vanish do not count as nothing. Over a panel of
// columns the largest |y'|, |r_y| and |y'|^2 + |p| are taken.
//     A row's L_i is the largest of two lower bounds of the true maximum of s_i that were seen so far:
//     from products     fl(s_ij) - e_ij
//     from a settled    (|x'|^2 - v) / 2 - (d + 16) u (|x'|^2 + |v| + |p_j|) - underflow, where v = fl(cost_ij) was summed from
//     pair              differences: these err by (d + 3) u (|v| + |p_j|), |x'|^2 by (d + 6) u of itself, half of each counts
// So a j with fl(s_ij) + e_ij < L_i cannot be nearest and every other j is a candidate: its distance is summed from the
// differences of the points as given, and decides; equal costs go to the lower index. Comparisons are written so that NaN
// and infinity (overflowed norms, too) make candidates, never losers. Two kinds of columns are left out before: copies of
// earlier points (duplicates.h) and, in clouds of clusters, those that the triangle inequality rules out (groups.h).
//
// On a GPU candidates come from tensor-core products of float16 (schedule.h has the stages, cuda_pack.cu the packing). A
// row of x, and a block of 128 columns of y, is scaled by a power of two so that its largest coordinate lies in
// [2^14, 2^15): x' = h + r with h the nearest float16 number of the scaled coordinate, and r measured as on the CPU: it is
// exact in float32, for h is x' cut to a coarser grid. Per coordinate |r| <= max(2^-11 |x'|, 2^-39 of the largest), so what
// underflows in float16 is part of r, and |r_y| <= 2^-10.9 max |y'| over a block. Products of float16 are exact in float32;
// scales are powers of two. In the second stage x' = h + l + r2, l the nearest float16 number of the scaled r, and
// h_x l_y + l_x h_y are added before h_x h_y; l_x l_y is not. With X = |x'| + |r_x| and Y = max (|y'| + |r_y|)
//     rounding      first stage 1.01 (|r_x| Y + X max |r_y|); second 1.01 (|r2_x| Y + X max |r2_y|) + 2^-9 |r_x| Y
//     accumulation  4.04 u (d + 16) X Y: a tensor core's additions cut at the last bit of the largest term (see
//                   otkernels/l2_argmin/triton.py); the second stage's small terms are summed first, and add 2^-9 of that
//     half norm, centring, s = product + half, s - e and L - e: as above
// so that, with d rounded up to whole chunks of 64, e_ij of block J is at most (RowFacts, BlockFacts in schedule.h)
//     1.01 (|r_x| Y + X max |r_y|) + 5 (d + 16) u X Y + 1.25 (d + 16) u max (|y'|^2 + |p|) + 4 u |x'|^2 + underflow.
// A row whose squared norm may pass 2^100, or that meets a block with such a column, with a NaN, with an infinity other than
// a potential of -inf, or with coordinates that are all below 2^-59 (unless all their squares vanish, which the lengths
// allow for), is solved by differences; so is one that gave up in both stages. The bound speaks of costs in real arithmetic:
// where |x'| is far larger than |y'|, costs as summed in float32 may tie with, or undercut by their rounding, the one that
// is reported.
#pragma once
#include <cstdint>

namespace otk {

template <class T>
struct L2Argmin {
  const T* x;
  const T* y;
  const T* potential;
  T* value;
  int64_t* index;
  int64_t batch, n, m, d;
  int64_t x_stride, y_stride, potential_stride;  // elements from one batch entry to the next
};

template <class T>
void l2_argmin_cpu(const L2Argmin<T>& problem, int threads);

// On a GPU, float32. How the candidates' products are formed: exact settles them by differences, the others take the
// best product and report its pair's distance (small problems and d <= 8 are solved by differences whatever this says).
enum class Precision { exact, tf32, bf16 };

// Bytes of workspace that l2_argmin_cuda needs for this problem on the current device; aligned to 256.
int64_t l2_argmin_cuda_workspace(const L2Argmin<float>& problem, Precision precision);

// Launches on `stream` of the current device; allocates nothing, does not synchronise, throws on a launch error.
void l2_argmin_cuda(const L2Argmin<float>& problem, Precision precision, void* workspace, void* stream);

}  // namespace otk
