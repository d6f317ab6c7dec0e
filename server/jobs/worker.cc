// Long because the life of a leased step is in one place: taken, kept alive, run, committed, given
// back, and ended with the server.
#include "jobs/worker.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/cancellation.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/failpoint.h"
#include "base/status_macros.h"
#include "base/steady_condition.h"
#include "base/thread_cancellation.h"
#include "jobs/blob_sweep.h"
#include "jobs/stored_partial.h"

namespace valuescope::jobs {
namespace {

// Leases, beats and pauses are lengths of time, whatever is done to the system's clock.
absl::Time SteadyNow() { return Clock::Steady().Now(); }

bool IsUserError(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return true;
    default:
      return DetailsOf(status).reason == store::kStorageQuota;
  }
}

// Others hold what the step needs, and let go of it by themselves.
bool IsBusy(const absl::Status& status) { return DetailsOf(status).retry_after.has_value(); }

bool IsLeaseLost(const absl::Status& status) { return DetailsOf(status).reason == "LEASE_LOST"; }

store::Resource MakeArtifact(const std::string& job_id, ArtifactDraft draft) {
  std::string role = draft.role;
  const std::string name = draft.part.empty() ? role : absl::StrCat(role, "-", draft.part);
  store::Resource artifact = ResourceOf(std::move(draft), absl::StrCat(job_id, ".", name));
  artifact.job_id = job_id;
  artifact.role = std::move(role);
  return artifact;
}

}  // namespace

class Worker::Impl {
 public:
  Impl(JobQueue* queue, store::BlobStore* blobs, std::vector<JobKind*> kinds, WorkerOptions options)
      : queue_(queue),
        blobs_(blobs),
        kinds_(std::move(kinds)),
        options_(std::move(options)),
        blob_sweep_(&queue->store(), blobs,
                    {.grace = options_.orphan_grace,
                     .sweep = options_.sweep,
                     .scan = options_.scan,
                     .blobs_a_scan = options_.blobs_a_scan,
                     .on_removed = options_.observer.on_blob_removed,
                     .on_error = options_.observer.on_store_error}) {}

  void Start() {
    VS_CHECK(!listener_.has_value());
    listener_ = queue_->AddListener([this] { Notify(); });
    run_thread_ = std::thread([this] { Run(); });
    keep_thread_ = std::thread([this] { Keep(); });
    if (options_.sweeps) blob_sweep_.Start();
  }

  void Notify() {
    absl::MutexLock lock(&mutex_);
    ++notifications_;
    changed_.SignalAll();
  }

  void BeginDrain() {
    blob_sweep_.BeginStop();
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    if (active_) Stop(*active_);
    changed_.SignalAll();
  }

  bool Drain(absl::Time deadline) {
    BeginDrain();
    if (!listener_) return true;
    // The lease is kept alive until the shard has returned.
    if (!run_ended_.WaitForNotificationWithDeadline(deadline)) return false;
    if (run_thread_.joinable()) run_thread_.join();
    {
      absl::MutexLock lock(&mutex_);
      ended_ = true;
      changed_.SignalAll();
    }
    if (keep_thread_.joinable()) keep_thread_.join();
    queue_->RemoveListener(*listener_);
    return blob_sweep_.Stop(deadline - absl::Now());
  }

 private:
  // The step being run, as the keeping thread sees it.
  struct Active {
    store::Lease lease;  // what names it: job, shard, token
    Cancellation cancellation;
    absl::Time safe_until;     // the lease cannot have run out before
    bool uncommitted = false;  // it has come further than what is committed
    bool stopping = false;
    absl::Time cancel_at = absl::InfiniteFuture();
  };

  // --- The thread that works ---

  void Run() {
    while (const std::optional<uint64_t> seen = NotificationsUnlessDraining()) {
      bool worked = false;
      Guarded([&] { worked = Step(*seen); });
      if (!worked) WaitForNotification(*seen, SteadyNow() + options_.poll);
    }
    run_ended_.Notify();
  }

  std::optional<uint64_t> NotificationsUnlessDraining() {
    absl::MutexLock lock(&mutex_);
    if (draining_) return std::nullopt;
    return notifications_;
  }

