#include "jobs/job_queue.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::jobs {
namespace {

// Jobs whose speed is known at a time. Those that run are few.
constexpr size_t kMostObservations = 256;
// A list of jobs asks for every one of them.
constexpr absl::Duration kReplicasKept = absl::Seconds(1);
// Each lease asks for it, and it costs as much as one.
constexpr absl::Duration kWorkKept = absl::Seconds(1);

}  // namespace

JobWatcher::JobWatcher(JobQueue* queue, absl::string_view tenant, absl::string_view id,
                       std::function<void()> wake)
    : queue_(queue), tenant_(tenant), id_(id), wake_(std::move(wake)) {}

JobWatcher::~JobWatcher() { queue_->EndWatch(*this); }

absl::StatusOr<std::optional<JobSnapshot>> JobWatcher::TakeChange() {
  return queue_->TakeChange(*this);
}

JobQueue::JobQueue(store::Store* store, const Clock* clock) : store_(store), clock_(clock) {
  store_->Subscribe([this](const store::JobChange& change) { HearOthers(change); });
}

JobQueue::~JobQueue() { store_->Subscribe(nullptr); }

void JobQueue::SetKinds(std::vector<const JobKind*> kinds) { kinds_ = std::move(kinds); }

absl::StatusOr<JobSnapshot> JobQueue::Create(const store::NewJob& job,
                                             const store::IdempotencyKey& key) {
  VS_ASSIGN_OR_RETURN(store::Job created, store_->CreateJob(job, key));
  Announce(created.id);
  WakeWorkers();
  return Snapshot(std::move(created));
}

absl::StatusOr<JobSnapshot> JobQueue::Get(absl::string_view tenant, absl::string_view id) {
  return Snapshot(store_->GetJob(tenant, id));
}

absl::StatusOr<store::JobPage> JobQueue::List(absl::string_view tenant,
                                              const store::JobFilter& filter,
                                              const store::Page& page) {
  return store_->ListJobs(tenant, filter, page);
}

absl::StatusOr<JobSnapshot> JobQueue::Cancel(absl::string_view tenant, absl::string_view id) {
  VS_ASSIGN_OR_RETURN(const store::Job job, store_->RequestCancel(tenant, id));
  AnnounceWithParts(job);
  WakeWorkers();
  return Get(tenant, id);
}

absl::StatusOr<JobSnapshot> JobQueue::Retry(absl::string_view tenant, absl::string_view id,
                                            const store::IdempotencyKey& key) {
  VS_ASSIGN_OR_RETURN(const store::Job job, store_->RetryJob(tenant, id, key));
  AnnounceWithParts(job);
  WakeWorkers();
  return Get(tenant, id);
}

absl::Status JobQueue::Delete(absl::string_view tenant, absl::string_view id) {
  VS_RETURN_IF_ERROR(store_->DeleteJob(tenant, id));
  Announce(id);
  return absl::OkStatus();
}

absl::StatusOr<store::Job> JobQueue::StartChild(const store::Lease& lease, absl::string_view phase,
                                                const store::NewJob& job) {
  VS_ASSIGN_OR_RETURN(store::Job child, store_->StartChild(lease, phase, job));
  Announce(lease.job_id);
  WakeWorkers();
  return child;
}

absl::StatusOr<std::vector<store::Job>> JobQueue::ListChildren(absl::string_view tenant,
                                                               absl::string_view id) {
  std::vector<store::Job> children;
  store::Page page{.page_size = 1000, .page_token = ""};
  do {
    VS_ASSIGN_OR_RETURN(store::JobPage some,
                        store_->ListJobs(tenant, {.parent = std::string(id)}, page));
    children.insert(children.end(), std::make_move_iterator(some.jobs.begin()),
                    std::make_move_iterator(some.jobs.end()));
    page.page_token = some.next_page_token;
  } while (!page.page_token.empty());
  std::reverse(children.begin(), children.end());  // lists are newest first
  return children;
}

