#include "base/host_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/numbers.h"

namespace valuescope {
namespace {

// Of control groups, version 2 and 1, as a container sees its own. Without a limit the file says
// "max" or a number beyond all memory.
constexpr const char* kLimits[] = {"sys/fs/cgroup/memory.max",
                                   "sys/fs/cgroup/memory/memory.limit_in_bytes"};

}  // namespace

int64_t HostMemoryBytes(const std::string& root) {
  int64_t bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  for (const char* path : kLimits) {
    std::ifstream file(root + path);
    std::string word;
    int64_t limit;
    if (file >> word && absl::SimpleAtoi(word, &limit) && limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

}  // namespace valuescope