  // Where memory ran out, the server goes on. A lease that was being settled runs out by itself.
  template <typename Work>
  void Guarded(Work work) {
    try {
      work();
    } catch (const std::exception&) {
      ReportStoreError(ErrorWithReason(absl::StatusCode::kInternal, "WORKER_THREW",
                                       "a worker's look for work ended with an exception"));
    }
  }

  // False where there is nothing to do, or nothing can be done for now.
  bool Step(uint64_t seen) {
    absl::StatusOr<std::optional<store::Lease>> lease = TakeLease();
    if (!lease.ok()) ReportStoreError(lease.status());
    if (!lease.ok() || !lease->has_value()) return false;
    VS_FAILPOINT("leased");
    const absl::Cleanup deactivate = [this] { Deactivate(); };
    return !IsBusy(RunStep(**std::move(lease), seen));
  }

  absl::StatusOr<std::optional<store::Lease>> TakeLease() {
    const store::Lease last = std::exchange(last_, {});
    VS_ASSIGN_OR_RETURN(store::LeaseRequest request, RequestForReady());
    if (request.can_run.empty()) return std::nullopt;
    request.known_job = last.job_id;
    VS_ASSIGN_OR_RETURN(std::optional<store::Lease> lease, queue_->store().LeaseWork(request));
    if (!lease) queue_->ForgetWork();
    if (lease && lease->job_id == last.job_id) lease->spec = last.spec;
    return lease;
  }

  // For what can be run here and now.
  absl::StatusOr<store::LeaseRequest> RequestForReady() {
    VS_ASSIGN_OR_RETURN(std::vector<store::WorkType> work, queue_->ListWork());
    std::erase_if(work, [this](const store::WorkType& type) {
      const JobKind* kind = FindKind(type.kind);
      return kind == nullptr || !kind->Readiness(type.needs).ok();
    });
    return store::LeaseRequest{.can_run = std::move(work), .duration = options_.lease};
  }

  bool OthersWait(const store::Lease& lease) {
    const absl::StatusOr<store::LeaseRequest> request = RequestForReady();
    if (!request.ok()) {
      ReportStoreError(request.status());
      return false;
    }
    const absl::StatusOr<bool> wait = queue_->store().OthersWait(lease, *request);
    if (!wait.ok()) ReportStoreError(wait.status());
    return wait.ok() && *wait;
  }

  void WaitForNotification(uint64_t seen, absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    while (notifications_ == seen && !draining_) {
      if (changed_.WaitWithDeadline(&mutex_, deadline)) return;
    }
  }

  absl::Status RunStep(store::Lease taken, uint64_t seen) {
    TimedLease lease(std::move(taken), options_.turns.clock);
    const std::string job_id = lease.lease().job_id;
    const absl::Time start = SteadyNow();
    queue_->Announce(job_id);
    const Cancellation cancellation = Activate(lease.lease(), seen);
    const absl::Status status =
        RestartIfDamaged(queue_->store(), lease.lease(), RunSafely(lease, cancellation));
    Deactivate();
    if (!status.ok()) Settle(lease, cancellation, status);
    queue_->Announce(job_id);
    // It may have ended with its part.
    if (!lease.lease().parent_id.empty()) queue_->Announce(lease.lease().parent_id);
    if (options_.observer.on_step) {
      options_.observer.on_step(lease.lease(), SteadyNow() - start, status);
    }
    last_ = std::move(lease).Take();
    return status;
  }

  // A kind that throws (memory, a library) fails its shard and not the server.
  absl::Status RunSafely(TimedLease& lease, const Cancellation& cancellation) {
    const ThreadCancellation as_the_step(cancellation);
    try {
      return lease.lease().is_merge() ? RunMerge(lease, cancellation)
                                      : RunShard(lease, cancellation);
    } catch (const std::exception&) {
      return ErrorWithReason(absl::StatusCode::kInternal, "SHARD_THREW",
                             "the work on a shard ended with an exception");
    }
  }

  absl::Status RunShard(TimedLease& timed, const Cancellation& cancellation) {
    const store::Lease& lease = timed.lease();
    store::ShardProgress progress;
    if (lease.begun) {
      VS_ASSIGN_OR_RETURN(progress, ReadShard(queue_->store(), *blobs_, lease, lease.shard));
    }
    LeasedShard shard(
        queue_, blobs_, &timed, std::move(progress), cancellation, options_.turns,
        {.stops = [this](bool uncommitted) { return Stops(uncommitted); },
         .others_wait = [this](const store::Lease& charged) { return OthersWait(charged); }});
    VS_ASSIGN_OR_RETURN(ShardResult result, KindOf(lease).RunShard(shard));
    return shard.Complete(std::move(result));
  }

