// What each tenant may have of a server that several share. An operator sets it; see --tenants.
#ifndef VALUESCOPE_BASE_TENANT_POLICY_H_
#define VALUESCOPE_BASE_TENANT_POLICY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/strings/string_view.h"

namespace valuescope {

struct TenantPolicy {
  // Of the time of workers, tenants with work to do get parts in proportion to their weights, > 0.
  double weight = 1;
  int64_t max_running = 0;       // shards and merges of jobs that run at a time; 0: no bound
  int64_t max_queued = 10'000;   // jobs that have not begun; 0: no bound
  int64_t max_stored_bytes = 0;  // of vectors, neuron sets and artifacts; 0: no bound

  bool operator==(const TenantPolicy&) const = default;
};

struct TenantPolicies {
  TenantPolicy others;  // of every tenant that is not named
  std::map<std::string, TenantPolicy, std::less<>> named;

  const TenantPolicy& Of(absl::string_view tenant) const {
    const auto found = named.find(tenant);
    return found == named.end() ? others : found->second;
  }
};

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_TENANT_POLICY_H_
