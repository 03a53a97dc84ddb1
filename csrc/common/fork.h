// fork.h - how many OpenMP threads a kernel may use: one in a forked child. fork() copies only the thread that calls it,
// so the team that the parent's OpenMP remembers does not exist in the child, and the first parallel region would wait
// for it for ever. The handler is registered when the library is loaded, before the process can fork with it.
#pragma once
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace otk {

inline bool in_forked_child = false;

#if defined(__unix__) || defined(__APPLE__)
inline const int fork_handler = pthread_atfork(nullptr, nullptr, [] { in_forked_child = true; });
#endif

inline int usable_threads(int threads) { return in_forked_child ? 1 : threads; }

}  // namespace otk
