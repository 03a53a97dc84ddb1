// groups.h - l2_argmin on clustered points, where most pairs need no product.
//
// A few points of y are pivots q_g, as far from each other as a sample allows; every column belongs to its nearest pivot.
// With r_g the largest distance of a member from its pivot, for every member j
//     |x_i - y_j| >= |x_i - q_g| - r_g,
// so a group whose (|x_i - q_g| - r_g)^2 - max_j potential_j exceeds the cost of a pair that row i already has cannot hold
// its nearest. The first such pair is that of the row's own pivot. All distances are summed from differences: they err by
// (d + 3) u of themselves and what vanishes, d of the smallest normal number at most; `Pruning` widens by that. In the
// groups that remain products are formed as everywhere (candidates.h), on points moved by the group's pivot: tight clusters
// keep their digits in bfloat16, however far they are from each other.
//
// Whether the points are clustered the pivots tell: their number until kNear of the first radius is reached. Normal points
// never get there, and cost kSample * kMostGroups distances.
#pragma once
#include "l2_argmin/duplicates.h"

namespace otk::OTK_ISA {

constexpr int64_t kGroupSample = 128, kMostGroups = 64;
constexpr double kNear = 0.4;  // of the first radius
constexpr double kMostPairs = 0.5;  // the share of pairs that may survive for groups to pay
constexpr int64_t kGroupRows = 4096;  // rows of x whose distances from the pivots are kept
constexpr int64_t kGroupTask = 64;

template <class T>
struct Groups {
  int64_t count = 0, stride = 0;  // stride: count rounded up to whole vectors
  const T* pivot[kMostGroups];  // points of y; the last repeated up to stride
  int64_t column[kMostGroups];  // the pivots' indices in y
  int64_t start[kMostGroups + 1];  // of each group in `order`
  T radius[kMostGroups];  // r_g, rounded up
  T potential[kMostGroups];  // the largest in the group

  int64_t size(int64_t g) const { return start[g + 1] - start[g]; }
};

// Pivots by farthest-first traversal of a sample; none if the points are not clustered.
template <class T>
void choose_pivots(const Points<T>& p, const Columns& columns, Groups<T>& groups) {
  constexpr int64_t L = simd<T>::lanes;
  if (columns.count < 4 * kGroupSample) return;
  const T* points[kGroupSample];
  int64_t sample[kGroupSample];
  T nearest[kGroupSample];
  for (int64_t s = 0; s < kGroupSample; ++s) {
    sample[s] = columns[spread_column(s, kGroupSample, columns.count)];
    points[s] = p.y + sample[s] * p.d;
    nearest[s] = kInf<T>;
  }
  T first = 0;
  for (int64_t g = 0, next = 0; g < kMostGroups; ++g) {
    groups.pivot[g] = points[next], groups.column[g] = sample[next];
    T farthest = 0;
    for (int64_t s = 0; s < kGroupSample; s += L) {
      const vec<T> distance = squared_distances<T>(groups.pivot[g], points + s, p.d);
      for (int64_t l = 0; l < L; ++l) {
        nearest[s + l] = std::min(nearest[s + l], distance[l]);
        if (!(nearest[s + l] <= farthest)) farthest = nearest[s + l], next = s + l;
      }
    }
    if (g == 0) first = farthest;
    if (!(first < kInf<T>)) return;
    if (farthest > T(kNear * kNear) * first) continue;
    groups.count = g + 1, groups.stride = (g + L) / L * L;
    for (int64_t more = groups.count; more < groups.stride; ++more) groups.pivot[more] = groups.pivot[g];
    return;
  }
}

// What a row knows of a group: whether it may hold the nearest point.
template <class T>
struct Pruning {
  T grow, vanished;

  explicit Pruning(int64_t d)
      : grow((T(d) + 16) * std::numeric_limits<T>::epsilon()), vanished(T(d) * std::numeric_limits<T>::min()) {}

