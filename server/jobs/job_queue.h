// The queue as services see it: the store's jobs, plus what only the running process knows. That is
// who waits for a job to change (a change wakes that job's watchers and nobody else, they never
// poll, and share one reading of the database), who works (workers are woken at once when there is
// something to do), and how fast a job gets on. What other processes change in a store that several
// share wakes the same.
#ifndef VALUESCOPE_JOBS_JOB_QUEUE_H_
#define VALUESCOPE_JOBS_JOB_QUEUE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
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
  std::optional<absl::Duration> eta;  // time to the end at the observed speed; unset while unknown
  std::string waiting_for;            // what is missing here, for people; empty while nothing is
};

class JobQueue;

// Hears of one job's changes until it is destroyed. Used by one thread at a time.
class JobWatcher {
 public:
  ~JobWatcher();
  JobWatcher(const JobWatcher&) = delete;
  JobWatcher& operator=(const JobWatcher&) = delete;

  // The job, without request and spec, where it changed since it was last taken, and the first
  // time; nothing where it did not. Changes in quick succession are seen as one. NOT_FOUND where
  // the job is gone.
  absl::StatusOr<std::optional<JobSnapshot>> TakeChange();

 private:
  friend class JobQueue;
  JobWatcher(JobQueue* queue, absl::string_view tenant, absl::string_view id,
             std::function<void()> wake);

  JobQueue* const queue_;
  const std::string tenant_;
  const std::string id_;
  const std::function<void()> wake_;
  bool changed_ = true;  // guarded by the queue's mutex
};

// Thread-safe. Errors are those of store::Store.
class JobQueue {
 public:
  // Both outlive the queue.
  explicit JobQueue(store::Store* store, const Clock* clock = &Clock::System());
  ~JobQueue();
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  // The kinds that this process runs; jobs of others wait for servers that know them. Call it once,
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

  // What keeps a job that is queued or running from being run, for people: empty while nothing
  // does, here or at another of the servers that share the store, or while only its turn has not
  // come.
  std::string WaitingFor(const store::Job& job);

  // The servers that share the store, as they were a moment ago; while the store cannot be reached,
  // as they were last.
  std::vector<store::Replica> Replicas();

  // Jobs of all tenants by kind and state, as they were a moment ago: counting goes through all of
  // them, so it takes at most a fiftieth of the time however often somebody asks.
  absl::StatusOr<std::vector<store::JobCount>> CountJobs();

  // Calls `wake` (which must not block or call back) after every change of the job, whether there
  // is such a job or not. The queue outlives the watcher.
  std::unique_ptr<JobWatcher> Watch(absl::string_view tenant, absl::string_view id,
                                    std::function<void()> wake);

  // --- For workers ---

  store::Store& store() { return *store_; }

  // The kinds and needs of the jobs that are queued or running, as they were a moment ago: not
  // before listeners were last woken. A worker that finds nothing to do of them forgets them.
  absl::StatusOr<std::vector<store::WorkType>> ListWork();
  void ForgetWork();

  // Something that jobs need came or went: workers look again, and so do watchers.
  void NeedsChanged();

  // The job changed: wakes its watchers.
  void Announce(absl::string_view job_id);

  // See store::Store::StartChild; wakes workers.
  absl::StatusOr<store::Job> StartChild(const store::Lease& lease, absl::string_view phase,
                                        const store::NewJob& job);
  // The parts of a job, in the order in which they began, without specs.
  absl::StatusOr<std::vector<store::Job>> ListChildren(absl::string_view tenant,
                                                       absl::string_view id);

  // Calls `wake` (which must not block or call back) whenever there may be something to do or to
  // stop: a job was created, retried or cancelled. One listener an id; remove it before it dies.
  int64_t AddListener(std::function<void()> wake);
  void RemoveListener(int64_t id);

 private:
  friend class JobWatcher;

  // Where the present stretch of work was first seen: what the speed is measured from.
  struct Observation {
    absl::Time time;
    int64_t work_done = 0;
  };

  // A job that somebody watches.
  struct Watched {
    std::set<JobWatcher*> watchers;
    uint64_t changes = 0;  // since it is watched
    std::optional<JobSnapshot> snapshot =
        std::nullopt;  // as it is since the last change, once read
  };

  // Both may have changed.
  void AnnounceWithParts(const store::Job& job);
  void ForgetReplicas();
  void WakeWorkers();
  void WakeAllWatchers();
  void HearOthers(const store::JobChange& change);
  absl::StatusOr<std::optional<JobSnapshot>> TakeChange(JobWatcher& watcher);
  void EndWatch(JobWatcher& watcher);
  void TellWatchers(Watched& watched) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<JobSnapshot> Snapshot(absl::StatusOr<store::Job> job);
  std::optional<absl::Duration> EstimateRemaining(const store::Job& job);
  Observation FirstObservationOf(const store::Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  store::Store* const store_;
  const Clock* const clock_;
  std::vector<const JobKind*> kinds_;
  absl::Mutex mutex_;
  std::map<std::string, Watched, std::less<>> watched_ ABSL_GUARDED_BY(mutex_);  // by job id
  // Of jobs that were running when somebody looked, by id; a bounded number of the latest.
  std::map<std::string, Observation, std::less<>> observations_ ABSL_GUARDED_BY(mutex_);
  absl::Mutex replicas_mutex_;
  std::vector<store::Replica> replicas_ ABSL_GUARDED_BY(replicas_mutex_);
  absl::Time ask_replicas_at_ ABSL_GUARDED_BY(replicas_mutex_) = absl::InfinitePast();
  absl::Mutex work_mutex_;
  std::vector<store::WorkType> work_ ABSL_GUARDED_BY(work_mutex_);
  absl::Time list_work_at_ ABSL_GUARDED_BY(work_mutex_) = absl::InfinitePast();
  int64_t times_forgotten_ ABSL_GUARDED_BY(work_mutex_) = 0;
  absl::Mutex counts_mutex_;
  std::vector<store::JobCount> counts_ ABSL_GUARDED_BY(counts_mutex_);
  absl::Time count_at_ ABSL_GUARDED_BY(counts_mutex_) = absl::InfinitePast();
  absl::Mutex listeners_mutex_;
  int64_t last_listener_ ABSL_GUARDED_BY(listeners_mutex_) = 0;
  std::map<int64_t, std::function<void()>> listeners_ ABSL_GUARDED_BY(listeners_mutex_);
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_JOB_QUEUE_H_
