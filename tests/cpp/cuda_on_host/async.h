// async.h - what the emulator remembers of asynchronous work, in order to judge whether a thread may rely on it.
//
// Knowledge    a thread knows how far an event has come only if it waited for it, or synchronised (__syncthreads,
//              __syncwarp, a barrier's phase) with a thread that knows. Shuffles and ballots order no memory.
// Barriers     count arrivals and bytes by phase. A copy's bytes count on the phase in which it was issued.
// Pieces       of 16 bytes of shared memory: which bulk copy wrote it last, which products of which warp read it last.
// View         shared memory as the asynchronous proxy (bulk copies, products) sees it. Ordinary stores change the memory
//              alone, until fence_async_proxy().
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace host_cuda {

// Ends the launch, which then throws the same.
[[noreturn]] inline void give_up(const std::string& why) { throw std::runtime_error(why); }

// Events are numbered within a launch. A warp's count is its finished groups of products; a barrier's is 1 for its
// initialisation, and its ended phases.
class Knowledge {
 public:
  int of(int event) const { return size_t(event) < counts_.size() ? counts_[size_t(event)] : 0; }

  void learn(int event, int count) {
    if (counts_.size() <= size_t(event)) counts_.resize(size_t(event) + 1);
    counts_[size_t(event)] = std::max(counts_[size_t(event)], count);
  }

  void learn(const Knowledge& other) {
    if (counts_.size() < other.counts_.size()) counts_.resize(other.counts_.size());
    for (size_t k = 0; k < other.counts_.size(); ++k) counts_[k] = std::max(counts_[k], other.counts_[k]);
  }

 private:
  std::vector<int> counts_;
};

inline int events = 0;  // of the blocks that run together

struct BulkCopy {
  unsigned char* to;
  const void* from;
  size_t bytes;
  int phase;
};

struct BytesBarrierState {
  int event = 0, expected = 0, pending = 0;
  int phase = 0;      // that is under way: so many have ended
  int64_t bytes = 0;  // to come in this phase
  int copied = -1, waited = -1;  // the last phase that a copy counts on, that a thread has waited for
  Knowledge arriving;
  std::vector<Knowledge> ended;  // what a wait for that phase teaches
  std::vector<BulkCopy> in_flight;
};

struct Piece {
  int barrier = -1, phase = 0;  // of the copy that wrote it; -1: none did
  std::vector<int> reads;       // by warp of the block, the group of products that read it last
};

// A block's; made when it first needs one.
struct AsyncState {
  std::map<const void*, BytesBarrierState> barriers;
  std::vector<Piece> pieces;
  std::vector<unsigned char> view;
  std::vector<std::vector<std::array<uint64_t, 3>>> issued;  // by warpgroup, the products that its first thread issued
};

struct Accumulators {
  std::array<float, 64> sums;  // the thread's own array is poison while products are under way
  int under_way = 0;
  bool awaited = true;  // wait_products was called for them since their last product
  int fences = 0;  // that the thread had passed when it could last touch its array
};

struct Product {
  float* accumulators;
  uint64_t a, b;
  bool add;
  void (*multiply)(const Product&, float* sums);
};

// A thread's part in products of its warpgroup.
struct Products {
  std::vector<std::vector<Product>> groups{1};  // committed ones, then the open one
  int committed = 0, fences = 0, fences_at_wait = 0;
  size_t issued = 0;
  std::map<const float*, Accumulators> accumulators;
};

}  // namespace host_cuda