  absl::Status RunMerge(TimedLease& timed, const Cancellation& cancellation) {
    const store::Lease& lease = timed.lease();
    const auto partial = [&](int64_t shard) -> absl::StatusOr<std::string> {
      VS_FAILPOINT("merging");
      VS_ASSIGN_OR_RETURN(store::ShardProgress progress,
                          ReadShard(queue_->store(), *blobs_, lease, shard));
      return std::move(progress.partial);
    };
    VS_ASSIGN_OR_RETURN(JobResult result, KindOf(lease).Merge({.tenant = lease.tenant,
                                                               .spec = lease.spec,
                                                               .num_shards = lease.num_shards,
                                                               .partial = partial,
                                                               .blobs = *blobs_,
                                                               .cancellation = cancellation}));
    VS_FAILPOINT("artifacts_written");
    std::vector<store::Resource> resources = std::move(result.resources);
    for (ArtifactDraft& draft : result.artifacts) {
      resources.push_back(MakeArtifact(lease.job_id, std::move(draft)));
    }
    VS_RETURN_IF_ERROR(timed.Charge([&](const store::Lease& charged) {
      return queue_->store().CompleteJob(charged, result.summary, resources);
    }));
    VS_FAILPOINT("job_succeeded");
    return absl::OkStatus();
  }

  // Tells the store how a step that did not succeed ended.
  void Settle(TimedLease& lease, const Cancellation& cancellation, const absl::Status& status) {
    if (IsPartialLost(status)) ReportStoreError(status);
    // A merge is not to blame for a shard that is lost, which counts its restarts itself.
    const bool blameless = cancellation.cancelled() || IsLeaseLost(status) || IsTurnOver(status) ||
                           IsNotReady(status) || IsBusy(status) ||
                           (lease.lease().is_merge() && IsPartialLost(status));
    const auto release = [this](const store::Lease& charged) {
      return queue_->store().ReleaseLease(charged);
    };
    absl::Status settled = lease.Charge([&](const store::Lease& charged) {
      if (blameless) return release(charged);
      if (IsUserError(status)) return queue_->store().FailJob(charged, status);
      return queue_->store().FailShard(charged, status);
    });
    // The job was asked to stop, or the lease ran out, while the shard failed.
    if (IsLeaseLost(settled)) settled = lease.Charge(release);
    // A lease that could not be given back runs out by itself.
    if (!settled.ok()) ReportStoreError(settled);
  }

  // `seen`: the notifications before the lease was taken.
  Cancellation Activate(const store::Lease& lease, uint64_t seen) {
    absl::MutexLock lock(&mutex_);
    active_.emplace();
    active_->lease.job_id = lease.job_id;
    active_->lease.shard = lease.shard;
    active_->lease.token = lease.token;
    active_->safe_until = SteadyNow() + options_.lease;
    if (draining_) Stop(*active_);
    // A cancel that came between the lease and now found no active step: look again.
    if (notifications_ != seen) {
      ++notifications_;
      changed_.SignalAll();
    }
    return active_->cancellation;
  }

