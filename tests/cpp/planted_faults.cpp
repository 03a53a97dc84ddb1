// Faults that the sanitizers must find, one for each: a build in which they see nothing must not pass as clean.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

namespace {

// Threads add up their parts; `ordered`: the sum is read after a barrier, else while others still write.
int sums(bool ordered) {
  constexpr int kThreads = 3;
  std::vector<int> parts(kThreads), totals(kThreads);
#pragma omp parallel for num_threads(kThreads) schedule(static, 1)
  for (int k = 0; k < kThreads; ++k) parts[size_t(k)] = k;  // ends with a barrier
#pragma omp parallel num_threads(kThreads)
  {
#pragma omp for schedule(static, 1) nowait
    for (int k = 0; k < kThreads; ++k) parts[size_t(k)] += 1;
    if (ordered) {
#pragma omp barrier
    }
#pragma omp for schedule(static, 1)
    for (int k = 0; k < kThreads; ++k)
      for (const int part : parts) totals[size_t(k)] += part;
  }
  return totals[0];
}

}  // namespace

int main(int count, char** arguments) {
  const char* const fault = count > 1 ? arguments[1] : "none";
  int result = 0;
  if (!std::strcmp(fault, "address")) {
    std::vector<int> values(8);
    result = values.data()[values.size() + size_t(count) - 2];
  } else if (!std::strcmp(fault, "undefined")) {
    result = std::numeric_limits<int>::max() - 2 + count + 1;
  } else {
    result = sums(std::strcmp(fault, "thread") != 0);
  }
  std::printf("%d\n", result);
  return 0;
}
