#include "store/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "base/error.h"

namespace valuescope::store {

namespace {

int OperationOf(LockMode mode) { return mode == LockMode::kAlone ? LOCK_EX : LOCK_SH; }

}  // namespace

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Acquire(const std::string& path,
                                                            LockMode mode) {
  return Lock(path, OperationOf(mode) | LOCK_NB);
}

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Await(const std::string& path, LockMode mode) {
  return Lock(path, OperationOf(mode));
}

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Lock(const std::string& path, int operation) {
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    return ErrorWithReason(absl::StatusCode::kUnavailable, "STORE_UNREACHABLE",
                           "the store's lock file cannot be opened: does its folder exist, and may "
                           "the server write there?");
  }
  auto lock = absl::WrapUnique(new FileLock(descriptor));
  int failed = flock(descriptor, operation);
  while (failed != 0 && errno == EINTR) failed = flock(descriptor, operation);
  if (failed != 0) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "STORE_IN_USE",
                           "another server uses this store; an embedded store serves one server");
  }
  return lock;
}

FileLock::~FileLock() { close(descriptor_); }

}  // namespace valuescope::store
