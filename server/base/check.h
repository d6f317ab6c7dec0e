// VS_CHECK stops the process on a broken invariant of our own. Nothing that a request, a file or a
// peer can cause may reach one: those return absl::Status.
#ifndef VALUESCOPE_BASE_CHECK_H_
#define VALUESCOPE_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

#define VS_CHECK(condition)                                                                  \
  do {                                                                                       \
    if (!(condition)) {                                                                      \
      std::fprintf(stderr, "%s:%d: invariant broken: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)

#endif  // VALUESCOPE_BASE_CHECK_H_
