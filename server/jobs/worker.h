// A worker: leases a shard of what can be run here (JobKind::Readiness), runs it, commits, takes
// the next; merges a job whose shards are done. A second thread keeps the lease alive, sees that a
// job is to be stopped, and sweeps up leases of workers that died. Blobs that nobody names are
// swept up by a third (jobs/blob_sweep.h). Several workers may share a queue, one of which sweeps.
//
// Whose fault an error is decides what happens. INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION,
// OUT_OF_RANGE and UNIMPLEMENTED come from the request and fail the job at once, and so does a
// result for which its tenant may not store as much. Whatever a shard
// returns after its cancellation was raised, after its turn was over, or after its lease was lost,
// gives it back without blame, and so do NotReady and errors that say when to try again. Everything
// else, exceptions too, is the machinery's fault, and the shard is tried again as often as the
// store allows.
#ifndef VALUESCOPE_JOBS_WORKER_H_
#define VALUESCOPE_JOBS_WORKER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "jobs/job_kind.h"
#include "jobs/job_queue.h"
#include "jobs/leased_shard.h"
#include "store/blob_store.h"

namespace valuescope::jobs {

// Seen by metrics and logs; every function may be empty, none may block.
struct WorkerObserver {
  // A shard (or store::kMergeStep) ended; `status` OK, or why not.
  std::function<void(const store::Lease& lease, absl::Duration duration,
                     const absl::Status& status)>
      on_step;
  // Bytes that nothing names were removed.
  std::function<void()> on_blob_removed;
  // The store, or memory, failed outside a shard (polling, sweeping).
  std::function<void(const absl::Status& status)> on_store_error;
};

struct WorkerOptions {
  absl::Duration lease = absl::Seconds(30);      // longer than beat
  absl::Duration beat = absl::Seconds(10);       // between extensions of the lease
  absl::Duration sweep = absl::Seconds(5);       // between sweeps
  absl::Duration poll = absl::Seconds(1);        // between looks for work of other processes
  absl::Duration orphan_grace = absl::Hours(1);  // age at which blobs nobody names are removed
  absl::Duration scan = absl::Minutes(1);        // between scans for such blobs
  int64_t blobs_a_scan = 1000;                   // looked at in one
  bool sweeps = true;                            // looks for leases that ran out, and for blobs
  TurnRules turns;                               // of a shard
  WorkerObserver observer;
};

class Worker {
 public:
  // `queue`, `blobs` and `kinds` outlive the worker. Names of kinds are unique.
  Worker(JobQueue* queue, store::BlobStore* blobs, std::vector<JobKind*> kinds,
         WorkerOptions options = {});
  // Drains.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Starts the threads. Call once.
  void Start();

  // Looks for work, and for cancellations, now. JobQueue calls it on its own changes.
  void Notify();

  // Takes no new work and stops the running shard, without waiting for it. One that has something
  // to commit comes to its next checkpoint first, where it does so within a commit interval.
  void BeginDrain();

  // The same, and waits until the shard has returned and its lease is given back, and ends the
  // threads. False where that takes longer than until `deadline`: it goes on, and its lease is
  // kept; ask again, or end the process, whose lease is taken back at the next start, or when it
  // has run out. The destructor waits without a deadline. Idempotent.
  bool Drain(absl::Time deadline = absl::InfiniteFuture());

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_WORKER_H_
