// What each tenant has had and holds: worker time, turns, queued jobs, stored bytes. Functions work
// inside the caller's transaction and throw what the database throws. They lock the tenant's row,
// which a transaction does last.
#ifndef VALUESCOPE_STORE_TENANT_ROWS_H_
#define VALUESCOPE_STORE_TENANT_ROWS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/tenant_policy.h"
#include "store/fair_turns.h"
#include "store/sql_database.h"

namespace valuescope::store {

// Does nothing for one that is there.
void AddTenant(SqlTransaction& transaction, absl::string_view tenant);

// --- Worker time ---

// The columns of a tenant t that ReadShare reads, from `first_column` on. Leases are few, there are
// as many as workers; the tenants of their jobs are looked up one by one, so that no planner comes
// upon going through the jobs instead.
#define SHARE_COLUMNS                                                            \
  "t.virtual_time, t.last_turn, (SELECT count(*) FROM steps s WHERE s.state = 1" \
  " AND (SELECT o.tenant FROM jobs o WHERE o.sequence = s.job) = t.tenant)"

Share ReadShare(SqlRows& row, int first_column, double weight);

// Where the tenant that was served last had started.
absl::Duration ServedFrom(SqlTransaction& transaction);

// True where the tenant runs as much as it may, which does not change before the transaction ends.
bool IsAtItsBound(SqlTransaction& transaction, absl::string_view tenant,
                  const TenantPolicies& tenants);

// The tenant is served; `start`: see StartOf.
void TakeTurn(SqlTransaction& transaction, absl::string_view tenant, absl::Duration start);

// Adds worker time to what the tenant has had, and to what it used.
void Charge(SqlTransaction& transaction, absl::string_view tenant, absl::Duration worked,
            const TenantPolicies& tenants);

// --- What it holds ---

// After a job was queued. RESOURCE_EXHAUSTED with a retry delay, reason QUEUE_FULL, where the
// tenant has more of them than it may.
absl::Status CheckQueuedJobs(SqlTransaction& transaction, absl::string_view tenant,
                             const TenantPolicies& tenants);

// After a resource was stored. RESOURCE_EXHAUSTED, reason STORAGE_QUOTA, where the tenant may not
// have as much, naming what takes the most.
absl::Status AddStoredBytes(SqlTransaction& transaction, absl::string_view tenant, int64_t bytes,
                            const TenantPolicies& tenants);
// Before: the same error where so many bytes more would be too many.
absl::Status CheckRoomFor(SqlTransaction& transaction, absl::string_view tenant, int64_t bytes,
                          const TenantPolicies& tenants);
void FreeStoredBytes(SqlTransaction& transaction, absl::string_view tenant, int64_t bytes);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_TENANT_ROWS_H_
