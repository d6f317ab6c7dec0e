// The right to use a file or directory among processes, alone or with others that use it likewise.
// The kernel gives it back when the process ends, however it ends.
#ifndef VALUESCOPE_STORE_FILE_LOCK_H_
#define VALUESCOPE_STORE_FILE_LOCK_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace valuescope::store {

enum class LockMode : uint8_t { kAlone, kShared };

class FileLock {
 public:
  // Makes `path` where it is missing and locks it. FAILED_PRECONDITION (reason STORE_IN_USE) where
  // it is locked already in a mode that does not go with this one, by another process or by this
  // one; UNAVAILABLE where it cannot be opened.
  static absl::StatusOr<std::unique_ptr<FileLock>> Acquire(const std::string& path,
                                                           LockMode mode = LockMode::kAlone);
  // The same, and waits where it is locked.
  static absl::StatusOr<std::unique_ptr<FileLock>> Await(const std::string& path, LockMode mode);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  static absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path, int operation);
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  const int descriptor_;
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_FILE_LOCK_H_