std::string JobQueue::WaitingFor(const store::Job& job) {
  if (job.state != store::JobState::kQueued && job.state != store::JobState::kRunning) return "";
  const auto kind = std::find_if(kinds_.begin(), kinds_.end(), [&](const JobKind* candidate) {
    return candidate->Name() == job.kind;
  });
  const absl::Status here =
      kind == kinds_.end()
          ? NotReady(absl::StrCat("this version of the server has no jobs of kind ", job.kind))
          : (*kind)->Readiness(job.needs);
  if (here.ok() || !store_->IsShared()) return std::string(here.message());
  const std::vector<store::Replica> replicas = Replicas();
  const bool elsewhere = absl::c_any_of(replicas, [&](const store::Replica& replica) {
    return store::CanRun(replica, job.kind, job.needs);
  });
  if (elsewhere) return "";
  return absl::StrCat(here.message(), "; none of the servers that share the store (",
                      replicas.size(), ") can run it");
}

std::vector<store::Replica> JobQueue::Replicas() {
  {
    absl::MutexLock lock(&replicas_mutex_);
    // One caller asks, so that a store that does not answer keeps nobody else waiting.
    if (clock_->Now() < ask_replicas_at_) return replicas_;
    ask_replicas_at_ = clock_->Now() + kReplicasKept;
  }
  absl::StatusOr<std::vector<store::Replica>> read = store_->ListReplicas();
  absl::MutexLock lock(&replicas_mutex_);
  // Where the store cannot tell, what it told last is as good as any.
  if (read.ok()) replicas_ = *std::move(read);
  return replicas_;
}

absl::StatusOr<std::vector<store::JobCount>> JobQueue::CountJobs() {
  constexpr int kPauses = 50;  // of what counting took, before it is done again
  // Who asks meanwhile waits for this count.
  absl::MutexLock lock(&counts_mutex_);
  const absl::Time began = Clock::Steady().Now();
  if (began < count_at_) return counts_;
  VS_ASSIGN_OR_RETURN(counts_, store_->CountJobs());
  const absl::Time counted = Clock::Steady().Now();
  count_at_ = counted + kPauses * (counted - began);
  return counts_;
}

std::unique_ptr<JobWatcher> JobQueue::Watch(absl::string_view tenant, absl::string_view id,
                                            std::function<void()> wake) {
  std::unique_ptr<JobWatcher> watcher(new JobWatcher(this, tenant, id, std::move(wake)));
  absl::MutexLock lock(&mutex_);
  watched_[watcher->id_].watchers.insert(watcher.get());
  return watcher;
}

void JobQueue::EndWatch(JobWatcher& watcher) {
  absl::MutexLock lock(&mutex_);
  const auto watched = watched_.find(watcher.id_);
  watched->second.watchers.erase(&watcher);
  if (watched->second.watchers.empty()) watched_.erase(watched);
}

absl::StatusOr<std::optional<JobSnapshot>> JobQueue::TakeChange(JobWatcher& watcher) {
  uint64_t changes;
  {
    absl::MutexLock lock(&mutex_);
    if (!std::exchange(watcher.changed_, false)) return std::nullopt;
    const Watched& watched = watched_.find(watcher.id_)->second;
    if (watched.snapshot && watched.snapshot->job.tenant == watcher.tenant_) {
      return watched.snapshot;
    }
    changes = watched.changes;
  }
  VS_ASSIGN_OR_RETURN(JobSnapshot snapshot, Get(watcher.tenant_, watcher.id_));
  // Megabytes that watchers know already, as many times as there are watchers.
  snapshot.job.request = snapshot.job.spec = std::string();
  absl::MutexLock lock(&mutex_);
  // A change in between has woken the watcher again, and is seen twice rather than missed.
  Watched& watched = watched_.find(watcher.id_)->second;
  if (watched.changes == changes) watched.snapshot = snapshot;
  return snapshot;
}

void JobQueue::Announce(absl::string_view job_id) {
  absl::MutexLock lock(&mutex_);
  const auto found = watched_.find(job_id);
  if (found != watched_.end()) TellWatchers(found->second);
}

