// cuda_steps.h - the launches that l2_argmin is made of on a GPU, and what they hand to each other (inside
// csrc/l2_argmin).
#pragma once
#include <string>

#include "l2_argmin/cuda_result.h"
#include "l2_argmin/schedule.h"

namespace otk::l2 {

// Rows that direct still has to solve; list null: all rows.
struct Undecided {
  int* count = nullptr;  // [batch]
  int* list = nullptr;   // [batch, n]
};

// Everything a kernel of the product path needs, passed by value.
struct Products {
  L2Argmin<float> p;
  Schedule schedule;
  Bound bound;
  unsigned char* x;
  unsigned char* y;
  float* x_error;
  float* half;
  float* spread;
  Candidate* lists;
  int* counts;
  Undecided undecided;
  Meeting meeting;
};

inline Products products_at(const L2Argmin<float>& p, const Schedule& s, void* workspace) {
  const Regions r = regions(s);
  unsigned char* const base = static_cast<unsigned char*>(workspace);
  const auto ints = [base](int64_t at) { return reinterpret_cast<int*>(base + at); };
  const auto floats = [base](int64_t at) { return reinterpret_cast<float*>(base + at); };
  return {p,
          s,
          bound(s.d),
          base + r.x,
          base + r.y,
          floats(r.x_error),
          floats(r.half),
          floats(r.spread),
          reinterpret_cast<Candidate*>(base + r.lists),
          ints(r.counts),
          {ints(r.undecided_count), ints(r.undecided)},
          {reinterpret_cast<Key*>(base + r.keys), ints(r.tickets)}};
}

inline std::string describe(const char* step, const L2Argmin<float>& p) {
  std::string text = "l2_argmin (cuda, ";
  text.append(step);
  const auto shape = [&](const char* before, int64_t rows) {
    text.append(before).append(std::to_string(p.batch)).append(", ").append(std::to_string(rows)).append(", ");
    text.append(std::to_string(p.d)).append("]");
  };
  shape(") x [", p.n);
  shape(", y [", p.m);
  return text;
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
int64_t workspace_by_products(const L2Argmin<float>& p, Precision precision);
void by_products(const L2Argmin<float>& p, Precision precision, void* workspace, void* stream);

}  // namespace otk::l2
