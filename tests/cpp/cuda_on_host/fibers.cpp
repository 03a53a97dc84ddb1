// fibers.cpp - runs a launch's blocks, one cluster (or cooperative grid) after the other, its threads as fibers.
#include <ucontext.h>

#include <bit>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "common/hopper.h"

namespace host_cuda {
namespace {

constexpr size_t kStack = 256 << 10;
constexpr int kPatience = 64;  // rounds in which every fiber only waits, before that is called a deadlock
constexpr size_t kGuard = 1024;

struct Fiber {
  Thread thread;
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack;
  bool done = false;
};

ucontext_t scheduler;
Fiber* running = nullptr;
const std::function<void()>* body = nullptr;
bool moved = false;
std::string fault;  // of the launch that runs; empty: none yet

void release(Barrier& b) {
  if (b.arrived > 0 && b.arrived == b.expected) {
    b.arrived = 0;
    b.released = b.arriving;
    ++b.generation;
    moved = true;
  }
}

void leave(Barrier& b) {
  --b.expected;
  release(b);
}

void start() {
  Thread& t = running->thread;
  try {
    (*body)();
    finish(t);
  } catch (const std::exception& e) {
    fault = e.what();
  }
  leave(t.block->barrier);
  leave(t.block->warps[t.index / 32].barrier);
  leave(*t.block->group);
  running->done = moved = true;
  swapcontext(&running->context, &scheduler);
}

[[noreturn]] void fail(const otk::Launch& l, const std::string& why) { give_up(l.what.text() + ": " + why); }

std::string deadlock(const std::vector<Fiber>& fibers) {
  std::string text = "deadlock: every thread waits";
  for (const Fiber& f : fibers)
    if (const BytesBarrierState* b = f.done ? nullptr : f.thread.waits_for)
      return text + ", thread " + std::to_string(f.thread.index) + " for a barrier that lacks " +
             std::to_string(b->pending) + " arrivals and " + std::to_string(b->bytes) + " bytes";
  return text;
}

void run_group(const otk::Launch& l, std::vector<Block>& blocks) {
  std::vector<Fiber> fibers(blocks.size() * size_t(l.threads));
  for (size_t k = 0; k < fibers.size(); ++k) {
    Fiber& f = fibers[k];
    f.thread.block = &blocks[k / size_t(l.threads)];
    f.thread.index = unsigned(k % size_t(l.threads));
    f.stack.reset(new unsigned char[kStack]);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = kStack;
    f.context.uc_link = &scheduler;
    makecontext(&f.context, start, 0);
  }
  size_t left = fibers.size();
  for (int idle = 0; left > 0; idle = moved ? 0 : idle + 1) {
    if (idle > kPatience) fail(l, deadlock(fibers));
    moved = false;
    for (size_t k = 0; k < fibers.size(); ++k) {
      Fiber& f = fibers[backward ? fibers.size() - 1 - k : k];
      if (f.done) continue;
      running = &f;
      current = &f.thread;
      threadIdx.x = f.thread.index;
      blockIdx.x = f.thread.block->index;
      swapcontext(&scheduler, &f.context);
      left -= f.done;
      if (!fault.empty()) fail(l, std::exchange(fault, {}));
    }
  }
}

}  // namespace

void yield() { swapcontext(&running->context, &scheduler); }
void progressed() { moved = true; }

void wait(Barrier& b) {
  const uint64_t generation = b.generation;
  ++b.arrived;
  release(b);
  while (b.generation == generation) yield();
}

void synchronise(Barrier& b) {
  b.arriving.learn(current->knows);
  wait(b);
  current->knows.learn(b.released);
}

void run(const otk::Launch& l, const std::function<void()>& thread) {
  if (l.blocks < 1 || l.threads < 1 || l.threads > 1024 || l.threads % 32 || l.shared_bytes > 227 << 10 || l.cluster > 16 ||
      l.blocks % l.cluster || l.cluster > std::max(1, otk::largest_cluster_on_host) ||
      (l.cooperative && l.blocks > otk::device_on_host.multiprocessors * otk::resident_blocks_on_host))
    fail(l, "a GPU would refuse this launch");
  const int64_t together = l.cooperative ? l.blocks : l.cluster;
  body = &thread;
  blockDim.x = unsigned(l.threads);
  gridDim.x = unsigned(l.blocks);
  for (int64_t first = 0; first < l.blocks; first += together) {
    std::vector<Block> blocks(static_cast<size_t>(together));
    events = 0;
    Barrier group;
    group.expected = int(together) * l.threads;
    for (size_t k = 0; k < blocks.size(); ++k) {
      Block& b = blocks[k];
      b.index = unsigned(first + int64_t(k));
      b.rank = unsigned(int(k) % l.cluster);
      b.group = &group;
      b.peers = &blocks;
      b.barrier.expected = l.threads;
      b.warps.resize(size_t(l.threads) / 32);
      for (Warp& w : b.warps) {
        w.barrier.expected = 32;
        w.event = events++;
        w.registers = std::min(256, 65536 / l.threads / 8 * 8);  // what __launch_bounds__ lets a thread have
      }
      const size_t bytes = (l.shared_bytes + kGuard + 1023) / 1024 * 1024;
      b.memory.reset(static_cast<unsigned char*>(std::aligned_alloc(1024, bytes)));
      b.shared = b.memory.get();
      b.shared_bytes = l.shared_bytes;
      std::memset(b.shared, 0xff, bytes);
    }
    run_group(l, blocks);
    for (const Block& b : blocks) {
      try {
        finish(b);
      } catch (const std::exception& e) {
        fail(l, e.what());
      }
      for (size_t k = 0; k < kGuard; ++k)
        if (b.shared[b.shared_bytes + k] != 0xff) fail(l, "wrote past its shared memory");
    }
  }
}

}  // namespace host_cuda
