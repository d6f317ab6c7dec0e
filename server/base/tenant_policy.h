// What each tenant may have of a server that several share. An operator sets it, also while the
// server runs; see --tenants and --tenants_file.
#ifndef VALUESCOPE_BASE_TENANT_POLICY_H_
#define VALUESCOPE_BASE_TENANT_POLICY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace valuescope {

struct TenantPolicy {
  // Of the time of workers and of the tokens that engines run, tenants with work to do get parts in
  // proportion to their weights, > 0.
  double weight = 1;
  int64_t max_running = 0;        // shards and merges of jobs that run at a time; 0: no bound
  int64_t max_queued = 10'000;    // jobs that have not begun; 0: no bound
  int64_t max_stored_bytes = 0;   // of vectors, neuron sets and artifacts; 0: no bound
  int64_t max_calls = 0;          // that run at a time, but for those that watch; 0: no bound
  int64_t tokens_per_minute = 0;  // of prompts and answers of calls; 0: no bound
  double queue_share = 1;         // most of an engine's queue that its requests have, > 0 to 1
  double cache_share = 1;         // most of its key/value cache that those that run have, > 0 to 1

  bool operator==(const TenantPolicy&) const = default;
};

struct TenantPolicies {
  TenantPolicy others;  // of every tenant that is not named
  std::map<std::string, TenantPolicy, std::less<>> named;

  const TenantPolicy& Of(absl::string_view tenant) const {
    const auto found = named.find(tenant);
    return found == named.end() ? others : found->second;
  }
  bool operator==(const TenantPolicies&) const = default;
};

// The policies that are in force, for all who ask while they may change. Thread-safe.
class TenantPolicySource {
 public:
  explicit TenantPolicySource(TenantPolicies policies = {}) { Set(std::move(policies)); }
  TenantPolicySource(const TenantPolicySource&) = delete;
  TenantPolicySource& operator=(const TenantPolicySource&) = delete;

  // Those of now, for who asks for several things that belong together.
  std::shared_ptr<const TenantPolicies> Now() const {
    absl::MutexLock lock(&mutex_);
    return policies_;
  }
  TenantPolicy Of(absl::string_view tenant) const { return Now()->Of(tenant); }

  void Set(TenantPolicies policies) {
    auto set = std::make_shared<const TenantPolicies>(std::move(policies));
    absl::MutexLock lock(&mutex_);
    policies_ = std::move(set);
  }

 private:
  mutable absl::Mutex mutex_;
  std::shared_ptr<const TenantPolicies> policies_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_TENANT_POLICY_H_
