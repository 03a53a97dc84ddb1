// auction.h - rows bid for columns (Bertsekas 1988), on lists (assign.h).
#pragma once
#include "assign/lists.h"

namespace otk::OTK_ISA {

template <class T>
AssignRest auction(const AssignLists<T>& p, double epsilon, double reach, int64_t* queue, int64_t count, int64_t* stale,
                   int64_t most_stale, int64_t most_steps) {
  constexpr double kFar = std::numeric_limits<double>::infinity();
  AssignRest rest{};
  rest.rows = count;
  FewLists<T> lists(p);
  int64_t first = 0;  // the queue is a ring of n places
  const auto push = [&](int64_t i) {
    const int64_t last = first + rest.rows++;
    queue[last < p.n ? last : last - p.n] = i;
  };
  while (rest.stale < most_stale && rest.steps < most_steps) {
    if (rest.rows == 0) {  // none is left but rows that have used up their lists
      if (rest.stale == 0 || !lists.may_make(rest.stale) || rest.listed >= p.n) break;
      for (int64_t s = 0; s < rest.stale; ++s) lists.make(stale[s], p.length[stale[s]]), push(stale[s]);
      rest.listed += rest.stale, rest.stale = 0;
    }
    const int64_t i = queue[first];
    first = first + 1 == p.n ? 0 : first + 1, --rest.rows;
    const List list = list_of(p, i);
    double best = kFar, second = kFar;
    int64_t chosen = 0;
    for (int64_t q = 0; q < list.length && list.least[q] < second; ++q) {
      const double value = list.cost[q] - p.v[list.column[q]];
      if (value < best)
        second = best, best = value, chosen = q;
      else if (value < second)
        second = value;
    }
    const double limit = list.bound + reach * (list.least[list.length - 1] - list.least[0]);
    if (best > limit) {
      stale[rest.stale++] = i;
      continue;
    }
    second = std::min(second, limit);
    const int64_t j = list.column[chosen], loser = p.owner[j];
    p.v[j] -= (second < kFar ? second - best : 0) + epsilon;
    p.owner[j] = int32_t(i), p.match[i] = int32_t(j), ++rest.steps;
    if (loser < 0) continue;
    p.match[loser] = -1;
    push(loser);
  }
  std::rotate(queue, queue + first, queue + p.n);
  return rest;
}

}  // namespace otk::OTK_ISA
