// cuda_steps.h - the launches that l2_argmin is made of on a GPU, and what they hand to each other (inside
// csrc/l2_argmin).
#pragma once
#include <string>

#include "l2_argmin/cuda_distance.h"
#include "l2_argmin/cuda_result.h"
#include "l2_argmin/schedule.h"

namespace otk::l2 {

// Rows that a stage still has to solve; list null: all rows.
struct Undecided {
  int* count = nullptr;  // [batch]
  int* list = nullptr;   // [batch, n]

  __host__ __device__ int64_t of(int64_t entry, int64_t n) const { return list ? count[entry] : n; }
};

// Everything a kernel of the product path needs, passed by value. Of pairs the second is the second stage's.
struct Products {
  L2Argmin<float> p;
  Schedule schedule;
  Bound bound;
  bool vector;  // rows of x and y can be read four floats at a time
  unsigned char *x[2], *y[2];
  RowFacts* row_facts[2];
  BlockFacts* block_facts[2];
  float* half;
  Candidate* lists;
  int* counts;
  Undecided rows;    // to be solved
  Undecided next;    // for those that give up
  Undecided direct;  // for those that must be solved by differences
  Meeting meeting;   // of the latter
};

// Regions of a workspace.
struct Places {
  unsigned char* base;

  template <class T>
  T* of(int64_t offset) const {
    return reinterpret_cast<T*>(base + offset);
  }
};

// The first stage, or the second one of the same workspace.
inline Products products_at(const L2Argmin<float>& p, const Schedule& first, bool split, void* workspace) {
  const Regions r = regions(first);
  const Places at{static_cast<unsigned char*>(workspace)};
  const auto left = [&](int stage) { return Undecided{at.of<int>(r.left_count[stage]), at.of<int>(r.left[stage])}; };
  Products w{};
  w.p = p;
  w.schedule = split ? plan_split(first) : first;
  w.bound = bound(first.d);
  w.vector = aligned_rows(p.x, p.d, p.x_stride) && aligned_rows(p.y, p.d, p.y_stride);
  for (int stage = 0; stage < 2; ++stage) {
    w.x[stage] = at.of<unsigned char>(r.x[stage]), w.y[stage] = at.of<unsigned char>(r.y[stage]);
    w.row_facts[stage] = at.of<RowFacts>(r.row_facts[stage]);
    w.block_facts[stage] = at.of<BlockFacts>(r.block_facts[stage]);
  }
  w.half = at.of<float>(r.half);
  w.lists = at.of<Candidate>(r.lists);
  w.counts = at.of<int>(r.counts);
  if (split) w.rows = left(0);
  w.next = left(split);
  w.direct = left(first.exact);
  w.meeting = {at.of<Key>(r.keys), at.of<int>(r.tickets)};
  return w;
}

inline What describe(const char* step, const L2Argmin<float>& problem) {
  return {step, &problem, [](const char* step, const void* problem) {
            const auto& p = *static_cast<const L2Argmin<float>*>(problem);
            std::string text = "l2_argmin (cuda, ";
            text.append(step);
            const auto shape = [&](const char* before, int64_t rows) {
              text.append(before).append(std::to_string(p.batch)).append(", ").append(std::to_string(rows));
              text.append(", ").append(std::to_string(p.d)).append("]");
            };
            shape(") x [", p.n);
            shape(", y [", p.m);
            return text;
          }};
}

void launch_reset(const L2Argmin<float>& p, Meeting meeting, void* stream);
void launch_direct(const L2Argmin<float>& p, const Direct& plan, Meeting meeting, void* stream);
void launch_low(const L2Argmin<float>& p, const Direct& plan, Meeting meeting, void* stream);
void launch_undecided(const L2Argmin<float>& p, const Undecided& rows, Meeting meeting, int multiprocessors, void* stream);

void launch_pack(const Products& w, Precision precision, void* stream);
void launch_products(const Products& w, Precision precision, int multiprocessors, void* stream);
void launch_products_hopper(const Products& w, Precision precision, int multiprocessors, void* stream);
void launch_settle(const Products& w, void* stream);

// The two ways whole, whatever the size; l2_argmin_cuda chooses between them.
int64_t workspace_by_differences(const L2Argmin<float>& p);
void by_differences(const L2Argmin<float>& p, void* workspace, void* stream);
//
// By products in parts, of the batch or of one entry's rows, whose workspace takes no more than the points, their rows
// padded to whole chunks, and `free` bytes.
inline constexpr int64_t kFree = 256 << 20;
int64_t workspace_by_products(const L2Argmin<float>& p, Precision precision, int64_t free = kFree);
void by_products(const L2Argmin<float>& p, Precision precision, void* workspace, void* stream, int64_t free = kFree);

}  // namespace otk::l2
