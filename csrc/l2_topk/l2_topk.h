// l2_topk.h - the k least pairwise costs of each row.
//   cost_ij = |x_i - y_j|^2 - potential[j]
//   index[i, c] = the j of the c-th least cost of row i, the lowest j first among equal ones;  value[i, c] = its cost
// Layout    x [batch, n, d], y [batch, m, d], rows dense, batches a stride apart (0 shares one); potential [batch, m]
//           or null; value, index [batch, n, k] dense.
// Memory    O((n + m) k): the n-by-m cost is never written.
// Contract  n == 0 or batch == 0 is a no-op, 1 <= k <= min(m, kMostNeighbours), d >= 1. A row whose costs hold a NaN gets
//           index -1 and value NaN throughout.
//
// Numerics. s_ij and e_ij are l2_argmin.h's: products whose distance from the true s_ij is at most e_ij, with room for the
// roundings of the two sums below and of comparisons with them. So fl(s_ij) - e_ij and fl(s_ij) + e_ij enclose it, and a
// settled pair (one whose cost was summed from differences) has a lower bound of its own. A row's L_i is the k-th largest
// lower bound of some set of its columns, or less: k columns have true s >= L_i, and L_i never falls. A column with
// fl(s_ij) + e_ij < L_i has k columns strictly before it, however ties are ordered, and is dropped; all others are kept, among
// them every column whose lower bound is L_i or more, so the k that prove L_i are never dropped by it. In the end all kept
// columns are settled, and the k least of their costs as summed, by (cost, index), are the result: the c-th least true cost
// of the chosen exceeds the c-th least of all by no more than two such sums err by.
//
// Comparisons are written so that NaN and infinity keep a column: a NaN score, or one with an infinite e_ij, has the
// bounds -inf and +inf. So a NaN cost, whose score is NaN, is always settled, and marks its row.
//
// Costs of points in few dimensions are summed from differences for all pairs (low_dimension.h), and compared as they are.
#pragma once
#include <cstdint>

namespace otk {

inline constexpr int64_t kMostNeighbours = 128;

template <class T>
struct L2TopK {
  const T* x;
  const T* y;
  const T* potential;
  T* value;
  int64_t* index;
  int64_t batch, n, m, d, k;
  int64_t x_stride, y_stride, potential_stride;  // elements from one batch entry to the next
};

template <class T>
void l2_topk_cpu(const L2TopK<T>& problem, int threads);

}  // namespace otk
