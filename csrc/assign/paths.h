// paths.h - shortest augmenting paths on lists (assign.h): Dijkstra's algorithm over columns, one free row after another.
//
// A row is reached at distance D when its own column is closed, and offers each column of its list at D + c_ij - v_j - u_i,
// u_i = what its own pair costs. Columns outside the list cost at least D + bound_i - u_i: a search closes no column beyond
// the least such limit before that row's list was extended. Lists are sorted by lower bounds of their entries, so a row's
// offers end at the distance of the nearest free column that is known.
//
// With n < m, columns that stay without a row are held by a crowd of m - n equal rows that cost nothing anywhere: owner -2,
// all with the largest v, the crowd's level. A search that reaches one of them may go on to any column, at level - v_j.
#pragma once
#include <cmath>
#include <memory>

#include "assign/lists.h"

namespace otk::OTK_ISA {

template <class T>
class Paths {
 public:
  Paths(const AssignLists<T>& p, bool defer, int64_t* stale)
      : p_(p),
        defer_(defer),
        stale_(stale),
        distance_(p.m),
        from_(p.m),
        search_(p.m, -1),
        closed_(p.m),
        flagged_(p.n),
        pair_cost_(p.n),
        longer_(p.n) {
    double largest = 0;
    missing_ = p.m - p.n;
    for (int64_t j = 0; j < p.m; ++j) {
      missing_ -= p.owner[j] == kCrowd;
      level_ = std::max(level_, p.v[j]), largest = std::max(largest, std::abs(p.v[j]));
    }
    for (int64_t i = 0; i < p.n; ++i) {
      lists_.push_back(list_of(p, i));
      if (p.match[i] >= 0) pair_cost_[i] = pair_cost(p, i, p.match[i]);
      largest = std::max({largest, std::abs(pair_cost_[i]), std::abs(lists_[i].cost[0])});
    }
    rounding_ = 16 * std::numeric_limits<double>::epsilon() * largest;
  }

  AssignRest solve(int64_t* queue, int64_t count) {
    int64_t left = 0;
    for (int64_t k = 0; k < count; ++k)
      if (!search(queue[k])) queue[left++] = queue[k];
    while (left == 0 && missing_ > 0 && search(kNoRow)) --missing_;
    return {left, stale_count_, steps_};
  }

 private:
  static constexpr int32_t kFree = -1, kCrowd = -2;
  static constexpr int64_t kNoRow = -1;  // whom a column is reached from, or who searches: the crowd
  static constexpr int64_t kKept = 1024;  // longer lists are forgotten after the search that made them
  static constexpr double kFar = std::numeric_limits<double>::infinity();

  struct Reached {
    double distance;
    int64_t column;
    bool operator<(const Reached& other) const {  // a heap's first is the nearest, of equal ones the lowest column
      return distance > other.distance || (distance == other.distance && column > other.column);
    }
  };
  struct Limit {
    double value;
    int64_t row;
    double distance, u;
    bool operator<(const Limit& other) const { return value > other.value; }
  };
  struct Longer {
    explicit Longer(int64_t length) : column(length), cost(length), least(length) {}
    std::vector<int32_t> column;
    std::vector<double> cost, least;
  };

  void offer(int64_t j, double distance, int64_t row) {
    if (search_[j] != number_) search_[j] = number_, closed_[j] = false, distance_[j] = kFar;
    if (closed_[j] || !(distance < distance_[j])) return;
    distance_[j] = distance, from_[j] = row;
    if (p_.owner[j] == kFree) {
      free_distance_ = distance, free_column_ = j;
    } else {
      heap_.push_back({distance, j});
      std::push_heap(heap_.begin(), heap_.end());
    }
  }

  void scan(int64_t i, double distance, double u) {
    const List& list = lists_[i];
    ++steps_;
    limits_.push_back({distance + (list.bound - u), i, distance, u});
    std::push_heap(limits_.begin(), limits_.end());
    for (int64_t q = 0; q < list.length && distance + (list.least[q] - u) < free_distance_; ++q) {
      const int64_t j = list.column[q];
      const double reached = std::max(distance, distance + (list.cost[q] - p_.v[j] - u));
      if (reached < free_distance_) offer(j, reached, i);
    }
  }

  // Once a search: all columns from the crowd's level, free ones first, for they end the offers.
  void scan_crowd(double distance, int64_t column) {
    if (crowd_column_ != kNotReached) return;
    crowd_column_ = column, crowd_distance_ = distance, ++steps_;
    for (const bool free : {true, false})
      for (int64_t j = 0; j < p_.m; ++j) {
        const double reached = distance + (level_ - p_.v[j]);
        if ((p_.owner[j] == kFree) == free && reached < free_distance_) offer(j, reached, kNoRow);
      }
  }

