// Who may join an engine's queue, so that nobody owns it: places are held by requests that run or
// wait, and the last ones are kept for those who have least.
//
//   a client's first request may take any place but those kept for other tenants
//   a client's further requests leave half of the queue to first ones
//   all requests of a tenant leave a quarter of the queue to other tenants
//   all requests leave an eighth of the queue to tenants with few: once only so much is left, a
//     tenant takes a place only where it holds less than an eighth of what is left
//
// A client is one call or one shard of a job. It goes on with what it has, and sends more when that
// ends.
#ifndef VALUESCOPE_ENGINE_QUEUE_SHARES_H_
#define VALUESCOPE_ENGINE_QUEUE_SHARES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/freed_places.h"

namespace valuescope::engine {

// Thread-safe.
class QueueShares {
 public:
  // Given back when destroyed; may outlive the shares.
  class Place;

  // `max_running` requests run at a time while `max_waiting` wait. `clock` outlives places too.
  QueueShares(int64_t max_running, int64_t max_waiting, const Clock* clock = &Clock::Steady());

  // Null where there is no place for a request of this client. Client 0 is many, each with one
  // request. `share`: the most of all places that the tenant may have, > 0 to 1, and one at least.
  std::shared_ptr<const Place> Take(const std::string& tenant, uint64_t client, double share = 1);

  // How long it takes until a place is given back, going by the last ones: 1 s to 60 s.
  absl::Duration UntilOneIsFree() const;

 private:
  struct State {
    absl::Mutex mutex;
    const Clock* clock = nullptr;
    FreedPlaces freed ABSL_GUARDED_BY(mutex);
    int64_t held ABSL_GUARDED_BY(mutex) = 0;
    std::map<std::string, int64_t> by_tenant ABSL_GUARDED_BY(mutex);  // none is 0
    std::map<uint64_t, int64_t> by_client ABSL_GUARDED_BY(mutex);     // none is 0
  };

  const int64_t most_further_;
  const int64_t most_of_a_tenant_;
  const int64_t last_places_;  // those for tenants with few
  const int64_t places_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_QUEUE_SHARES_H_
