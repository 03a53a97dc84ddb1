// lists.h - the lists of the sparse way: written from what l2_topk found, and extended by all columns of a row.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "assign/assign.h"
#include "common/simd.h"

namespace otk::OTK_ISA {

// c_ij from differences in float64.
template <class T>
inline double pair_cost(const AssignLists<T>& p, int64_t i, int64_t j) {
  const T *x = p.x + i * p.d, *y = p.y + j * p.d;
  constexpr int kParts = 8;
  double sum[kParts] = {};
  int64_t k = 0;
  for (; k + kParts <= p.d; k += kParts)
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      const double difference = double(x[k + part]) - double(y[k + part]);
      sum[part] += difference * difference;
    }
  for (int part = 0; k < p.d; ++k, ++part) {
    const double difference = double(x[k]) - double(y[k]);
    sum[part] += difference * difference;
  }
  const double all = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
  return p.potential ? all - double(p.potential[j]) : all;
}

struct Entry {
  double least, cost;
  int32_t column;

  bool operator<(const Entry& other) const {
    return least < other.least || (least == other.least && column < other.column);
  }
};

// The `length` least of `count` entries in ascending order at the front.
inline void sort_least(Entry* entries, int64_t count, int64_t length) {
  if (length < count) std::nth_element(entries, entries + length - 1, entries + count);
  std::sort(entries, entries + length);
}

inline void write_list(const Entry* entries, int64_t length, int32_t* column, double* cost, double* least) {
  for (int64_t q = 0; q < length; ++q)
    column[q] = entries[q].column, cost[q] = entries[q].cost, least[q] = entries[q].least;
}

// A row's list as a search sees it: the caller's, or one that the search has extended.
struct List {
  const int32_t* column;
  const double* cost;
  const double* least;
  int64_t length;
  double bound;
};

template <class T>
inline List list_of(const AssignLists<T>& p, int64_t i) {
  const int64_t at = i * p.capacity;
  return {p.column + at, p.cost + at, p.least + at, p.length[i], p.bound[i]};
}

// See assign_list_cpu.
template <class T>
void make_lists(const AssignLists<T>& p, const int64_t* rows, int64_t count, const int64_t* found, int64_t k,
                const double* unlisted, double* u, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<Entry> entries(k);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < count; ++r) {
      const int64_t i = rows[r], at = i * p.capacity;
      for (int64_t q = 0; q < k; ++q) {
        const int64_t j = found[r * k + q];
        const double cost = pair_cost(p, i, j);
        entries[q] = {cost - p.v[j], cost, int32_t(j)};
      }
      sort_least(entries.data(), k, k);
      write_list(entries.data(), k, p.column + at, p.cost + at, p.least + at);
      p.length[i] = int32_t(k), p.bound[i] = unlisted[r], u[i] = entries[0].least;
    }
  }
}

}  // namespace otk::OTK_ISA
