#include "engine/queue_shares.h"

#include <utility>

#include "base/last_places.h"

namespace valuescope::engine {
namespace {

template <typename Key>
int64_t CountOf(const std::map<Key, int64_t>& counts, const Key& key) {
  const auto found = counts.find(key);
  return found == counts.end() ? 0 : found->second;
}

template <typename Key>
void GiveBack(std::map<Key, int64_t>& counts, const Key& key) {
  const auto found = counts.find(key);
  if (--found->second == 0) counts.erase(found);
}

}  // namespace

class QueueShares::Place {
 public:
  Place(std::shared_ptr<State> state, std::string tenant, uint64_t client)
      : state_(std::move(state)), tenant_(std::move(tenant)), client_(client) {}
  ~Place() {
    absl::MutexLock lock(&state_->mutex);
    if (--state_->held > 0) state_->freed.Freed(state_->clock->Now());
    GiveBack(state_->by_tenant, tenant_);
    if (client_ != 0) GiveBack(state_->by_client, client_);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  const std::shared_ptr<State> state_;
  const std::string tenant_;
  const uint64_t client_;
};

QueueShares::QueueShares(int64_t max_running, int64_t max_waiting, const Clock* clock)
    : most_further_(max_running + max_waiting - max_waiting / 2),
      most_of_a_tenant_(max_running + max_waiting - max_waiting / 4),
      last_places_(max_waiting / kTenantsWithFew),
      places_(max_running + max_waiting) {
  state_->clock = clock;
}

std::shared_ptr<const QueueShares::Place> QueueShares::Take(const std::string& tenant,
                                                            uint64_t client, double share) {
  absl::MutexLock lock(&state_->mutex);
  const bool is_first = client == 0 || CountOf(state_->by_client, client) == 0;
  if (!is_first && state_->held >= most_further_) return nullptr;
  const int64_t of_tenant = CountOf(state_->by_tenant, tenant);
  if (of_tenant >= most_of_a_tenant_) return nullptr;
  if (of_tenant > 0 && static_cast<double>(of_tenant + 1) > share * static_cast<double>(places_)) {
    return nullptr;
  }
  if (!MayTakePlace(of_tenant, places_ - state_->held, last_places_)) return nullptr;
  if (state_->held++ == 0) state_->freed.Begin(state_->clock->Now());
  ++state_->by_tenant[tenant];
  if (client != 0) ++state_->by_client[client];
  return std::make_shared<const Place>(state_, tenant, client);
}

absl::Duration QueueShares::UntilOneIsFree() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->freed.UntilNext(state_->clock->Now());
}

}  // namespace valuescope::engine