  T radius(T square) const { return std::sqrt(square + vanished) * (1 + grow); }

  bool may_hold(T square, T radius, T potential, T value, T taken) const {
    const T gap = std::sqrt(std::max(square - vanished, T(0))) * (1 - grow) - radius;
    const T least = gap * gap * (1 - grow) - potential;
    const T most = value + grow * (std::abs(value) + std::abs(taken) + std::abs(potential)) + vanished;
    return !(square < kInf<T>) || !(gap > 0) || !(least > most);
  }
};

// The squared distances of a point from every pivot; returns the nearest pivot.
template <class T>
int64_t measure(const Groups<T>& groups, const T* point, int64_t d, T* squares) {
  constexpr int64_t L = simd<T>::lanes;
  for (int64_t g = 0; g < groups.stride; g += L) store<T>(squares + g, squared_distances<T>(point, groups.pivot + g, d));
  return std::min_element(squares, squares + groups.count) - squares;
}

// Sorts numbers 0.. count - 1 by group, stably: order gets value_at(k), start the groups' beginnings.
template <class ValueAt>
void sort_by_group(const uint8_t* own, int64_t count, int64_t groups, int64_t* start, int64_t* order, ValueAt&& value_at) {
  std::fill_n(start, groups + 1, int64_t(0));
  for (int64_t k = 0; k < count; ++k) ++start[own[k] + 1];
  for (int64_t g = 0; g < groups; ++g) start[g + 1] += start[g];
  int64_t next[kMostGroups];
  std::copy_n(start, groups, next);
  for (int64_t k = 0; k < count; ++k) order[next[own[k]]++] = value_at(k);
}

// Gives every column to its nearest pivot: order [columns.count] and the groups' bounds.
template <class T>
void form_groups(const Points<T>& p, const Columns& columns, Groups<T>& groups, int64_t* order, int threads) {
  Scratch<uint8_t> owners(columns.count);
  Scratch<T> distances(columns.count);
  uint8_t* const own = owners.get();
  T* const square = distances.get();
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t c = 0; c < columns.count; ++c) {
    T squares[kMostGroups];
    own[c] = uint8_t(measure(groups, p.y + columns[c] * p.d, p.d, squares));
    square[c] = squares[own[c]];
  }
  sort_by_group(own, columns.count, groups.count, groups.start, order, [&](int64_t c) { return columns[c]; });
  std::fill_n(groups.radius, groups.count, T(0));
  std::fill_n(groups.potential, groups.count, -kInf<T>);
  for (int64_t c = 0; c < columns.count; ++c) {
    groups.radius[own[c]] = std::max(groups.radius[own[c]], square[c]);
    groups.potential[own[c]] = std::max(groups.potential[own[c]], p.potential_of(columns[c]));
  }
  for (int64_t g = 0; g < groups.count; ++g) groups.radius[g] = Pruning<T>(p.d).radius(groups.radius[g]);
}

// A block of x's rows, sorted by their nearest pivots.
template <class T>
struct Block {
  Scratch<T> squares;  // [count, groups.stride]
  Scratch<uint8_t> own;  // [count]
  Scratch<int64_t> order;  // [count]: numbers within the block
  int64_t from, count;
  double pairs = 0;  // that survive the pivots' costs

  Block(const Points<T>& p, const Groups<T>& groups, int64_t from, int64_t count, int threads)
      : squares(count * groups.stride), own(count), order(count), from(from), count(count) {
    Points<T> points = p;
    const Pruning<T> pruning(p.d);
    double all = 0;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1) reduction(+ : all)
    for (int64_t r = 0; r < count; ++r) {
      const int64_t i = from + r;
      own.get()[r] = uint8_t(measure(groups, p.x + i * p.d, p.d, squares.get() + r * groups.stride));
      points.index[i] = kNothing;
      Points<T> mine = points;
      mine.consider(i, groups.column[own.get()[r]]);
      for (int64_t g = 0; g < groups.count; ++g)
        if (may_hold(mine, groups, pruning, r, g)) all += double(groups.size(g));
    }
    pairs = all;
    int64_t start[kMostGroups + 1];
    sort_by_group(own.get(), count, groups.count, start, order.get(), [](int64_t r) { return r; });
  }

  bool may_hold(const Points<T>& p, const Groups<T>& groups, const Pruning<T>& pruning, int64_t r, int64_t g) {
    const int64_t i = from + r;
    return pruning.may_hold(squares.get()[r * groups.stride + g], groups.radius[g], groups.potential[g], p.value[i],
                            p.potential_of(p.index[i]));
  }
};

