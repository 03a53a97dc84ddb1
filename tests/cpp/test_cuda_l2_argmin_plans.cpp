// What l2_argmin's CUDA kernels do where, and their bound, as plain numbers (l2_argmin/schedule.h).
#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "check.h"
#include "l2_argmin/schedule.h"

namespace {

using namespace otk;

// The items of one stage with `count` rows to solve in each entry: every (row block, column block) of every entry once,
// the first block of an item twice in the exact mode, and no list for two writers or outside the workspace.
void walk_stage(const l2::Schedule& s, int64_t count) {
  const int64_t blocks = s.rows_of(count) / l2::kBlock;
  CHECK(s.rows_of(count) >= count && s.rows_of(count) - count < s.item_blocks * l2::kBlock);
  CHECK(s.columns() >= s.m && s.columns() - s.m < l2::kBlock);
  std::vector<int> seen(size_t(s.batch * blocks * s.column_blocks));
  std::set<int64_t> lists;
  for (int64_t k = 0; k < s.items(); ++k) {
    const l2::Item item = s.item(k / s.entry_items, k % s.entry_items, count);
    if (item.blocks == 0) continue;
    CHECK(item.blocks >= 1 && item.row_block + s.item_blocks <= blocks && item.part < s.parts_of(count));
    for (int writer = 0; writer < s.writers; ++writer) {
      const int64_t first = s.list(item.entry, item.part, writer, item.row_block * l2::kBlock, count);
      CHECK(lists.insert(first).second);
      CHECK(first / s.entry_lists == item.entry);
      CHECK((first + s.item_blocks * l2::kBlock - 1) / s.entry_lists == item.entry);
    }
    const int64_t visits = s.visits(item);
    CHECK(visits == item.blocks + s.exact);
    if (s.exact) CHECK(s.visited(item, 0) == s.visited(item, visits - 1));
    for (int64_t v = s.exact; v < visits; ++v)
      for (int r = 0; r < s.item_blocks; ++r)
        ++seen[size_t((item.entry * blocks + item.row_block + r) * s.column_blocks + s.visited(item, v))];
  }
  for (const int times : seen) CHECK(times == 1);
  CHECK(int64_t(lists.size()) * s.item_blocks * l2::kBlock == s.batch * s.lists_of(count) * s.rows_of(count));
}

void walk(int64_t batch, int64_t n, int64_t m, int64_t d, Precision precision, Device device) {
  const l2::Schedule s = l2::plan_products(batch, n, m, d, precision, device);
  CHECK(s.row_blocks % s.item_blocks == 0);
  walk_stage(s, n);
  if (s.exact) {
    const l2::Schedule split = l2::plan_split(s);
    for (const int64_t count : {int64_t(1), n / 2 + 1, n}) walk_stage(split, count);
    CHECK(split.item(0, 0, 0).blocks == 0);
    // Few rows still fill the machine, as far as there are columns.
    CHECK(batch * split.parts_of(1) >= std::min<int64_t>(device.multiprocessors, batch * s.column_blocks));
  }
  int steps = 0;
  for (int c = 0; c < s.chunks; ++c) {
    steps += s.steps_of(c);
    CHECK(s.steps_of(c) >= 1 && s.steps_of(c) <= 4);
  }
  CHECK(steps * 32 >= d * (precision == Precision::tf32 ? 4 : 2));
}

void regions_are_apart(const l2::Schedule& s) {
  const l2::Regions r = l2::regions(s);
  const int64_t block = s.packed_block_bytes();
  std::vector<std::pair<int64_t, int64_t>> taken;  // start, bytes
  for (int stage = 0; stage <= int(s.exact); ++stage) {
    taken.push_back({r.x[stage], s.batch * s.row_blocks * block});
    taken.push_back({r.y[stage], s.batch * s.column_blocks * block});
    taken.push_back({r.row_facts[stage], s.batch * s.rows() * 16});
    taken.push_back({r.block_facts[stage], s.batch * s.column_blocks * 16});
    taken.push_back({r.left_count[stage], s.batch * 4});
    taken.push_back({r.left[stage], s.batch * s.n * 4});
  }
  taken.push_back({r.half, s.batch * s.columns() * 4});
  taken.push_back({r.lists, s.batch * s.entry_lists * s.capacity * 8});
  taken.push_back({r.counts, s.exact ? s.batch * s.entry_lists * 4 : 0});
  taken.push_back({r.keys, s.batch * s.n * 8});
  taken.push_back({r.tickets, s.batch * s.n * 4});
  std::sort(taken.begin(), taken.end());
  taken.push_back({r.bytes, 0});
  for (size_t k = 0; k + 1 < taken.size(); ++k)
    CHECK(taken[k].first % 256 == 0 && taken[k].second >= 0 && taken[k].first + taken[k].second <= taken[k + 1].first);
}

void test_plans() {
  const Device devices[] = {{90, 132}, {80, 108}, {90, 1}, {120, 170}};
  for (const Device& device : devices)
    for (const Precision precision : {Precision::exact, Precision::tf32, Precision::bf16}) {
      for (const int64_t n : {1, 128, 129, 700})
        for (const int64_t m : {1, 127, 1000, 40000}) walk(2, n, m, 100, precision, device);
      walk(3, 300, 300, 9, precision, device);
      walk(1, 257, 129, 2000, precision, device);
      for (const int64_t n : {int64_t(5), int64_t(70000), int64_t(1) << 30})
        regions_are_apart(l2::plan_products(3, n, 70001, 384, precision, device));
    }
  const l2::Schedule huge = l2::plan_products(1, int64_t(1) << 30, int64_t(1) << 30, 200, Precision::exact, {90, 132});
  const l2::Item last = huge.item(0, huge.items() - 1, huge.n);
  CHECK((last.row_block + 2) * l2::kBlock == int64_t(1) << 30);
  CHECK(last.first + last.blocks == huge.column_blocks);
  CHECK(l2::regions(huge).half > int64_t(1) << 39);
  CHECK(l2::plan_direct(1, 64, 64, 128, 132).rows == 1 && l2::plan_direct(1, 64, 64, 128, 132).parts == 1);
  CHECK(l2::plan_direct(1, 1024, 1024, 128, 132).parts == 1);
  CHECK(l2::plan_direct(1, 3, 1 << 20, 128, 132).parts > 132);
}

// The bound covers the product's error whatever the coordinates: the sum of what l2_argmin.h lists.
void test_bound() {
  for (const int64_t d : {9, 64, 1000, 8192}) {
    const l2::Bound e = l2::bound(d);
    const double u = 0x1p-24;
    CHECK(4 * double(e.unit) >= u * (4.04 * double(d + 16) + 4.1));  // times |x'| |y'|: accumulation, s and comparisons
    CHECK(e.unit >= u * (2 + (double(d) + 3) / 2 + 2) && e.x_square >= 2 * u);
    CHECK(e.absolute >= float(d) * 0x1p-125f && e.vanished >= float(d) * 0x1p-126f && e.grow > 1 + (double(d) + 16) * u);
  }
}

}  // namespace

void test_cuda_l2_argmin_plans() {
  test_plans();
  test_bound();
}
