// Who did what to which resources: JSON Lines in a file of their own, which depends neither on the
// log's level nor on who collects it.
//
//   {"time":"2026-01-02T03:04:05.678Z","level":"info","event":"audit","tenant":"lab",...}
#ifndef VALUESCOPE_OBSERVABILITY_AUDIT_LOG_H_
#define VALUESCOPE_OBSERVABILITY_AUDIT_LOG_H_

#include <initializer_list>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "observability/log.h"

namespace valuescope::observability {

class AuditLog {
 public:
  // Appends to the file, which only its owner may read where it is made here. INVALID_ARGUMENT
  // where it cannot be opened.
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(std::string path);
  ~AuditLog();
  AuditLog(const AuditLog&) = delete;
  AuditLog& operator=(const AuditLog&) = delete;

  // Adds a line, which the system has once this returns; false where it could not take it. Where
  // the file was moved away or removed, as programs that rotate logs do, another one is begun.
  // Thread-safe.
  bool Write(std::initializer_list<LogField> fields);

 private:
  AuditLog(std::string path, int file) : path_(std::move(path)), file_(file) {}

  bool FollowPath() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  absl::Mutex mutex_;
  int file_ ABSL_GUARDED_BY(mutex_);  // below 0 where it could not be opened again
};

}  // namespace valuescope::observability

#endif  // VALUESCOPE_OBSERVABILITY_AUDIT_LOG_H_