// Columns [first, last) of a group, packed from panel `panel` on.
struct Piece {
  int64_t group, first, last, panel;
};

// Solves a block's rows; returns how many candidates were looked at.
template <class Product, class T>
int64_t solve_block(const Points<T>& points, const Groups<T>& groups, const int64_t* order, Block<T>& block, int threads,
                    int64_t chunk_bytes) {
  constexpr int64_t C = kCols<T>, L = simd<T>::lanes;
  using Solver = Candidates<T, Product>;
  const int64_t words = Product::words(points.d), m = groups.start[groups.count];
  const int64_t most = (m + C - 1) / C + groups.count;  // panels
  const int64_t chunk_panels = std::clamp<int64_t>(chunk_bytes / (C * words * int64_t(sizeof(T))), 1, most);
  const int64_t thread_size = (kGroupTask + L) * (words + Solver::kRowFacts);
  Scratch<T> scratch(chunk_panels * (C * words + Solver::kPanelFacts) + threads * thread_size);
  Solver shared{};
  static_cast<Points<T>&>(shared) = points;
  shared.columns = {order, m};
  shared.set_bound();
  T* const rows = shared.place_panels(scratch.get(), chunk_panels);
  const Pruning<T> pruning(points.d);

  int64_t considered = 0;
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(+ : considered)
  {
    Solver mine = shared;
    mine.place_rows(rows + thread_number() * thread_size, kGroupTask + L);
    for (int64_t group = 0, column = 0; column < m;) {  // every thread cuts the same pieces
      Piece pieces[kMostGroups + 1];
      int64_t count = 0, panel = 0;
      while (panel < chunk_panels && column < m) {
        while (column == groups.start[group + 1]) ++group;
        const int64_t last = std::min(groups.start[group + 1], column + (chunk_panels - panel) * C);
        pieces[count++] = {group, column, last, panel};
        panel += (last - column + C - 1) / C;
        column = last;
      }
      for (int64_t k = 0; k < count; ++k) {
        const Piece& piece = pieces[k];
#pragma omp for schedule(static) nowait
        for (int64_t first = piece.first; first < piece.last; first += C)
          mine.pack_panel(piece.panel + (first - piece.first) / C, first, std::min(C, piece.last - first),
                          groups.pivot[piece.group]);
      }
#pragma omp barrier
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < block.count; task += kGroupTask) {
        const int64_t end = std::min(task + kGroupTask, block.count);
        for (const bool home : {true, false})  // a row's own group first: it lowers the cost that the others must beat
          for (int64_t k = 0; k < count; ++k) {
            const Piece& piece = pieces[k];
            int64_t kept[kGroupTask], rows_kept = 0;
            for (int64_t at = task; at < end; ++at) {
              const int64_t r = block.order.get()[at];
              if ((block.own.get()[r] == piece.group) == home && block.may_hold(mine, groups, pruning, r, piece.group))
                kept[rows_kept++] = block.from + r;
            }
            if (!rows_kept) continue;
            const auto row_at = [&kept](int64_t r) { return kept[r]; };
            mine.pack_rows(row_at, rows_kept, groups.pivot[piece.group]);
            mine.scan(row_at, rows_kept, piece.panel, piece.first, piece.last);
          }
      }
    }
    considered += mine.considered;
  }
  return considered;
}

}  // namespace otk::OTK_ISA
