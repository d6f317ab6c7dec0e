#include "jobs/job_queue.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::jobs {

JobQueue::JobQueue(store::Store* store, const Clock* clock) : store_(store), clock_(clock) {}

void JobQueue::SetKinds(std::vector<const JobKind*> kinds) { kinds_ = std::move(kinds); }

absl::StatusOr<JobSnapshot> JobQueue::Create(const store::NewJob& job,
                                             const store::IdempotencyKey& key) {
  VS_ASSIGN_OR_RETURN(store::Job created, store_->CreateJob(job, key));
  Announce(created.id);
  WakeWorkers();
  const uint64_t version = VersionOf(created.id);
  return Snapshot(version, std::move(created));
}

// The version is read before the job everywhere: a change in between is then seen twice, never
// missed.
absl::StatusOr<JobSnapshot> JobQueue::Get(absl::string_view tenant, absl::string_view id) {
  const uint64_t version = VersionOf(id);
  return Snapshot(version, store_->GetJob(tenant, id));
}

absl::StatusOr<store::JobPage> JobQueue::List(absl::string_view tenant,
                                              const store::JobFilter& filter,
                                              const store::Page& page) {
  return store_->ListJobs(tenant, filter, page);
}

absl::StatusOr<JobSnapshot> JobQueue::Cancel(absl::string_view tenant, absl::string_view id) {
  VS_RETURN_IF_ERROR(store_->RequestCancel(tenant, id).status());
  Announce(id);
  WakeWorkers();
  return Get(tenant, id);
}

absl::StatusOr<JobSnapshot> JobQueue::Retry(absl::string_view tenant, absl::string_view id,
                                            const store::IdempotencyKey& key) {
  VS_RETURN_IF_ERROR(store_->RetryJob(tenant, id, key).status());
  Announce(id);
  WakeWorkers();
  return Get(tenant, id);
}

absl::Status JobQueue::Delete(absl::string_view tenant, absl::string_view id) {
  VS_RETURN_IF_ERROR(store_->DeleteJob(tenant, id));
  Announce(id);
  return absl::OkStatus();
}

std::string JobQueue::WaitingFor(const store::Job& job) const {
  if (job.state != store::JobState::kQueued && job.state != store::JobState::kRunning) return "";
  const auto kind = std::find_if(kinds_.begin(), kinds_.end(), [&](const JobKind* candidate) {
    return candidate->Name() == job.kind;
  });
  if (kind == kinds_.end()) return "";
  return std::string((*kind)->Readiness(job.needs).message());
}

absl::StatusOr<JobSnapshot> JobQueue::WaitForChange(absl::string_view tenant, absl::string_view id,
                                                    uint64_t last_version, absl::Time deadline) {
  {
    absl::MutexLock lock(&mutex_);
    const auto changed = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      const auto version = versions_.find(id);
      return version != versions_.end() && version->second > last_version;
    };
    while (!stopped_ && !changed()) {
      if (changed_.WaitWithDeadline(&mutex_, deadline) && !stopped_ && !changed()) {
        return absl::DeadlineExceededError("the job did not change in time");
      }
    }
    if (stopped_) return absl::CancelledError("the server is draining");
  }
  return Get(tenant, id);
}

void JobQueue::StopWaiting() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
  changed_.SignalAll();
}

void JobQueue::Announce(absl::string_view job_id) {
  absl::MutexLock lock(&mutex_);
  versions_[std::string(job_id)] = ++last_version_;
  changed_.SignalAll();
}

void JobQueue::NeedsChanged() {
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [id, version] : versions_) version = ++last_version_;
    changed_.SignalAll();
  }
  WakeWorkers();
}

int64_t JobQueue::AddListener(std::function<void()> wake) {
  absl::MutexLock lock(&listeners_mutex_);
  listeners_[++last_listener_] = std::move(wake);
  return last_listener_;
}

void JobQueue::RemoveListener(int64_t id) {
  absl::MutexLock lock(&listeners_mutex_);
  listeners_.erase(id);
}

void JobQueue::WakeWorkers() {
  absl::MutexLock lock(&listeners_mutex_);
  for (const auto& [id, wake] : listeners_) wake();
}

uint64_t JobQueue::VersionOf(absl::string_view job_id) {
  absl::MutexLock lock(&mutex_);
  const auto version = versions_.find(job_id);
  return version == versions_.end() ? 0 : version->second;
}

absl::StatusOr<JobSnapshot> JobQueue::Snapshot(uint64_t version, absl::StatusOr<store::Job> job) {
  if (!job.ok()) return std::move(job).status();
  const std::optional<absl::Duration> eta = EstimateRemaining(*job);
  std::string waiting_for = WaitingFor(*job);
  return JobSnapshot{.job = *std::move(job),
                     .version = version,
                     .eta = eta,
                     .waiting_for = std::move(waiting_for)};
}

std::optional<absl::Duration> JobQueue::EstimateRemaining(const store::Job& job) {
  absl::MutexLock lock(&mutex_);
  if (job.state != store::JobState::kRunning) {
    observations_.erase(job.id);
    return std::nullopt;
  }
  const absl::Time now = clock_->Now();
  const auto [first, inserted] =
      observations_.try_emplace(job.id, Observation{.time = now, .work_done = job.work_done});
  const absl::Duration elapsed = now - first->second.time;
  const int64_t done = job.work_done - first->second.work_done;
  if (done <= 0 || elapsed <= absl::ZeroDuration()) return std::nullopt;
  return elapsed *
         (static_cast<double>(job.total_work - job.work_done) / static_cast<double>(done));
}

}  // namespace valuescope::jobs
