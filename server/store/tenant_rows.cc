#include "store/tenant_rows.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/shared_tenant.h"
#include "store/store.h"
#include "store/usage_rows.h"

namespace valuescope::store {
namespace {

// Beside those who insert what refers to the tenant, who would wait for each other else: they hold
// its key, and each would have to let go of it before another one had the whole row.
void LockTenant(SqlTransaction& transaction, absl::string_view tenant) {
  transaction.Execute(absl::StrCat("SELECT 1 FROM tenants WHERE tenant = $1",
                                   transaction.Locking(" FOR NO KEY UPDATE")),
                      tenant);
}

// Names of the resources of a tenant that take the most, but for those that this transaction adds.
std::string LargestResources(SqlTransaction& transaction, absl::string_view tenant) {
  const auto rows = transaction.Query(
      "SELECT kind, id FROM resources WHERE tenant = $1 AND created_at < $2 AND published_at < $2"
      " ORDER BY blob_size DESC LIMIT 3",
      tenant, transaction.now());
  std::vector<std::string> names;
  while (rows->Next()) {
    names.push_back(absl::StrCat(
        "`", ResourceName(static_cast<ResourceKind>(rows->Integer(0)), rows->Text(1)), "`"));
  }
  return absl::StrJoin(names, ", ");
}

// Where the tenant stores `stored` bytes, `bytes` of them new.
absl::Status CheckStored(SqlTransaction& transaction, absl::string_view tenant, int64_t bytes,
                         int64_t stored, const TenantPolicies& tenants) {
  const int64_t most = tenants.Of(tenant).max_stored_bytes;
  if (most == 0 || stored <= most) return absl::OkStatus();
  if (tenant == kSharedTenant) {
    return NeverFits(
        kStorageQuota,
        absl::StrCat("with these ", bytes, " bytes ", stored, " of at most ", most,
                     " would be published, by all tenants: withdraw some; the largest are ",
                     LargestResources(transaction, tenant)));
  }
  return NeverFits(
      kStorageQuota,
      absl::StrCat("with these ", bytes, " bytes you would store ", stored, " of at most ", most,
                   " in vectors, neuron sets and artifacts: delete some, or jobs with theirs; the"
                   " largest are ",
                   LargestResources(transaction, tenant)));
}

}  // namespace

void AddTenant(SqlTransaction& transaction, absl::string_view tenant) {
  // A new one queues up behind the others.
  transaction.Execute(
      "INSERT INTO tenants (tenant, last_turn)"
      " SELECT $1, coalesce(max(last_turn), 0) + 1 FROM tenants WHERE true ON CONFLICT DO NOTHING",
      tenant);
}

Share ReadShare(SqlRows& row, int first_column, double weight) {
  return {.virtual_time = absl::Microseconds(row.Integer(first_column)),
          .weight = weight,
          .running = row.Integer(first_column + 2),
          .last_turn = row.Integer(first_column + 1)};
}

absl::Duration ServedFrom(SqlTransaction& transaction) {
  return absl::Microseconds(
      transaction.Integer("SELECT max(served_from) FROM tenants").value_or(0));
}

bool IsAtItsBound(SqlTransaction& transaction, absl::string_view tenant,
                  const TenantPolicies& tenants) {
  const TenantPolicy& policy = tenants.Of(tenant);
  if (policy.max_running == 0) return false;
  LockTenant(transaction, tenant);
  // Only now: what others leased before they let go of the lock counts.
  const auto row =
      transaction.Query("SELECT " SHARE_COLUMNS " FROM tenants t WHERE t.tenant = $1", tenant);
  return row->Next() &&
         ReadShare(*row, /*first_column=*/0, policy.weight).running >= policy.max_running;
}

void TakeTurn(SqlTransaction& transaction, absl::string_view tenant, absl::Duration start) {
  transaction.Execute(
      "UPDATE tenants SET last_turn = (SELECT max(last_turn) + 1 FROM tenants),"
      " virtual_time = CASE WHEN virtual_time < $2 THEN $2 ELSE virtual_time END,"
      " served_from = CASE WHEN served_from < $2 THEN $2 ELSE served_from END WHERE tenant = $1",
      tenant, absl::ToInt64Microseconds(start));
}

void Charge(SqlTransaction& transaction, absl::string_view tenant, absl::Duration worked,
            const TenantPolicies& tenants) {
  if (worked <= absl::ZeroDuration()) return;
  transaction.Execute("UPDATE tenants SET virtual_time = virtual_time + $1 WHERE tenant = $2",
                      absl::ToInt64Microseconds(VirtualTimeOf(worked, tenants.Of(tenant).weight)),
                      tenant);
  AddJobTime(transaction, tenant, worked);
}

namespace {

// How long it takes until another job of the tenant begins, as the mean of the last ones.
absl::Duration UntilJobBegins(SqlTransaction& transaction, absl::string_view tenant) {
  constexpr absl::Duration kLeast = absl::Seconds(1), kMost = absl::Minutes(10);
  constexpr absl::Duration kNobodyKnows = absl::Seconds(10);
  const auto row = transaction.Query(
      "SELECT count(*), min(started_at) FROM (SELECT started_at FROM jobs WHERE tenant = $1"
      " AND started_at IS NOT NULL ORDER BY sequence DESC LIMIT 8) AS begun",
      tenant);
  if (!row->Next() || row->Integer(0) == 0) return kNobodyKnows;
  const absl::Duration since = transaction.now() - absl::FromUnixMicros(row->Integer(1));
  return std::clamp(since / static_cast<double>(row->Integer(0)), kLeast, kMost);
}

}  // namespace

absl::Status CheckQueuedJobs(SqlTransaction& transaction, absl::string_view tenant,
                             const TenantPolicies& tenants) {
  const int64_t most = tenants.Of(tenant).max_queued;
  if (most == 0) return absl::OkStatus();
  LockTenant(transaction, tenant);
  const int64_t queued = transaction
                             .Integer(
                                 "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE tenant = $1"
                                 " AND state = 1 LIMIT $2) AS queued",
                                 tenant, most + 1)
                             .value_or(0);
  if (queued <= most) return absl::OkStatus();
  return RetryLater("QUEUE_FULL",
                    absl::StrCat("you have ", most,
                                 " jobs that have not begun, the most you may:"
                                 " wait until some have, or cancel some"),
                    UntilJobBegins(transaction, tenant));
}

absl::Status AddStoredBytes(SqlTransaction& transaction, absl::string_view tenant, int64_t bytes,
                            const TenantPolicies& tenants) {
  AddTenant(transaction, tenant);
  const int64_t stored = transaction
                             .Integer(
                                 "UPDATE tenants SET stored_bytes = stored_bytes + $1"
                                 " WHERE tenant = $2 RETURNING stored_bytes",
                                 bytes, tenant)
                             .value_or(0);
  return CheckStored(transaction, tenant, bytes, stored, tenants);
}

absl::Status CheckRoomFor(SqlTransaction& transaction, absl::string_view tenant, int64_t bytes,
                          const TenantPolicies& tenants) {
  const int64_t stored =
      transaction.Integer("SELECT stored_bytes FROM tenants WHERE tenant = $1", tenant).value_or(0);
  return CheckStored(transaction, tenant, bytes, stored + bytes, tenants);
}

void FreeStoredBytes(SqlTransaction& transaction, absl::string_view tenant, int64_t bytes) {
  transaction.Execute("UPDATE tenants SET stored_bytes = stored_bytes - $1 WHERE tenant = $2",
                      bytes, tenant);
}

}  // namespace valuescope::store
