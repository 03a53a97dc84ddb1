// device_hopper.h - csrc/common/hopper.h on the host.
//
// As late as the rules allow: warpgroup products run when their group is waited for, bulk copies land when their barrier
// is waited for or, in the backward order, at once. Until then accumulators and destinations are poison. What async.h
// remembers decides whether a thread may copy, read or multiply; if not, the launch gives up.
#pragma once
#include <string>

#include "cuda_on_host/device_mma.h"

namespace host_cuda {

constexpr uint64_t kToken = 0x5a5ac3c35a5ac3c3;  // in the 8 bytes of every barrier
constexpr int kMostCount = (1 << 20) - 1;        // arrivals, and bytes either way, that a barrier can count

// ---- the asynchronous proxy's shared memory -------------------------------------------------------------------------

inline AsyncState& async_state() {
  Block& b = *current->block;
  if (b.async.pieces.empty()) {
    b.async.pieces.resize((b.shared_bytes + 15) / 16);
    for (Piece& piece : b.async.pieces) piece.reads.resize(b.warps.size());
    b.async.view.assign(b.async.pieces.size() * 16, 0xff);
    b.async.issued.resize((b.warps.size() + 3) / 4);
  }
  return b.async;
}

// Gives up where ordinary stores have changed what the asynchronous proxy is about to use.
inline void expect_published(const unsigned char* at, size_t bytes) {
  const Block& b = *current->block;
  if (std::memcmp(at, async_state().view.data() + (at - b.shared), bytes) != 0)
    give_up("ordinary stores meet an asynchronous access without fence.proxy.async");
}

inline void write_async(unsigned char* to, const void* from, size_t bytes) {
  std::memcpy(to, from, bytes);
  std::memcpy(async_state().view.data() + (to - current->block->shared), from, bytes);
}

// ---- barriers -------------------------------------------------------------------------------------------------------

inline BytesBarrierState& state_of(const uint64_t* barrier) {
  auto& barriers = current->block->async.barriers;
  const auto found = barriers.find(barrier);
  if (found == barriers.end()) give_up("a barrier is used before it is initialised");
  if (*barrier != kToken) give_up("a barrier's bytes were overwritten");
  if (current->knows.of(found->second.event) < 1)
    give_up("a thread uses a barrier that was not published to it: publish_barriers, then __syncthreads");
  return found->second;
}

// After arrivals or bytes have changed.
inline void end_phase(BytesBarrierState& s) {
  if (std::abs(s.bytes) > kMostCount) give_up("a barrier counts more than 2^20 - 1 bytes");
  if (s.pending == 0 && s.bytes < 0) give_up("more bytes arrive than a barrier's phase expects");
  if (s.pending > 0 || s.bytes > 0) return;
  ++s.phase;
  s.pending = s.expected;
  s.ended.push_back(s.arriving);
  progressed();
}

inline void arrive_at(BytesBarrierState& s, int64_t bytes) {
  if (s.pending == 0) give_up("a barrier has more arrivals than it expects");
  s.bytes += bytes;
  --s.pending;
  s.arriving.learn(current->knows);
  end_phase(s);
}

inline void land(const BulkCopy& copy, BytesBarrierState& s) {
  if (copy.phase != s.phase) give_up("a bulk copy's bytes arrive in a later phase than the one in which it was issued");
  write_async(copy.to, copy.from, copy.bytes);
  s.bytes -= int64_t(copy.bytes);
  end_phase(s);
}

inline void land_all(BytesBarrierState& s) {
  std::vector<BulkCopy> landing;
  landing.swap(s.in_flight);
  for (const BulkCopy& copy : landing) land(copy, s);
}

// Gives up unless this thread knows that all earlier asynchronous uses of the destination have ended.
inline void claim(const unsigned char* to, size_t bytes, const BytesBarrierState& s) {
  const Block& b = *current->block;
  expect_published(to, bytes);
  for (size_t k = 0; k < bytes / 16; ++k) {
    Piece& piece = async_state().pieces[size_t(to - b.shared) / 16 + k];
    if (piece.barrier >= 0 && current->knows.of(piece.barrier) < 2 + piece.phase)
      give_up("a bulk copy overwrites another that may be under way");
    for (size_t w = 0; w < b.warps.size(); ++w)
      if (piece.reads[w] > current->knows.of(b.warps[w].event))
        give_up("a bulk copy overwrites shared memory that products may still read");
    piece.barrier = s.event;
    piece.phase = s.phase;
  }
}

// ---- products -------------------------------------------------------------------------------------------------------

// The two places of 16 bytes that hold 32 bytes of a row of the matrix that the descriptor names.
inline std::array<unsigned char*, 2> row_at(uint64_t descriptor, unsigned row) {
  const Block& b = *current->block;
  const uint32_t start = uint32_t(descriptor & 0x3fff) << 4, stride = uint32_t(descriptor >> 32 & 0x3fff) << 4;
  std::array<unsigned char*, 2> places;
  for (uint32_t piece = 0; piece < 2; ++piece) {
    uint32_t at = start + row / 8 * stride + row % 8 * 128 + 16 * piece;
    at ^= (at >> 7 & 7) << 4;
    if (at + 16 > b.shared_bytes) give_up("wgmma: a matrix leaves shared memory");
    places[piece] = b.shared + at;
  }
  return places;
}

template <class Element>
void read_row(uint64_t descriptor, unsigned row, float* out) {
  unsigned char bytes[32];
  const auto places = row_at(descriptor, row);
  for (unsigned piece = 0; piece < 2; ++piece) {
    expect_published(places[piece], 16);
    std::memcpy(bytes + 16 * piece, places[piece], 16);
  }
  factors<Element>(bytes, out);
}

// This warp will read the row until its group `group` of products has finished.
inline void claim_row(uint64_t descriptor, unsigned row, int group) {
  const Block& b = *current->block;
  for (const unsigned char* place : row_at(descriptor, row)) {
    expect_landed(place);
    int& last = async_state().pieces[size_t(place - b.shared) / 16].reads[current->index / 32];
    last = std::max(last, group);
  }
}

// Rows g and g + 8 of this warp's 16 rows of A with all 128 rows of B.
template <class Element>
void multiply_rows(const Product& p, float* sums) {
  const unsigned warp = current->index / 32 % 4, g = lane() / 4, q = lane() % 4;
  float top[16], bottom[16], column[16];
  read_row<Element>(p.a, 16 * warp + g, top);
  read_row<Element>(p.a, 16 * warp + g + 8, bottom);
  for (unsigned k = 0; k < 16; ++k)
    for (unsigned side = 0; side < 2; ++side) {
      read_row<Element>(p.b, 8 * k + 2 * q + side, column);
      float* c = sums + 4 * k + side;
      c[0] = dot<Element>(p.add ? c[0] : 0.0f, top, column);
      c[2] = dot<Element>(p.add ? c[2] : 0.0f, bottom, column);
    }
}

inline bool is_poison(const float* accumulators) {
  const unsigned char* bytes = reinterpret_cast<const unsigned char*>(accumulators);
  return std::all_of(bytes, bytes + sizeof(float) * 64, [](unsigned char byte) { return byte == 0xff; });
}

inline void issue(const Product& p) {
  if ((p.a | p.b) >> 62 != 1 || (p.a & p.b) >> 62 != 1) give_up("wgmma: not a 128-byte swizzle");
  if (((p.a | p.b) & 0x3fffc000c000c000) != 0) give_up("wgmma: a descriptor's base offset or unused bits are not zero");
  Products& products = current->products;
  auto& first = async_state().issued[current->index / 128];
  const std::array<uint64_t, 3> what{p.a, p.b, p.add};
  if (products.issued == first.size()) first.push_back(what);
  if (first[products.issued++] != what) give_up("wgmma: threads of a warpgroup issue different products");
  const auto fresh = products.accumulators.try_emplace(p.accumulators);
  Accumulators& c = fresh.first->second;
  if (fresh.second) c.fences = products.fences_at_wait;
  if (c.under_way == 0) {
    if (!c.awaited) give_up("wgmma: accumulators are used again without wait_products for them");
    if (products.fences <= c.fences) give_up("wgmma: no begin_products since the accumulators could be touched");
    std::memcpy(c.sums.data(), p.accumulators, sizeof(float) * 64);
    std::memset(p.accumulators, 0xff, sizeof(float) * 64);
  }
  ++c.under_way;
  c.awaited = false;
  for (unsigned row = 0; row < 16; ++row) claim_row(p.a, 16 * (current->index / 32 % 4) + row, products.committed + 1);
  for (unsigned row = 0; row < 128; ++row) claim_row(p.b, row, products.committed + 1);
  products.groups.back().push_back(p);
}

inline void finish_group() {
  Products& products = current->products;
  for (const Product& p : products.groups.front()) {
    Accumulators& c = products.accumulators.at(p.accumulators);
    p.multiply(p, c.sums.data());
    if (--c.under_way > 0) continue;
    if (!is_poison(p.accumulators)) give_up("wgmma: accumulators are written while products are under way");
    std::memcpy(p.accumulators, c.sums.data(), sizeof(float) * 64);
    c.fences = products.fences;
  }
  products.groups.erase(products.groups.begin());
}

// ---- registers ------------------------------------------------------------------------------------------------------

inline void change_registers(int count, bool more) {
  Block& b = *current->block;
  Warp& w = warp();
  if (count < 24 || count > 256 || count % 8) give_up("setmaxnreg: not a multiple of 8 between 24 and 256");
  if (more ? count < w.registers : count > w.registers) give_up("setmaxnreg: changes the registers the wrong way");
  wait(w.barrier);
  const int most = std::min(256, 65536 / int(blockDim.x) / 8 * 8) * int(b.warps.size());
  const auto fits = [&] {
    int sum = count - w.registers;
    for (const Warp& other : b.warps) sum += other.registers;
    return sum <= most;
  };
  while (lane() == 0 && !fits()) yield();
  if (lane() == 0 && w.registers != count) w.registers = count, progressed();
  wait(w.barrier);
}

// ---- the end: nothing asynchronous is left ---------------------------------------------------------------------------

inline void finish(const Thread& thread) {
  for (const auto& group : thread.products.groups)
    if (!group.empty()) give_up("a thread ends while its products are under way");
  for (const auto& [at, c] : thread.products.accumulators)
    if (!c.awaited) give_up("a thread ends without wait_products for some of its accumulators");
}

inline void finish(const Block& block) {
  for (const auto& [at, s] : block.async.barriers) {
    if (s.copied > s.waited || !s.in_flight.empty()) give_up("a block ends without having waited for its bulk copies");
    if (s.bytes != 0) give_up("a block ends while a barrier expects bytes");
  }
  for (size_t w = 0; w < block.warps.size(); ++w)
    if (block.warps[w].registers != block.warps[w / 4 * 4].registers)
      give_up("setmaxnreg: not executed by every warp of a warpgroup");
}

}  // namespace host_cuda

