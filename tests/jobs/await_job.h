// Waits for a job as a watcher does: looks once, then whenever it changed.
#ifndef VALUESCOPE_TESTS_JOBS_AWAIT_JOB_H_
#define VALUESCOPE_TESTS_JOBS_AWAIT_JOB_H_

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "jobs/job_queue.h"

namespace valuescope::jobs {

// What a test waits for at most, and what does not happen while one runs.
inline constexpr absl::Duration kPatience = absl::Seconds(60), kNever = absl::Hours(1);

// The job once `reached` is true of it; DEADLINE_EXCEEDED where it is not until `deadline`.
inline absl::StatusOr<JobSnapshot> AwaitJob(
    JobQueue& queue, absl::string_view tenant, absl::string_view id, absl::Time deadline,
    const std::function<bool(const JobSnapshot&)>& reached) {
  absl::Mutex mutex;
  bool woken = true;
  const auto watcher = queue.Watch(tenant, id, [&] {
    absl::MutexLock lock(&mutex);
    woken = true;
  });
  while (true) {
    {
      absl::MutexLock lock(&mutex);
      if (!mutex.AwaitWithDeadline(absl::Condition(&woken), deadline)) {
        return absl::DeadlineExceededError("the job did not change in time");
      }
      woken = false;
    }
    VS_ASSIGN_OR_RETURN(const std::optional<JobSnapshot> changed, watcher->TakeChange());
    if (changed && reached(*changed)) return *changed;
  }
}

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_TESTS_JOBS_AWAIT_JOB_H_