void JobQueue::AnnounceWithParts(const store::Job& job) {
  Announce(job.id);
  if (job.num_parts == 0) return;
  const absl::StatusOr<std::vector<store::Job>> parts = ListChildren(job.tenant, job.id);
  if (!parts.ok()) return;
  for (const store::Job& part : *parts) Announce(part.id);
}

void JobQueue::TellWatchers(Watched& watched) {
  ++watched.changes;
  watched.snapshot.reset();
  for (JobWatcher* watcher : watched.watchers) {
    watcher->changed_ = true;
    watcher->wake_();
  }
}

void JobQueue::WakeAllWatchers() {
  absl::MutexLock lock(&mutex_);
  for (auto& [id, watched] : watched_) TellWatchers(watched);
}

void JobQueue::NeedsChanged() {
  WakeAllWatchers();
  WakeWorkers();
}

void JobQueue::HearOthers(const store::JobChange& change) {
  if (change.job_id.empty()) {
    ForgetReplicas();
    WakeAllWatchers();
  } else {
    Announce(change.job_id);
  }
  if (change.for_workers) WakeWorkers();
}

void JobQueue::ForgetReplicas() {
  absl::MutexLock lock(&replicas_mutex_);
  ask_replicas_at_ = absl::InfinitePast();
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

absl::StatusOr<std::vector<store::WorkType>> JobQueue::ListWork() {
  int64_t times_forgotten = 0;
  {
    absl::MutexLock lock(&work_mutex_);
    if (Clock::Steady().Now() < list_work_at_) return work_;
    times_forgotten = times_forgotten_;
  }
  VS_ASSIGN_OR_RETURN(std::vector<store::WorkType> work, store_->ListWork());
  absl::MutexLock lock(&work_mutex_);
  // What came while it was listed may not be in it.
  if (times_forgotten == times_forgotten_) {
    work_ = work;
    list_work_at_ = Clock::Steady().Now() + kWorkKept;
  }
  return work;
}

void JobQueue::ForgetWork() {
  absl::MutexLock lock(&work_mutex_);
  ++times_forgotten_;
  list_work_at_ = absl::InfinitePast();
}

void JobQueue::WakeWorkers() {
  ForgetWork();
  absl::MutexLock lock(&listeners_mutex_);
  for (const auto& [id, wake] : listeners_) wake();
}

absl::StatusOr<JobSnapshot> JobQueue::Snapshot(absl::StatusOr<store::Job> job) {
  if (!job.ok()) return std::move(job).status();
  const std::optional<absl::Duration> eta = EstimateRemaining(*job);
  std::string waiting_for = WaitingFor(*job);
  return JobSnapshot{.job = *std::move(job), .eta = eta, .waiting_for = std::move(waiting_for)};
}

std::optional<absl::Duration> JobQueue::EstimateRemaining(const store::Job& job) {
  absl::MutexLock lock(&mutex_);
  if (job.state != store::JobState::kRunning) {
    observations_.erase(job.id);
    return std::nullopt;
  }
  const Observation first = FirstObservationOf(job);
  const absl::Duration elapsed = clock_->Now() - first.time;
  const int64_t done = job.work_done - first.work_done;
  if (done <= 0 || elapsed <= absl::ZeroDuration()) return std::nullopt;
  return elapsed *
         (static_cast<double>(job.total_work - job.work_done) / static_cast<double>(done));
}

JobQueue::Observation JobQueue::FirstObservationOf(const store::Job& job) {
  const auto found = observations_.find(job.id);
  if (found != observations_.end()) return found->second;
  // Nobody tells of jobs that end while nobody looks.
  if (observations_.size() >= kMostObservations) {
    observations_.erase(std::min_element(
        observations_.begin(), observations_.end(),
        [](const auto& a, const auto& b) { return a.second.time < b.second.time; }));
  }
  const Observation first{.time = clock_->Now(), .work_done = job.work_done};
  observations_.emplace(job.id, first);
  return first;
}

}  // namespace valuescope::jobs
