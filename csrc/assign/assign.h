// assign.h - the one-to-one matching of least total cost, and the potentials that prove it (Peyre & Cuturi 2019, ch. 3).
//   sigma: rows -> columns injective, minimising sum_i c_{i sigma(i)},   c_ij = |x_i - y_j|^2 - potential_j,   n <= m
//   u_i + v_j <= c_ij for all pairs, = for matched ones;   v_j <= 0 where n < m, and v_j = 0 for columns without a row
// All costs are summed from differences in float64, whatever T is; float32 points are exact in float64. Results depend on
// nothing but the input: no step's order depends on the number of threads.
//
// Dense (dense.h), for small problems: the whole matrix, shortest augmenting paths (Jonker & Volgenant 1987). One problem a
// thread; memory 8 n m bytes each.
//
// Sparse (auction.h, paths.h), without the matrix: row i knows `length[i]` columns of least c_ij - v_j, listed under some v,
// and a bound: c_ij - v_j >= bound[i] for every column that is not in its list. Auctions and augmenting paths only lower v,
// so a bound stays true, and so does the order in which a list is sorted, as a lower bound of each entry. The caller makes
// the lists (l2_topk), and makes them anew for the rows that an auction or a search says have used theirs up.
#pragma once
#include <cstdint>
#include <functional>

namespace otk {

template <class T>
struct Assign {
  const T* x;  // [batch, n, d], rows dense, entries x_stride apart
  const T* y;  // [batch, m, d]
  const T* potential;  // [batch, m] or null
  int64_t* index;  // [batch, n]
  double* u;  // [batch, n]
  double* v;  // [batch, m]
  double* primal;  // [batch]: what the matched pairs cost
  double* dual;  // [batch]: the sum of u and v
  int64_t batch, n, m, d;
  int64_t x_stride, y_stride, potential_stride;
};

// Every problem of the batch by the dense way. One that holds a NaN, an infinity or a number beyond 1e150, whose square would
// leave float64, has index -1 and NaN elsewhere.
template <class T>
void assign_dense_cpu(const Assign<T>& problem, int threads);

// One problem by lists. Rows of length[i] entries stand `capacity` apart, sorted by `least`, the value of c_ij - v_j when they
// were listed.
template <class T>
struct AssignLists {
  const T* x;  // [n, d]
  const T* y;  // [m, d]
  const T* potential;  // [m] or null
  int32_t* column;  // [n, capacity]
  double* cost;  // [n, capacity] c_ij
  double* least;  // [n, capacity]
  double* bound;  // [n]
  int32_t* length;  // [n]
  double* v;  // [m]
  int32_t* owner;  // [m]: the row that a column belongs to, or -1
  int32_t* match;  // [n]: the column that a row has, or -1
  int64_t n, m, d, capacity;
};

// Writes the lists of rows[0 .. count): found [count, k] are columns whose costs under v are the k least but for roundings,
// and unlisted[r] bounds what is not among them. u[rows[r]] becomes the least c_ij - v_j of its list.
template <class T>
void assign_list_cpu(const AssignLists<T>& lists, const int64_t* rows, int64_t count, const int64_t* found, int64_t k,
                     const double* unlisted, double* u, int threads);

// What an auction or a search for paths left undone.
struct AssignRest {
  int64_t rows;  // without a column, at the front of the queue
  int64_t missing;  // columns that the crowd has yet to take (assign_paths_cpu, n < m)
  int64_t stale;  // whose lists are used up: an auction takes them off the queue, a search names rows with columns, too
  int64_t steps;  // bids made or rows scanned
  int64_t listed;  // rows whose lists were made anew here, because they were too few to ask for
};

// Auction (Bertsekas 1988): the rows of `queue` bid for their best column, each bid `epsilon` above what the second best is
// worth, until all have one, `most_stale` rows have used up their lists (their best is more than `reach` widths of the list
// above its bound) or `most_steps` bids were made. Writes the used-up rows to `stale`.
template <class T>
AssignRest assign_auction_cpu(const AssignLists<T>& lists, double epsilon, double reach, int64_t* queue, int64_t count,
                              int64_t* stale, int64_t most_stale, int64_t most_steps);

// What a search for paths asks its caller for, many rows at a time: rows[0 .. count) and either
//   lists   new lists of these rows under the current v (assign_list_cpu), or
//   open    for each of them kAssignMore columns, found [count, kAssignMore], whose c_ij - v_j are the least among those
//           with closed[j] == 0 but for roundings, -1 where there are fewer, and in `unlisted` a bound of what the others cost
struct AssignSearch {
  int64_t* rows;  // [n]
  uint8_t* closed;  // [m]
  int64_t* found;  // [n, kAssignMore]
  double* unlisted;  // [n]
};
inline constexpr int64_t kAssignMore = 16;
using AssignAsk = std::function<void(int64_t count, bool open)>;

// Shortest augmenting paths from the rows of `queue`, with v lowered as they go, so that all matched pairs stay tight: exact
// in float64. Matched pairs must be tight and bounds true. If n < m, owner -2 marks columns that are left over, all with the
// largest v; the caller marks those that have it, at most m - n, and searches find the `missing` ones. With `defer`, rows whose search would ask stay in the queue, and the rows that it would
// ask for are written to search.rows, to be listed anew.
template <class T>
AssignRest assign_paths_cpu(const AssignLists<T>& lists, bool defer, int64_t* queue, int64_t count,
                            const AssignSearch& search, const AssignAsk& ask);

}  // namespace otk
