#include "jobs/replica_beat.h"

#include <utility>

#include "base/id.h"

namespace valuescope::jobs {

ReplicaBeat::ReplicaBeat(store::Store* store, std::function<store::Replica()> describe,
                         ReplicaBeatOptions options)
    : store_(store), describe_(std::move(describe)), options_(std::move(options)), id_(NewUuid()) {}

ReplicaBeat::~ReplicaBeat() { Stop(); }

void ReplicaBeat::Start() {
  thread_.emplace([this] { Run(); });
}

void ReplicaBeat::Notify() {
  absl::MutexLock lock(&mutex_);
  news_ = true;
}

void ReplicaBeat::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
  }
  if (!thread_) return;
  thread_->join();
  thread_.reset();
  // Whom this does not reach sees it go stale.
  const absl::Status removed = store_->RemoveReplica(id_);
  if (!removed.ok() && options_.on_error) options_.on_error(removed);
}

void ReplicaBeat::Run() {
  do {
    Tell();
  } while (WaitForNext());
}

void ReplicaBeat::Tell() {
  store::Replica replica = describe_();
  replica.id = id_;
  const absl::Status told = store_->PutReplica(replica);
  if (!told.ok() && options_.on_error) options_.on_error(told);
}

bool ReplicaBeat::WaitForNext() {
  const auto due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return news_ || stopped_; };
  // Nobody else is there to forget a server whose store is its own.
  const absl::Duration beat = store_->IsShared() ? options_.beat : absl::InfiniteDuration();
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&due), beat);
  news_ = false;
  return !stopped_;
}

}  // namespace valuescope::jobs
