// The heartbeat of a server among those that share its store: what it has to tell is stored when it
// changes and, where others listen, again before it goes stale, so that each knows which jobs the
// others can run.
#ifndef VALUESCOPE_JOBS_REPLICA_BEAT_H_
#define VALUESCOPE_JOBS_REPLICA_BEAT_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/recurring.h"
#include "store/store.h"

namespace valuescope::jobs {

struct ReplicaBeatOptions {
  absl::Duration beat = store::kReplicaSilence / 3;
  // Of a store that could not be told, which is tried again at the next beat. May be empty; must
  // not block.
  std::function<void(const absl::Status& status)> on_error;
};

class ReplicaBeat {
 public:
  // `describe` gives what there is to tell now, but for what the store sets and the id.
  ReplicaBeat(store::Store* store, std::function<store::Replica()> describe,
              ReplicaBeatOptions options = {});
  // Stops.
  ~ReplicaBeat();
  ReplicaBeat(const ReplicaBeat&) = delete;
  ReplicaBeat& operator=(const ReplicaBeat&) = delete;

  // Tells at once, in a thread of its own. Call once.
  void Start();
  // There may be something new to tell.
  void Notify() { telling_.Wake(); }
  // Takes the server out of the others' sight. Idempotent.
  void Stop();

  const std::string& id() const { return id_; }

 private:
  void Tell();

  store::Store* const store_;
  const std::function<store::Replica()> describe_;
  const ReplicaBeatOptions options_;
  const std::string id_;
  bool started_ = false;
  Recurring telling_;
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_REPLICA_BEAT_H_
