// paths.h - shortest augmenting paths on lists (assign.h): Dijkstra's algorithm over columns, one free row after another.
//
// A row is reached at distance D when its own column is closed, and offers each column of its list at D + c_ij - v_j - u_i,
// u_i = what its own pair costs. Columns outside the list cost at least D + bound_i - u_i: a search closes no column beyond
// the least such limit. Lists are sorted by lower bounds of their entries, so a row's offers end at the distance of the
// nearest free column that is known.
//
// Rows whose bound u_i has passed are listed anew, many together. Rows whose limits are in the way, and those that will be
// next, offer the best of the columns that are still open: inside a large tree a row's list holds nothing but closed ones,
// and no list would be long enough. A row that is in the way once more offers all columns.
//
// With n < m, columns that stay without a row are held by a crowd of m - n equal rows that cost nothing anywhere: owner -2,
// all with the largest v, the crowd's level. A search that reaches one of them may go on to any column, at level - v_j.
#pragma once
#include <cmath>

#include "assign/lists.h"

namespace otk::OTK_ISA {

template <class T>
class Paths {
 public:
  Paths(const AssignLists<T>& p, bool defer, const AssignSearch& shared, const AssignAsk& ask)
      : p_(p),
        defer_(defer),
        shared_(shared),
        ask_(ask),
        lists_(p_),
        distance_(p.m),
        from_(p.m),
        search_(p.m, -1),
        asked_(p.n),
        flagged_(p.n),
        pair_cost_(p.n) {
    double largest = 0;
    missing_ = p.m - p.n;
    for (int64_t j = 0; j < p.m; ++j) {
      missing_ -= p.owner[j] == kCrowd;
      level_ = std::max(level_, p.v[j]), largest = std::max(largest, std::abs(p.v[j]));
    }
    for (int64_t i = 0; i < p.n; ++i) {
      if (p.match[i] >= 0) pair_cost_[i] = pair_cost(p, i, p.match[i]);
      largest = std::max({largest, std::abs(pair_cost_[i]), std::abs(p.cost[i * p.capacity])});
    }
    rounding_ = 4 * double(p.d + 16) * std::numeric_limits<double>::epsilon() * largest;  // as the bounds allow for
  }

  AssignRest solve(int64_t* queue, int64_t count) {
    int64_t left = 0;
    for (int64_t k = 0; k < count; ++k)
      if (!find(queue[k])) queue[left++] = queue[k];
    while (left == 0 && missing_ > 0 && find(kNoRow)) --missing_;
    return {left, missing_, flagged_count_, steps_, listed_};
  }

 private:
  static constexpr int32_t kFree = -1, kCrowd = -2;
  static constexpr int64_t kNoRow = -1;  // whom a column is reached from, or who searches: the crowd
  static constexpr double kAskingWork = 1 << 20;  // multiply-adds that take as long as a question
  static constexpr int64_t kTogether = 256;  // rows to ask about at once: the points are read once for all
  static constexpr int64_t kNotReached = -2;  // the crowd's column in a search
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
  void offer(int64_t j, double distance, int64_t row) {
    if (search_[j] != number_) search_[j] = number_, distance_[j] = kFar;
    if (shared_.closed[j] || !(distance < distance_[j])) return;
    distance_[j] = distance, from_[j] = row;
    if (p_.owner[j] == kFree) {
      free_distance_ = distance, free_column_ = j;
    } else {
      heap_.push_back({distance, j});
      std::push_heap(heap_.begin(), heap_.end());
    }
  }

  void limit(int64_t i, double distance, double u, double least) {
    limits_.push_back({distance + (least - u), i, distance, u});
    std::push_heap(limits_.begin(), limits_.end());
  }

  // The offers of a row whose bound is true for u.
  void scan(int64_t i, double distance, double u) {
    const List list = list_of(p_, i);
    ++steps_;
    limit(i, distance, u, list.bound);
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

  // What rows that are in the way offer beside their lists: one of them all columns, while a search has spent less on these
  // than a question takes; then all of them the best open columns; and all columns when they are in the way again.
  void offer_more(double reach) {
    int64_t count = 0;
    open_.clear();
    do {
      const Limit from = limits_.front();
      std::pop_heap(limits_.begin(), limits_.end());
      limits_.pop_back();
      if (alone_ < kAskingWork || asked_[from.row] == number_) {
        alone_ += double(p_.m) * double(p_.d);
        for (int64_t j = 0; j < p_.m; ++j) offer_open(from, j);
        return;  // which may have ended the search; rows that wait keep their limits
      }
      asked_[from.row] = number_;
      open_.push_back(from), shared_.rows[count++] = from.row;
    } while (!limits_.empty() && (limits_.front().value < reach || count < kTogether) &&
             asked_[limits_.front().row] != number_);
    ask_(count, true);
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t q = 0; q < kAssignMore && shared_.found[r * kAssignMore + q] >= 0; ++q)
        offer_open(open_[r], shared_.found[r * kAssignMore + q]);
      limit(open_[r].row, open_[r].distance, open_[r].u, shared_.unlisted[r]);
    }
  }