  // What is not committed may still be: its shard comes to a checkpoint soon, or is cancelled.
  void Stop(Active& active) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (active.stopping) return;
    active.stopping = true;
    if (!active.uncommitted) return active.cancellation.Cancel();
    active.cancel_at = SteadyNow() + options_.turns.commit_interval;
    changed_.SignalAll();
  }

  // See ShardHost.
  bool Stops(bool uncommitted) {
    absl::MutexLock lock(&mutex_);
    if (!active_) return true;
    active_->uncommitted = uncommitted;
    if (active_->stopping && !uncommitted) active_->cancellation.Cancel();
    return active_->stopping;
  }

  void Deactivate() {
    absl::MutexLock lock(&mutex_);
    active_.reset();
  }

  JobKind* FindKind(absl::string_view name) const {
    const auto kind = std::find_if(kinds_.begin(), kinds_.end(), [&](const JobKind* candidate) {
      return candidate->Name() == name;
    });
    return kind == kinds_.end() ? nullptr : *kind;
  }

  JobKind& KindOf(const store::Lease& lease) const {
    JobKind* kind = FindKind(lease.kind);
    VS_CHECK(kind != nullptr);
    return *kind;
  }

  // --- The thread that keeps the lease and sweeps ---

  void Keep() {
    absl::Time next_sweep = options_.sweeps ? absl::InfinitePast() : absl::InfiniteFuture();
    absl::Time next_beat = SteadyNow() + options_.beat;
    uint64_t seen = 0;
    while (true) {
      if (SteadyNow() >= next_sweep) {
        Guarded([this] { Sweep(); });
        next_sweep = SteadyNow() + options_.sweep;
      }
      bool notified = false;
      {
        absl::MutexLock lock(&mutex_);
        while (notifications_ == seen && !ended_) {
          const absl::Time deadline = std::min({next_sweep, next_beat, CancelAt()});
          if (changed_.WaitWithDeadline(&mutex_, deadline)) break;
        }
        if (ended_) return;
        if (SteadyNow() >= CancelAt()) active_->cancellation.Cancel();
        notified = notifications_ != seen;
        seen = notifications_;
      }
      if (notified || SteadyNow() >= next_beat) {
        Guarded([this] { Beat(); });
        next_beat = SteadyNow() + options_.beat;
      }
    }
  }

  // When a shard that is to stop and did not come to a checkpoint is cancelled.
  absl::Time CancelAt() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!active_ || active_->cancellation.cancelled()) return absl::InfiniteFuture();
    return active_->cancel_at;
  }

  // Extends the lease of the running step. The fence tells at the same time whether the job is to
  // stop.
  void Beat() {
    std::optional<Active> active;
    {
      absl::MutexLock lock(&mutex_);
      active = active_;
    }
    if (!active) return;
    const absl::Time asked_at = SteadyNow();
    const absl::Status status = queue_->store().ExtendLease(active->lease, options_.lease);
    if (status.ok()) {
      absl::MutexLock lock(&mutex_);
      if (active_ && active_->lease.token == active->lease.token) {
        active_->safe_until = asked_at + options_.lease;
      }
      return;
    }
    if (IsLeaseLost(status) || SteadyNow() >= active->safe_until) {
      absl::MutexLock lock(&mutex_);
      if (active_ && active_->lease.token == active->lease.token) Stop(*active_);
    }
    if (!IsLeaseLost(status)) ReportStoreError(status);
  }

  void Sweep() {
    const absl::StatusOr<std::vector<std::string>> changed = queue_->store().Sweep();
    if (!changed.ok()) return ReportStoreError(changed.status());
    for (const std::string& job_id : *changed) queue_->Announce(job_id);
    if (!changed->empty()) Notify();
  }

  void ReportStoreError(const absl::Status& status) {
    if (options_.observer.on_store_error) options_.observer.on_store_error(status);
  }

  JobQueue* const queue_;
  store::BlobStore* const blobs_;
  const std::vector<JobKind*> kinds_;
  const WorkerOptions options_;
  BlobSweep blob_sweep_;
  std::optional<int64_t> listener_;  // set once started
  store::Lease last_;  // of the working thread: the one that ended just now, for its spec
  absl::Notification run_ended_;

  absl::Mutex mutex_;
  SteadyCondition changed_;
  uint64_t notifications_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;  // no new steps
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;     // the working thread has returned
  std::optional<Active> active_ ABSL_GUARDED_BY(mutex_);

  std::thread run_thread_;
  std::thread keep_thread_;
};

Worker::Worker(JobQueue* queue, store::BlobStore* blobs, std::vector<JobKind*> kinds,
               WorkerOptions options)
    : impl_(std::make_unique<Impl>(queue, blobs, std::move(kinds), std::move(options))) {}

Worker::~Worker() { Drain(); }

void Worker::Start() { impl_->Start(); }

void Worker::Notify() { impl_->Notify(); }

void Worker::BeginDrain() { impl_->BeginDrain(); }

bool Worker::Drain(absl::Time deadline) { return impl_->Drain(deadline); }

}  // namespace valuescope::jobs
