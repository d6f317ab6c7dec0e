#include "base/file_version.h"

#include <sys/stat.h>

#include "absl/time/time.h"

namespace valuescope {

FileVersion VersionOf(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return {};
  return {.device = static_cast<int64_t>(status.st_dev),
          .inode = static_cast<int64_t>(status.st_ino),
          .modified_ns = absl::ToUnixNanos(absl::TimeFromTimespec(status.st_mtim)),
          .size = static_cast<int64_t>(status.st_size)};
}

}  // namespace valuescope
