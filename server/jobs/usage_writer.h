// Writes down what tenants used of this server, every few seconds, so that all servers that share a
// store tell the same.
#ifndef VALUESCOPE_JOBS_USAGE_WRITER_H_
#define VALUESCOPE_JOBS_USAGE_WRITER_H_

#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/recurring.h"
#include "base/usage_tally.h"
#include "store/store.h"

namespace valuescope::jobs {

struct UsageWriterOptions {
  absl::Duration pause = absl::Seconds(10);
  // Of a store that could not be told, which is tried again after the pause. May be empty; must not
  // block.
  std::function<void(const absl::Status&)> on_store_error;
};

class UsageWriter {
 public:
  // `add`: Store::AddUsage of the store, from one thread at a time. The tally outlives the writer.
  UsageWriter(std::function<absl::Status(const store::UsageBatch&)> add, UsageTally* tally,
              UsageWriterOptions options = {});
  UsageWriter(const UsageWriter&) = delete;
  UsageWriter& operator=(const UsageWriter&) = delete;

  // Writes now and after every pause, on a thread of its own. Call once.
  void Start() { writing_.Start(); }
  // Ends that, and writes what was counted since. Call once.
  void Stop();

  // Writes what was counted since the last time, on the caller's thread. What the store does not
  // take is kept as it is and sent again first, under the same number: the store knows by that
  // whether it has it, also where a connection was lost before it said so, and nothing counts
  // twice. What was not written for hours counts for the hour in which it is.
  absl::Status Write();

 private:
  absl::Status Send() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<absl::Status(const store::UsageBatch&)> add_;
  UsageTally* const tally_;
  const UsageWriterOptions options_;
  absl::Mutex mutex_;
  store::UsageBatch batch_ ABSL_GUARDED_BY(mutex_);  // on its way, where it has some usage
  Recurring writing_;
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_USAGE_WRITER_H_
