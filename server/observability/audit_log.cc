#include "observability/audit_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace valuescope::observability {
namespace {

int OpenToAppend(const std::string& path) {
  return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
}

// All of it, or false.
bool WriteWhole(int file, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(std::string path) {
  const int file = OpenToAppend(path);
  if (file < 0) {
    return absl::InvalidArgumentError(absl::StrCat("cannot be written to: ", std::strerror(errno)));
  }
  return absl::WrapUnique(new AuditLog(std::move(path), file));
}

AuditLog::~AuditLog() {
  if (file_ >= 0) ::close(file_);
}

bool AuditLog::FollowPath() {
  struct stat there = {}, ours = {};
  if (file_ >= 0 && ::stat(path_.c_str(), &there) == 0 && ::fstat(file_, &ours) == 0 &&
      there.st_dev == ours.st_dev && there.st_ino == ours.st_ino) {
    return true;
  }
  if (file_ >= 0) ::close(file_);
  file_ = OpenToAppend(path_);
  return file_ >= 0;
}

bool AuditLog::Write(std::initializer_list<LogField> fields) {
  const std::string line = FormatLogLine(LogTime(), LogLevel::kInfo, "audit", fields) + "\n";
  absl::MutexLock lock(&mutex_);
  return FollowPath() && WriteWhole(file_, line);
}

}  // namespace valuescope::observability
