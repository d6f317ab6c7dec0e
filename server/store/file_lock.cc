#include "store/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "base/error.h"

namespace valuescope::store {

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Acquire(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    return ErrorWithReason(absl::StatusCode::kUnavailable, "STORE_UNREACHABLE",
                           "the store's lock file cannot be opened: does its folder exist, and may "
                           "the server write there?");
  }
  auto lock = absl::WrapUnique(new FileLock(descriptor));
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "STORE_IN_USE",
                           "another server uses this store; an embedded store serves one server");
  }
  return lock;
}

FileLock::~FileLock() { close(descriptor_); }

}  // namespace valuescope::store
