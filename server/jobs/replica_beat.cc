#include "jobs/replica_beat.h"

#include <utility>

#include "base/id.h"

namespace valuescope::jobs {

ReplicaBeat::ReplicaBeat(store::Store* store, std::function<store::Replica()> describe,
                         ReplicaBeatOptions options)
    : store_(store),
      describe_(std::move(describe)),
      options_(std::move(options)),
      id_(NewUuid()),
      telling_([this] {
        Tell();
        // Nobody else is there to forget a server whose store is its own.
        return store_->IsShared() ? options_.beat : absl::InfiniteDuration();
      }) {}

ReplicaBeat::~ReplicaBeat() { Stop(); }

void ReplicaBeat::Start() {
  started_ = true;
  telling_.Start();
}

void ReplicaBeat::Stop() {
  if (!std::exchange(started_, false)) return;
  telling_.Stop();
  // Whom this does not reach sees it go stale.
  const absl::Status removed = store_->RemoveReplica(id_);
  if (!removed.ok() && options_.on_error) options_.on_error(removed);
}

void ReplicaBeat::Tell() {
  store::Replica replica = describe_();
  replica.id = id_;
  const absl::Status told = store_->PutReplica(replica);
  if (!told.ok() && options_.on_error) options_.on_error(told);
}

}  // namespace valuescope::jobs
