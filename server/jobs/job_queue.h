// The queue as services see it: the store's jobs, plus what only the running process knows. That is
// who waits for a job to change (watchers block on a condition and never poll the database), who
// works (workers are woken at once when there is something to do), and how fast a job gets on.
#ifndef VALUESCOPE_JOBS_JOB_QUEUE_H_
#define VALUESCOPE_JOBS_JOB_QUEUE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "jobs/job_kind.h"
#include "store/store.h"

namespace valuescope::jobs {

struct JobSnapshot {
  store::Job job;
  uint64_t version = 0;               // rises whenever the job changes; 0 until it first does
  std::optional<absl::Duration> eta;  // time to the end at the observed speed; unset while unknown
  std::string waiting_for;            // what is missing here, for people; empty while nothing is
};

// Thread-safe. Errors are those of store::Store.
class JobQueue {
 public:
  // Both outlive the queue.
  explicit JobQueue(store::Store* store, const Clock* clock = &Clock::System());
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  // The kinds that this process runs: what jobs wait for is known of these alone. Call it once,
  // before anything else. They outlive every other call.
  void SetKinds(std::vector<const JobKind*> kinds);

  absl::StatusOr<JobSnapshot> Create(const store::NewJob& job, const store::IdempotencyKey& key);
  absl::StatusOr<JobSnapshot> Get(absl::string_view tenant, absl::string_view id);
  absl::StatusOr<store::JobPage> List(absl::string_view tenant, const store::JobFilter& filter,
                                      const store::Page& page);
  absl::StatusOr<JobSnapshot> Cancel(absl::string_view tenant, absl::string_view id);
  absl::StatusOr<JobSnapshot> Retry(absl::string_view tenant, absl::string_view id,
                                    const store::IdempotencyKey& key);
  absl::Status Delete(absl::string_view tenant, absl::string_view id);

  // What keeps a job that is queued or running from being run here, for people: empty while nothing
  // does, or while only its turn has not come.
  std::string WaitingFor(const store::Job& job) const;

  // Blocks until the job's version is above `last_version`, and returns it; call Get first and pass
  // its version. DEADLINE_EXCEEDED at `deadline` (real time), CANCELLED after StopWaiting,
  // NOT_FOUND where the job is gone. Changes in quick succession are seen as one.
  absl::StatusOr<JobSnapshot> WaitForChange(absl::string_view tenant, absl::string_view id,
                                            uint64_t last_version, absl::Time deadline);

  // Every WaitForChange, present and future, returns CANCELLED: the server drains.
  void StopWaiting();

  // --- For workers ---

  store::Store& store() { return *store_; }

  // Something that jobs need came or went: workers look again, and so do watchers.
  void NeedsChanged();

  // The job changed: wakes its watchers.
  void Announce(absl::string_view job_id);

  // Calls `wake` (which must not block or call back) whenever there may be something to do or to
  // stop: a job was created, retried or cancelled. One listener an id; remove it before it dies.
  int64_t AddListener(std::function<void()> wake);
  void RemoveListener(int64_t id);

 private:
  // Where the present stretch of work was first seen: what the speed is measured from.
  struct Observation {
    absl::Time time;
    int64_t work_done = 0;
  };

  void WakeWorkers();
  uint64_t VersionOf(absl::string_view job_id);
  absl::StatusOr<JobSnapshot> Snapshot(uint64_t version, absl::StatusOr<store::Job> job);
  std::optional<absl::Duration> EstimateRemaining(const store::Job& job);

  store::Store* const store_;
  const Clock* const clock_;
  std::vector<const JobKind*> kinds_;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t last_version_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, uint64_t, std::less<>> versions_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Observation> observations_ ABSL_GUARDED_BY(mutex_);
  absl::Mutex listeners_mutex_;
  int64_t last_listener_ ABSL_GUARDED_BY(listeners_mutex_) = 0;
  std::map<int64_t, std::function<void()>> listeners_ ABSL_GUARDED_BY(listeners_mutex_);
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_JOB_QUEUE_H_
