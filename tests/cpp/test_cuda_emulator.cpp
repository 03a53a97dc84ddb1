// The emulator itself (cuda_on_host): a small pipeline of bulk copies and warpgroup products passes; the same with one
// mistake in it is refused, in both thread orders and for the reason that is meant.
#include <cmath>
#include <stdexcept>
#include <string>

#include "check.h"
#include "common/hopper.h"

namespace {

using namespace otk;

enum class Mistake {
  none,
  // barriers
  not_initialised,
  initialised_twice,
  not_published,
  published_too_late,
  no_arrival,
  one_arrival_too_many,
  overwritten_barrier,
  // bytes
  expects_too_few,
  expects_too_many,
  expects_nothing,
  expects_more_than_fits,
  expects_at_the_end,
  expects_in_two_parts,  // no mistake
  expects_after_the_copy,  // no mistake
  counts_on_another_barrier,
  copy_is_unaligned,
  copy_overruns,
  // waits
  no_wait_for_full,
  other_thread_waits,
  wrong_parity_of_full,
  same_parity_of_full,
  no_wait_for_empty,
  wrong_parity_of_empty,
  last_copy_is_not_awaited,
  // products
  releases_too_early,
  no_begin,
  one_begin_for_all,
  no_commit,
  no_wait_for_products,
  waits_for_too_few,
  reads_too_early,  // not an error but poison
  writes_too_early,
  products_differ,
  no_swizzle,
  base_offset,
  // the asynchronous proxy
  stores_before_copy,
  stores_before_product,
  stores_with_fence,  // no mistake
};

constexpr int kRounds = 5, kStages = 2, kThreads = 256, kABytes = 64 * 128, kBBytes = 128 * 128;

struct Shared {
  unsigned char b[kStages][kBBytes];
  unsigned char a[kABytes];
  BytesBarrier full[kStages], empty[kStages], a_full;
};

// Warpgroup 1's first thread: A once, then B of every round.
void produce(Mistake mistake, const unsigned char* a, const unsigned char* b, Shared& s) {
  const auto is = [mistake](Mistake m) { return mistake == m; };
  arrive_expecting(&s.a_full, kABytes);
  copy_bulk(s.a, a, kABytes, &s.a_full);
  for (int round = 0; round < kRounds + is(Mistake::last_copy_is_not_awaited); ++round) {
    const int stage = round % kStages, parity = round / kStages % 2;
    if (!is(Mistake::no_wait_for_empty)) wait_barrier(&s.empty[stage], parity ^ 1 ^ is(Mistake::wrong_parity_of_empty));
    if (is(Mistake::stores_before_copy)) s.b[stage][5] = 1;
    unsigned char* const to = s.b[stage] + 8 * is(Mistake::copy_is_unaligned) + 1024 * 1024 * is(Mistake::copy_overruns);
    BytesBarrier* const full = &s.full[stage];
    if (is(Mistake::expects_after_the_copy)) {
      copy_bulk(to, b + round % kRounds * kBBytes, kBBytes, full);
      arrive_expecting(full, kBBytes);
      continue;
    }
    if (is(Mistake::expects_nothing))
      arrive(full);
    else if (is(Mistake::expects_more_than_fits))
      arrive_expecting(full, 1 << 20);
    else
      arrive_expecting(full, kBBytes - 16 * is(Mistake::expects_too_few) + 16 * is(Mistake::expects_too_many));
    if (is(Mistake::expects_in_two_parts)) {
      copy_bulk(to, b + round * kBBytes, 1024, full);
      copy_bulk(to + 1024, b + round * kBBytes + 1024, kBBytes - 1024, full);
      continue;
    }
    copy_bulk(to, b + round % kRounds * kBBytes, kBBytes, is(Mistake::counts_on_another_barrier) ? &s.a_full : full);
  }
  if (is(Mistake::expects_at_the_end)) arrive_expecting(&s.a_full, 16);
}

// Warpgroup 0: the sum of all rounds' products.
void consume(Mistake mistake, Shared& s, float* out) {
  const auto is = [mistake](Mistake m) { return mistake == m; };
  const bool first = threadIdx.x == 0;
  float acc[64] = {};
  if (!is(Mistake::other_thread_waits) || first) wait_barrier(&s.a_full, 0);
  for (int round = 0; round < kRounds; ++round) {
    const int stage = round % kStages, parity = round / kStages % 2;
    const int flip = is(Mistake::wrong_parity_of_full) || (is(Mistake::same_parity_of_full) && parity);
    if (!is(Mistake::no_wait_for_full) && (!is(Mistake::other_thread_waits) || first))
      wait_barrier(&s.full[stage], parity ^ flip);
    if (is(Mistake::stores_before_product) || is(Mistake::stores_with_fence)) {
      if (first) s.a[7] = 0x41;  // 16 in place of 1
      if (is(Mistake::stores_with_fence)) fence_async_proxy();
      __syncwarp();
    }
    if (is(Mistake::releases_too_early) && threadIdx.x % 32 == 0) arrive(&s.empty[stage]);
    if (!is(Mistake::no_begin) && (!is(Mistake::one_begin_for_all) || round == 0)) begin_products();
    uint64_t a = matrix_descriptor(shared_address(s.a)), b = matrix_descriptor(shared_address(s.b[stage]));
    if (is(Mistake::no_swizzle)) a &= ~(uint64_t(3) << 62);
    if (is(Mistake::base_offset)) b |= uint64_t(1) << 49;
    if (is(Mistake::products_differ) && threadIdx.x == 77) b += 2;
    warpgroup_multiply<Bf16>(acc, a, b, true);
    if (!is(Mistake::no_commit)) commit_products();
    if (is(Mistake::writes_too_early)) acc[3] = 1;
    if (is(Mistake::reads_too_early)) out[threadIdx.x] = acc[0];
    if (is(Mistake::waits_for_too_few)) {
      wait_products<1>(acc);
    } else if (!is(Mistake::no_wait_for_products)) {
      wait_products<0>(acc);
    }
    const bool arrives = threadIdx.x % 32 == 0 && !(is(Mistake::no_arrival) && first);
    if (arrives && !is(Mistake::releases_too_early)) arrive(&s.empty[stage]);
    if (is(Mistake::one_arrival_too_many) && first) arrive(&s.full[stage]);
    if (is(Mistake::overwritten_barrier) && first) s.empty[stage] += 1;
  }
  if (is(Mistake::reads_too_early)) return;
  for (int k = 0; k < 64; ++k) out[64 * threadIdx.x + k] = acc[k];
}

void pipeline(Mistake mistake, const unsigned char* a, const unsigned char* b, float* out) {
  Shared& s = *shared_memory<Shared>();
  if (threadIdx.x == 0 && mistake != Mistake::not_initialised) {
    for (int k = 0; k < kStages; ++k) {
      init_barrier(&s.full[k], 1);
      init_barrier(&s.empty[k], 4);
    }
    init_barrier(&s.a_full, 1);
    if (mistake == Mistake::initialised_twice) init_barrier(&s.a_full, 1);
    if (mistake != Mistake::not_published && mistake != Mistake::published_too_late) publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x == 0 && mistake == Mistake::published_too_late) publish_barriers();
  if (threadIdx.x < 128)
    consume(mistake, s, out);
  else if (threadIdx.x == 128)
    produce(mistake, a, b, s);
}

// What the launch throws; empty: nothing.
std::string thrown_by(const Launch& l, const std::function<void()>& thread) {
  try {
    host_cuda::run(l, thread);
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return {};
}

// A holds ones, round r of B holds r + 1.
std::string run(Mistake mistake, std::vector<float>& out) {
  const auto fill = [](unsigned char* to, size_t bytes, uint16_t word) {
    for (size_t k = 0; k < bytes; k += 2) std::memcpy(to + k, &word, 2);
  };
  constexpr uint16_t kWords[kRounds] = {0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0};
  alignas(16) static unsigned char a[kABytes], b[kRounds * kBBytes];
  fill(a, kABytes, kWords[0]);
  for (int round = 0; round < kRounds; ++round) fill(b + round * kBBytes, kBBytes, kWords[round]);
  out.assign(128 * 64, -7.0f);
  return thrown_by({"pipeline", 1, kThreads, sizeof(Shared), nullptr}, [&] { pipeline(mistake, a, b, out.data()); });
}

// The launch throws a text with `reason` in it, in the backward order with `other`; empty: it does what it should.
void expect(Mistake mistake, const std::string& reason, const std::string& other) {
  for (const bool backward : {false, true}) {
    host_cuda::backward = backward;
    std::vector<float> out;
    const std::string why = run(mistake, out), &meant = backward ? other : reason;
    const bool as_meant = meant.empty() ? why.empty() : why.find(meant) != std::string::npos;
    if (!as_meant)
      std::printf("mistake %d, order %d: '%s', not '%s'\n", int(mistake), backward, why.c_str(), meant.c_str());
    CHECK(as_meant);
    if (!reason.empty()) continue;
    if (mistake == Mistake::reads_too_early) {
      CHECK(std::isnan(out[0]) && std::isnan(out[127]));
      continue;
    }
    for (size_t k = 0; k < out.size(); ++k) {
      const bool changed = mistake == Mistake::stores_with_fence && k / 64 % 32 < 4 && k / 64 < 4 && k % 4 < 2;
      CHECK(out[k] == (changed ? 465 : 240));  // 16 (1 + 2 + 3 + 4 + 5), and 15 times as much more
    }
  }
  host_cuda::backward = false;
}

void expect(Mistake mistake, const std::string& reason) { expect(mistake, reason, reason); }

constexpr char kOvertaken[] = "after the next one has ended", kNotWaited[] = "has not waited for the bulk copy",
               kStillRead[] = "products may still read";

void test_barriers() {
  expect(Mistake::not_initialised, "before it is initialised");
  expect(Mistake::initialised_twice, "initialised twice");
  expect(Mistake::not_published, "not published");
  expect(Mistake::published_too_late, "not published");
  expect(Mistake::no_arrival, "lacks 1 arrivals and 0 bytes");
  expect(Mistake::one_arrival_too_many, "more arrivals than it expects", kOvertaken);
  expect(Mistake::overwritten_barrier, "overwritten");
}

void test_bytes() {
  expect(Mistake::expects_too_few, "more bytes arrive");
  expect(Mistake::expects_too_many, "lacks 0 arrivals and 16 bytes");
  expect(Mistake::expects_nothing, kStillRead);
  expect(Mistake::expects_more_than_fits, "2^20 - 1 bytes");
  expect(Mistake::expects_at_the_end, "while a barrier expects bytes");
  expect(Mistake::expects_in_two_parts, "");
  expect(Mistake::expects_after_the_copy, "");
  expect(Mistake::counts_on_another_barrier, "in a later phase", "lacks 0 arrivals and 16384 bytes");
  expect(Mistake::copy_is_unaligned, "not aligned");
  expect(Mistake::copy_overruns, "leaves shared memory");
}

void test_waits() {
  expect(Mistake::no_wait_for_full, kNotWaited);
  expect(Mistake::other_thread_waits, kStillRead, kNotWaited);
  expect(Mistake::wrong_parity_of_full, kNotWaited, kOvertaken);
  expect(Mistake::same_parity_of_full, kNotWaited, kOvertaken);
  expect(Mistake::no_wait_for_empty, "more arrivals than it expects", "overwrites another");
  expect(Mistake::wrong_parity_of_empty, "deadlock");
  expect(Mistake::last_copy_is_not_awaited, "without having waited for its bulk copies");
}

void test_products() {
  expect(Mistake::releases_too_early, kStillRead);
  expect(Mistake::no_begin, "no begin_products");
  expect(Mistake::one_begin_for_all, "no begin_products");
  expect(Mistake::no_commit, "stay under way");
  expect(Mistake::no_wait_for_products, kStillRead);
  expect(Mistake::waits_for_too_few, "stay under way");
  expect(Mistake::reads_too_early, "");
  expect(Mistake::writes_too_early, "accumulators are written");
  expect(Mistake::products_differ, "issue different products");
  expect(Mistake::no_swizzle, "not a 128-byte swizzle");
  expect(Mistake::base_offset, "base offset");
}

void test_async_proxy() {
  expect(Mistake::stores_before_copy, "without fence.proxy.async");
  expect(Mistake::stores_before_product, "without fence.proxy.async");
  expect(Mistake::stores_with_fence, "");
}

// ---- what the pipeline does not do ----------------------------------------------------------------------------------

void expect_thrown(const std::string& reason, int threads, const std::function<void()>& thread) {
  for (const bool backward : {false, true}) {
    host_cuda::backward = backward;
    const std::string why = thrown_by({"kernel", 1, threads, sizeof(Shared), nullptr}, thread);
    CHECK(reason.empty() ? why.empty() : why.find(reason) != std::string::npos);
  }
  host_cuda::backward = false;
}

template <int kMore, int kFewer>
void share_registers() {
  if (threadIdx.x < 256)
    more_registers<kMore>();
  else
    fewer_registers<kFewer>();
}

void test_registers() {
  expect_thrown("", 384, share_registers<240, 24>);
  expect_thrown("deadlock", 384, share_registers<248, 24>);
  expect_thrown("deadlock", 384, share_registers<240, 32>);
  expect_thrown("multiple of 8", 384, share_registers<236, 24>);
  expect_thrown("multiple of 8", 384, share_registers<240, 16>);
  expect_thrown("wrong way", 384, share_registers<160, 24>);
  expect_thrown("wrong way", 384, share_registers<168, 176>);
  expect_thrown("every warp of a warpgroup", 128, [] {
    if (threadIdx.x < 32) fewer_registers<40>();
  });
}

// Two phases end before a thread asks for the first: their parities tell it the wrong thing.
void test_lost_phase() {
  expect_thrown(kOvertaken, 64, [] {
    BytesBarrier* const barrier = shared_memory<Shared>()->full;
    if (threadIdx.x == 0) init_barrier(barrier, 1), publish_barriers();
    __syncthreads();
    if (threadIdx.x == 0) arrive(barrier), arrive(barrier);
    for (int k = 0; threadIdx.x == 32 && k < 9; ++k) host_cuda::yield();
    if (threadIdx.x == 32) wait_barrier(barrier, 0);
  });
}

// One thread waits for a copy that all read with ldmatrix: with a barrier of the block between, and without.
template <bool kBarrier>
void share_copy(const unsigned char* from) {
  Shared& s = *shared_memory<Shared>();
  if (threadIdx.x == 0) {
    init_barrier(s.full, 1);
    publish_barriers();
    arrive_expecting(s.full, 512);
    copy_bulk(s.a, from, 512, s.full);
    wait_barrier(s.full, 0);
  }
  if (kBarrier) __syncthreads();
  uint32_t matrix[4];
  load_matrices(matrix, s.a + 16 * threadIdx.x);
}

void test_ldmatrix_after_copy() {
  alignas(16) static const unsigned char from[512] = {};
  expect_thrown("", 32, [] { share_copy<true>(from); });
  expect_thrown(kNotWaited, 32, [] { share_copy<false>(from); });
}

// Two accumulators, of which a wait for the second leaves the first to the compiler: it may read it before the wait.
template <bool kWaitForBoth>
void two_accumulators() {
  float first[64] = {}, second[64] = {};
  for (int round = 0; round < 2; ++round) {
    begin_products();
    for (float (*acc)[64] : {&first, &second}) {
      warpgroup_multiply<Tf32>(*acc, matrix_descriptor(0), matrix_descriptor(kBBytes), false);
      commit_products();
    }
    if (kWaitForBoth) wait_products<1>(first);
    wait_products<0>(second);
  }
}

void test_unfinished_products() {
  expect_thrown("ends while its products are under way", 128, [] {
    float acc[64] = {};
    begin_products();
    warpgroup_multiply<Tf32>(acc, matrix_descriptor(0), matrix_descriptor(kBBytes), false);
    commit_products();
  });
  expect_thrown("", 128, two_accumulators<true>);
  expect_thrown("used again without wait_products", 128, two_accumulators<false>);
}

}  // namespace

void test_cuda_emulator() {
  expect(Mistake::none, "");
  test_barriers();
  test_bytes();
  test_waits();
  test_products();
  test_async_proxy();
  test_registers();
  test_lost_phase();
  test_ldmatrix_after_copy();
  test_unfinished_products();
}
