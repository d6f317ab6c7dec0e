// How much memory this process may come to have: the machine's, or less where it runs in a
// container with a limit, which the machine's own numbers do not show.
#ifndef VALUESCOPE_BASE_HOST_MEMORY_H_
#define VALUESCOPE_BASE_HOST_MEMORY_H_

#include <cstdint>
#include <string>

namespace valuescope {

// Bytes. `root` is where the system's files are; tests have their own.
int64_t HostMemoryBytes(const std::string& root = "/");

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_HOST_MEMORY_H_