  // The row's list from the costs of all columns.
  void extend(int64_t i, int64_t length) {
    length = std::min(length, p_.m);
    entries_.resize(p_.m);
    for (int64_t j = 0; j < p_.m; ++j) {
      const double cost = pair_cost(p_, i, j);
      entries_[j] = {cost - p_.v[j], cost, int32_t(j)};
    }
    sort_least(entries_.data(), p_.m, length);
    if (length > kKept) forget_.push_back({i, lists_[i], std::move(longer_[i])});
    longer_[i] = std::make_unique<Longer>(length);
    Longer& to = *longer_[i];
    write_list(entries_.data(), length, to.column.data(), to.cost.data(), to.least.data());
    lists_[i] = {to.column.data(), to.cost.data(), to.least.data(), length, length < p_.m ? to.least.back() : kFar};
  }

  // What the best of a row's list is worth; the list is extended until none outside can be better.
  bool settle(int64_t i, double& u) {
    for (;;) {
      const List& list = lists_[i];
      u = kFar;
      for (int64_t q = 0; q < list.length && list.least[q] < u; ++q) u = std::min(u, list.cost[q] - p_.v[list.column[q]]);
      if (!(list.bound < u - rounding_)) return true;
      if (defer_) return flag(i), false;
      extend(i, 2 * list.length);
    }
  }

  void flag(int64_t i) {
    if (!flagged_[i]) stale_[stale_count_++] = i;
    flagged_[i] = true;
  }

  // The nearest column that is not closed, and its distance; a free one wins ties.
  Reached nearest() {
    while (!heap_.empty()) {
      const Reached top = heap_.front();
      if (!closed_[top.column] && !(top.distance > distance_[top.column])) break;
      std::pop_heap(heap_.begin(), heap_.end());
      heap_.pop_back();
    }
    if (heap_.empty() || !(heap_.front().distance < free_distance_)) return {free_distance_, free_column_};
    return heap_.front();
  }

  // One path; false if it was deferred.
  bool search(int64_t row) {
    heap_.clear(), limits_.clear(), path_.clear();
    ++number_, free_distance_ = kFar, crowd_column_ = kNotReached;
    double u;
    if (row == kNoRow)
      scan_crowd(0, kNoRow);
    else if (settle(row, u))
      scan(row, 0, u);
    else
      return false;
    for (;;) {
      const Reached next = nearest();
      if (!limits_.empty() && limits_.front().value < next.distance - rounding_) {
        if (defer_) {
          for (const Limit& limit : limits_)
            if (limit.value < next.distance) flag(limit.row);
          return false;
        }
        const Limit limit = limits_.front();
        std::pop_heap(limits_.begin(), limits_.end());
        limits_.pop_back();
        extend(limit.row, 2 * lists_[limit.row].length);
        scan(limit.row, limit.distance, limit.u);
        continue;
      }
      if (next.column == free_column_ && next.distance == free_distance_) break;
      closed_[next.column] = true, path_.push_back(next.column);
      const int32_t owner = p_.owner[next.column];
      if (owner == kCrowd)
        scan_crowd(next.distance, next.column);
      else
        scan(owner, next.distance, pair_cost_[owner] - p_.v[next.column]);
    }
    lower();
    augment(row);
    for (auto& kept : forget_) lists_[kept.row] = kept.list, longer_[kept.row] = std::move(kept.longer);
    forget_.clear();
    return true;
  }

  // v falls by what closed columns were nearer than the free one: then the path is tight, and all pairs stay so.
  void lower() {
    for (const int64_t j : path_) p_.v[j] -= free_distance_ - distance_[j];
    if (crowd_column_ == kNotReached) return;
    level_ -= free_distance_ - crowd_distance_;
    for (int64_t j = 0; j < p_.m; ++j)
      if (p_.owner[j] == kCrowd) p_.v[j] = level_;
  }

  void augment(int64_t row) {
    for (int64_t j = free_column_;;) {
      const int64_t i = from_[j];
      if (i == kNoRow) {
        p_.owner[j] = kCrowd, p_.v[j] = level_;
        j = crowd_column_;
        if (j == kNoRow) return;
        continue;
      }
      const int64_t left = p_.match[i];
      p_.owner[j] = int32_t(i), p_.match[i] = int32_t(j), pair_cost_[i] = pair_cost(p_, i, j);
      if (i == row) return;
      j = left;
    }
  }

  struct Kept {
    int64_t row;
    List list;
    std::unique_ptr<Longer> longer;
  };
  static constexpr int64_t kNotReached = -2;

  const AssignLists<T> p_;
  const bool defer_;
  int64_t* const stale_;
  std::vector<double> distance_;
  std::vector<int64_t> from_, search_;
  std::vector<char> closed_, flagged_;
  std::vector<double> pair_cost_;
  std::vector<std::unique_ptr<Longer>> longer_;
  std::vector<List> lists_;
  std::vector<Kept> forget_;
  std::vector<Entry> entries_;
  std::vector<Reached> heap_;
  std::vector<Limit> limits_;
  std::vector<int64_t> path_;
  int64_t number_ = 0, steps_ = 0, stale_count_ = 0, missing_ = 0, free_column_ = 0, crowd_column_ = kNotReached;
  double level_ = -kFar, crowd_distance_ = 0, rounding_ = 0, free_distance_ = 0;
};

}  // namespace otk::OTK_ISA