  void offer_open(const Limit& from, int64_t j) {
    const double reached = std::max(from.distance, from.distance + (pair_cost(p_, from.row, j) - p_.v[j] - from.u));
    if (reached < free_distance_) offer(j, reached, from.row);
  }

  bool used_up(int64_t i, double u) const { return p_.bound[i] < u - rounding_; }

  // Whether row i's list may be used for u; if not, lists are made of it and of the rows like it that this search has come
  // near, and, where the caller makes them, of others that wait for the searches to come; or it is flagged for the caller.
  bool usable(int64_t i, double u) {
    if (!used_up(i, u)) return true;
    if (defer_) return flag(i), false;
    int64_t count = 0;
    shared_.rows[count++] = i, asked_[i] = -number_;
    for (const Reached& near : heap_) {
      const int32_t r = p_.owner[near.column];
      if (r < 0 || asked_[r] == -number_ || !used_up(r, pair_cost_[r] - p_.v[near.column])) continue;
      shared_.rows[count++] = r, asked_[r] = -number_;
    }
    if (!lists_.may_make(count)) {
      for (int64_t step = 0; step < p_.n && count < kTogether; ++step) {
        const int64_t r = next_ = next_ + 1 < p_.n ? next_ + 1 : 0;
        const int32_t j = p_.match[r];
        if (j < 0 || asked_[r] == -number_ || !used_up(r, pair_cost_[r] - p_.v[j])) continue;
        shared_.rows[count++] = r, asked_[r] = -number_;
      }
      return ask_(count, false), true;
    }
    for (int64_t r = 0; r < count; ++r) lists_.make(shared_.rows[r], p_.capacity);
    listed_ += count;
    return true;
  }

  // What the best column is worth to a free row.
  double best(int64_t i) const {
    const List list = list_of(p_, i);
    double u = kFar;
    for (int64_t q = 0; q < list.length && list.least[q] < u; ++q) u = std::min(u, list.cost[q] - p_.v[list.column[q]]);
    return u;
  }

  void flag(int64_t i) {
    if (!flagged_[i]) shared_.rows[flagged_count_++] = i;
    flagged_[i] = true;
  }

  // The nearest column that is not closed, and its distance; a free one wins ties.
  Reached nearest() {
    while (!heap_.empty()) {
      const Reached top = heap_.front();
      if (!shared_.closed[top.column] && !(top.distance > distance_[top.column])) break;
      std::pop_heap(heap_.begin(), heap_.end());
      heap_.pop_back();
    }
    if (heap_.empty() || !(heap_.front().distance < free_distance_)) return {free_distance_, free_column_};
    return heap_.front();
  }

  // One path; false if it was deferred.
  bool find(int64_t row) {
    const bool found = search(row);
    for (const int64_t j : path_) shared_.closed[j] = 0;
    path_.clear();
    return found;
  }

  bool search(int64_t row) {
    heap_.clear(), limits_.clear();
    ++number_, free_distance_ = kFar, crowd_column_ = kNotReached, alone_ = 0;
    if (row == kNoRow) {
      scan_crowd(0, kNoRow);
    } else {
      if (!usable(row, best(row))) return false;
      scan(row, 0, best(row));
    }
    for (;;) {
      const Reached next = nearest();
      if (!limits_.empty() && limits_.front().value < next.distance - rounding_) {
        if (defer_) {
          for (const Limit& limit : limits_)
            if (limit.value < next.distance) flag(limit.row);
          return false;
        }
        offer_more(next.distance - rounding_);
        continue;
      }
      if (next.column == free_column_ && next.distance == free_distance_) break;
      shared_.closed[next.column] = 1, path_.push_back(next.column);
      const int32_t owner = p_.owner[next.column];
      if (owner == kCrowd) {
        scan_crowd(next.distance, next.column);
        continue;
      }
      const double u = pair_cost_[owner] - p_.v[next.column];
      if (!usable(owner, u)) return false;
      scan(owner, next.distance, u);
    }
    lower();
    augment(row);
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

  const AssignLists<T> p_;
  const bool defer_;
  const AssignSearch shared_;
  const AssignAsk& ask_;
  FewLists<T> lists_;
  std::vector<double> distance_;
  std::vector<int64_t> from_, search_, asked_;
  std::vector<char> flagged_;
  std::vector<double> pair_cost_;
  std::vector<Reached> heap_;
  std::vector<Limit> limits_, open_;
  std::vector<int64_t> path_;
  int64_t next_ = 0, number_ = 0, steps_ = 0, listed_ = 0, flagged_count_ = 0, missing_ = 0, free_column_ = 0,
          crowd_column_ = kNotReached;
  double level_ = -kFar, crowd_distance_ = 0, rounding_ = 0, free_distance_ = 0, alone_ = 0;
};

}  // namespace otk::OTK_ISA
