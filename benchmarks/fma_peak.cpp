// fma_peak.cpp - float32 multiply-adds per second that this machine sustains from registers, on the widest vectors it has.
//   fma_peak THREADS SECONDS  ->  "GFLOP/s width-in-bits", two flops per multiply-add, all threads together
// Each thread runs independent chains, enough to hide the latency of two multiply-add units; the slowest thread counts.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

typedef float Vector128 __attribute__((vector_size(16)));
typedef float Vector256 __attribute__((vector_size(32)));
typedef float Vector512 __attribute__((vector_size(64)));

constexpr int kSteps = 1 << 14;  // between two looks at the clock

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class V, int kChains>
[[gnu::always_inline]] inline double flops_per_second(double seconds, float factor) {
  V chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = V{} + (1.0f + i);
  const V a = V{} + factor, b = V{} + (1.0f - factor);  // x -> a x + b tends to 1: neither overflow nor denormals
  const double start = now();
  double steps = 0, elapsed = 0;
  do {
    for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 32
      for (int i = 0; i < kChains; ++i) chain[i] = chain[i] * a + b;
    }
    for (int i = 0; i < kChains; ++i) asm volatile("" : "+m"(chain[i]));
    steps += kSteps;
    elapsed = now() - start;
  } while (elapsed < seconds);
  return 2.0 * steps * kChains * (sizeof(V) / sizeof(float)) / elapsed;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) double run512(double seconds, float a) {
  return flops_per_second<Vector512, 24>(seconds, a);
}
__attribute__((target("avx2,fma"))) double run256(double seconds, float a) {
  return flops_per_second<Vector256, 12>(seconds, a);
}
#endif
double run128(double seconds, float a) { return flops_per_second<Vector128, 12>(seconds, a); }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int threads = std::atoi(argv[1]);
  const double seconds = std::atof(argv[2]);
  double (*run)(double, float) = run128;
  int width = 128;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    run = run512, width = 512;
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    run = run256, width = 256;
  }
#endif
  std::vector<double> rates(threads);
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) pool.emplace_back([&, t] { rates[t] = run(seconds, 0.999f); });
  for (auto& thread : pool) thread.join();
  double slowest = rates[0];
  for (double rate : rates) slowest = rate < slowest ? rate : slowest;
  std::printf("%.3f %d\n", 1e-9 * slowest * threads, width);
}