namespace otk {

inline void init_barrier(uint64_t* barrier, int arrivals) {
  const host_cuda::Block& b = *host_cuda::current->block;
  const unsigned char* const at = reinterpret_cast<const unsigned char*>(barrier);
  if (at < b.shared || at + 8 > b.shared + b.shared_bytes || (at - b.shared) % 8)
    host_cuda::give_up("a barrier is not 8 aligned bytes of shared memory");
  if (arrivals < 1 || arrivals > host_cuda::kMostCount) host_cuda::give_up("a barrier cannot count so many arrivals");
  host_cuda::BytesBarrierState fresh;
  fresh.event = host_cuda::events;
  fresh.expected = fresh.pending = arrivals;
  if (!host_cuda::async_state().barriers.emplace(barrier, fresh).second)
    host_cuda::give_up("a barrier is initialised twice");
  *barrier = host_cuda::kToken;
  host_cuda::current->initialised.push_back(host_cuda::events++);
}

inline void publish_barriers() {
  for (const int event : host_cuda::current->initialised) host_cuda::current->knows.learn(event, 1);
  host_cuda::current->initialised.clear();
}

inline void arrive(uint64_t* barrier) {
  host_cuda::arrive_at(host_cuda::state_of(barrier), 0);
  host_cuda::yield();  // who waited may go on before this thread does
}

inline void arrive_expecting(uint64_t* barrier, uint32_t bytes) {
  host_cuda::arrive_at(host_cuda::state_of(barrier), bytes);
}

// A thread that knows of n ended phases can mean the end of phase n or of n - 1, whichever has this parity. Should more
// have ended than one beyond what it means, then a GPU would take the parity for another phase's.
inline void wait_barrier(uint64_t* barrier, int parity) {
  host_cuda::BytesBarrierState& s = host_cuda::state_of(barrier);
  if (parity != 0 && parity != 1) host_cuda::give_up("a barrier's parity is neither 0 nor 1");
  const int known = host_cuda::current->knows.of(s.event) - 1, meant = known % 2 == parity ? known : known - 1;
  host_cuda::current->waits_for = &s;
  while (s.phase <= meant) {
    host_cuda::land_all(s);
    if (s.phase <= meant) host_cuda::yield();
  }
  host_cuda::current->waits_for = nullptr;
  if (s.phase > meant + 1) host_cuda::give_up("a thread waits for a phase of a barrier after the next one has ended");
  if (meant < 0) return;  // a new barrier, as if phase -1 had ended
  host_cuda::current->knows.learn(s.ended[size_t(meant)]);
  host_cuda::current->knows.learn(s.event, meant + 2);
  s.waited = std::max(s.waited, meant);
}

inline void copy_bulk(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  host_cuda::check_aligned16(to, from, bytes);
  host_cuda::BytesBarrierState& s = host_cuda::state_of(barrier);
  const host_cuda::BulkCopy copy{static_cast<unsigned char*>(to), from, bytes, s.phase};
  host_cuda::claim(copy.to, bytes, s);
  s.copied = s.phase;
  if (host_cuda::backward) return host_cuda::land(copy, s);
  host_cuda::write_async(copy.to, std::vector<unsigned char>(bytes, 0xff).data(), bytes);
  s.in_flight.push_back(copy);
}

// fence.proxy.async: what ordinary stores wrote before it, the asynchronous proxy sees. No kernel of csrc needs it yet.
inline void fence_async_proxy() {
  auto& view = host_cuda::async_state().view;
  std::memcpy(view.data(), host_cuda::current->block->shared, host_cuda::current->block->shared_bytes);
}

template <int kRegisters>
void fewer_registers() {
  host_cuda::change_registers(kRegisters, false);
}
template <int kRegisters>
void more_registers() {
  host_cuda::change_registers(kRegisters, true);
}

inline void begin_products() { ++host_cuda::current->products.fences; }

inline void commit_products() {
  host_cuda::current->products.groups.emplace_back();
  ++host_cuda::current->products.committed;
}

template <int kPending>
void wait_earlier_products() {
  host_cuda::Products& products = host_cuda::current->products;
  while (products.groups.size() > kPending + 1) host_cuda::finish_group();
  products.fences_at_wait = products.fences;
  host_cuda::current->knows.learn(host_cuda::warp().event, products.committed + 1 - int(products.groups.size()));
  host_cuda::wait(host_cuda::warp().barrier);  // .sync: no lane goes on before the warp's products are done
}

template <int kPending>
void wait_products(float (&acc)[64]) {
  wait_earlier_products<kPending>();
  const auto found = host_cuda::current->products.accumulators.find(acc);
  if (found == host_cuda::current->products.accumulators.end()) return;
  if (found->second.under_way > 0)
    host_cuda::give_up("wgmma: accumulators are waited for while their products stay under way");
  found->second.awaited = true;
}

template <class Element>
void warpgroup_multiply(float (&acc)[64], uint64_t a, uint64_t b, bool add) {
  host_cuda::issue({acc, a, b, add, host_cuda::multiply_rows<Element>});
}

}  // namespace otk
