// Which state of a file somebody has read, so that it is read again once it is another.
#ifndef VALUESCOPE_BASE_FILE_VERSION_H_
#define VALUESCOPE_BASE_FILE_VERSION_H_

#include <cstdint>
#include <string>

namespace valuescope {

struct FileVersion {
  int64_t device = 0, inode = 0, modified_ns = 0;
  int64_t size = -1;  // where there is none

  bool exists() const { return size >= 0; }
  bool operator==(const FileVersion&) const = default;
};

// Of the file behind the links that `path` may be made of.
FileVersion VersionOf(const std::string& path);

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_FILE_VERSION_H_
