// Removes what has been kept for long enough, in the background: finished jobs with their
// artifacts, what failed jobs have done, and request ids. Each look takes small transactions until
// nothing is left that is due. Several processes that share a store may all sweep it.
#ifndef VALUESCOPE_JOBS_RETENTION_H_
#define VALUESCOPE_JOBS_RETENTION_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/recurring.h"
#include "jobs/job_queue.h"
#include "store/store.h"

namespace valuescope::jobs {

struct RetentionOptions {
  store::Retention kept;
  absl::Duration pause = absl::Minutes(1);  // between looks
  int64_t rows_at_once = 500;               // about, of one transaction
  // What a look removed, if anything, and what the store said where it failed; either may be empty,
  // neither may block.
  std::function<void(const store::Expired&)> on_expired;
  std::function<void(const absl::Status&)> on_store_error;
};

class RetentionSweeper {
 public:
  // The queue outlives the sweeper.
  RetentionSweeper(JobQueue* queue, RetentionOptions options);
  RetentionSweeper(const RetentionSweeper&) = delete;
  RetentionSweeper& operator=(const RetentionSweeper&) = delete;

  // Looks now and after every pause, on a thread of its own, which ends with the sweeper once its
  // transaction is done. Call once.
  void Start() { sweeping_.Start(); }

  // One look, on the caller's thread.
  void Sweep();

 private:
  void Remove();

  JobQueue* const queue_;
  const RetentionOptions options_;
  Recurring sweeping_;
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_RETENTION_H_
