// lists.h - the lists of the sparse way: written from what l2_topk found, or made here for a few rows.
#pragma once
#include <algorithm>
#include <cmath>
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

// Lists made here, in float64 and from all columns, where there are too few rows or columns to ask the caller for them.
template <class T>
class FewLists {
 public:
  explicit FewLists(const AssignLists<T>& p) : p_(p) {}

  // Whether listing this many rows takes less than a question would.
  bool may_make(int64_t rows) const { return double(rows) * double(p_.m) * double(p_.d + kEntryWork) <= kQuestionWork; }

  // The k least c_ij - v_j of row i.
  void make(int64_t i, int64_t k) {
    entries_.resize(p_.m);
    double largest = 0;
    for (int64_t j = 0; j < p_.m; ++j) {
      const double cost = pair_cost(p_, i, j);
      entries_[j] = {cost - p_.v[j], cost, int32_t(j)};
      largest = std::max(largest, std::abs(cost) + std::abs(p_.v[j]));
    }
    if (k < p_.m) std::nth_element(entries_.begin(), entries_.begin() + k, entries_.end());
    const double rounding = double(p_.d + 16) * std::numeric_limits<double>::epsilon() * largest;
    p_.bound[i] = k < p_.m ? entries_[k].least - rounding : std::numeric_limits<double>::infinity();
    std::sort(entries_.begin(), entries_.begin() + k);
    const int64_t at = i * p_.capacity;
    write_list(entries_.data(), k, p_.column + at, p_.cost + at, p_.least + at);
    p_.length[i] = int32_t(k);
  }

 private:
  static constexpr double kQuestionWork = 1 << 18, kEntryWork = 16;  // in multiply-adds

  const AssignLists<T>& p_;
  std::vector<Entry> entries_;
};

}  // namespace otk::OTK_ISA
