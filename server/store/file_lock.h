// The right to use a file or directory alone among processes. The kernel gives it back when the
// process ends, however it ends.
#ifndef VALUESCOPE_STORE_FILE_LOCK_H_
#define VALUESCOPE_STORE_FILE_LOCK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace valuescope::store {

class FileLock {
 public:
  // Makes `path` where it is missing and locks it. FAILED_PRECONDITION (reason STORE_IN_USE) where
  // it is locked already, by another process or by this one; UNAVAILABLE where it cannot be opened.
  static absl::StatusOr<std::unique_ptr<FileLock>> Acquire(const std::string& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  const int descriptor_;
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_FILE_LOCK_H_
