// What workers do to jobs: take a step, say that they still work on it, commit how far it is, and
// give it back or end it. Whatever they write is fenced by the lease's token. What each function
// does is told in store/store.h.
#ifndef VALUESCOPE_STORE_LEASE_ROWS_H_
#define VALUESCOPE_STORE_LEASE_ROWS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/tenant_policy.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

// The row of a job and how far it and the leased step are, for a lease that still holds.
struct HeldStep {
  int64_t job = 0;
  int64_t failures = 0;
  int64_t work_done = 0;
  int64_t shards_left = 0;  // of the job that are not done
  bool has_blob = false;    // its partial is one
};

inline constexpr char kRunning[] = "(2)", kRunningOrCancelling[] = "(2, 3)";

// The fence: ABORTED unless the lease's token still stands in its step and the job's state is one
// of `states`. `lock`: of both rows; empty where nothing is going to be written.
absl::StatusOr<HeldStep> CheckLease(SqlTransaction& transaction, const Lease& lease,
                                    absl::string_view states = kRunning,
                                    absl::string_view lock = " FOR UPDATE OF j, s");

// Without its spec.
std::optional<Lease> LeaseWork(SqlTransaction& transaction, const LeaseRequest& request,
                               const TenantPolicies& tenants);
// nullopt where the job is gone.
std::optional<std::string> ReadSpec(SqlTransaction& transaction, absl::string_view job_id);
absl::StatusOr<ShardProgress> ReadProgress(SqlTransaction& transaction, const Lease& lease,
                                           int64_t shard);
absl::Status ExtendLease(SqlTransaction& transaction, const Lease& lease, absl::Duration duration);
absl::Status RestartShard(SqlTransaction& transaction, const Lease& lease, int64_t shard,
                          absl::string_view lost, const absl::Status& cause,
                          const RetryPolicy& policy);
absl::Status CommitProgress(SqlTransaction& transaction, const Lease& lease,
                            const ShardProgress& progress, bool done,
                            const TenantPolicies& tenants);
absl::Status CompleteJob(SqlTransaction& transaction, const Lease& merge, absl::string_view summary,
                         const std::vector<Resource>& resources, const TenantPolicies& tenants);
absl::Status FailJob(SqlTransaction& transaction, const Lease& lease, const absl::Status& error,
                     const TenantPolicies& tenants);
absl::Status FailShard(SqlTransaction& transaction, const Lease& lease, const absl::Status& error,
                       const RetryPolicy& policy, const TenantPolicies& tenants);
absl::Status ReleaseLease(SqlTransaction& transaction, const Lease& lease,
                          const TenantPolicies& tenants);

// Takes back the leases that expire at or before `expired_by`; ids of the jobs that changed.
std::vector<std::string> TakeBackLeases(SqlTransaction& transaction, absl::Time expired_by,
                                        const RetryPolicy& policy);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_LEASE_ROWS_H_
