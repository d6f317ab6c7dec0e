// Resources, idempotency keys and orphaned blobs as rows. Every function works inside the
// caller's transaction and throws what the database throws; what each does is told in
// store/store.h.
#ifndef VALUESCOPE_STORE_SQLITE_RESOURCES_H_
#define VALUESCOPE_STORE_SQLITE_RESOURCES_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/tenant_policy.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

// Keeps a row from being deleted while the transaction lasts.
inline constexpr char kReading[] = " FOR SHARE";

absl::StatusOr<std::optional<EarlierRequest>> FindEarlierRequest(SqlTransaction& transaction,
                                                                 absl::string_view tenant,
                                                                 const IdempotencyKey& key);
// Does nothing for an empty key.
void RememberRequest(SqlTransaction& transaction, absl::string_view tenant,
                     const IdempotencyKey& key, const EarlierRequest& request);

// Checks everything of a resource that a caller chose.
absl::Status CheckResource(const Resource& resource);

// Stores one checked resource, or returns the equal one that is there. RESOURCE_EXHAUSTED (reason
// STORAGE_QUOTA) where the tenant may not have as much.
absl::StatusOr<Resource> PutResource(SqlTransaction& transaction, Resource resource,
                                     const TenantPolicies& tenants);
// `lock`: of the row, such as kReading; empty for none. What is found is the tenant's or that of
// the tenant `shared`.
absl::StatusOr<Resource> GetResource(SqlTransaction& transaction, absl::string_view tenant,
                                     ResourceKind kind, absl::string_view id,
                                     absl::string_view lock = "");
// The tenant's own alone.
absl::StatusOr<Resource> GetOwnResource(SqlTransaction& transaction, absl::string_view tenant,
                                        ResourceKind kind, absl::string_view id,
                                        absl::string_view lock = "");
absl::StatusOr<ResourcePage> ListResources(SqlTransaction& transaction, absl::string_view tenant,
                                           ResourceKind kind, const ResourceFilter& filter,
                                           const Page& page);
absl::StatusOr<Resource> PublishResource(SqlTransaction& transaction, absl::string_view tenant,
                                         ResourceKind kind, absl::string_view id,
                                         const TenantPolicies& tenants);
absl::Status WithdrawResource(SqlTransaction& transaction, absl::string_view tenant,
                              ResourceKind kind, absl::string_view id,
                              const Withdrawal& withdrawal);
absl::Status DeleteResource(SqlTransaction& transaction, absl::string_view tenant,
                            ResourceKind kind, absl::string_view id);
// Deletes the artifacts that a job made.
absl::Status DeleteArtifactsOf(SqlTransaction& transaction, absl::string_view tenant,
                               absl::string_view job_id);
// Marks `digests`, of whatever has just lost a name, that have none left.
void MarkIfUnnamed(SqlTransaction& transaction, const std::vector<std::string>& digests);
void MarkOrphanedBlobs(SqlTransaction& transaction, const std::vector<std::string>& digests);
std::vector<OrphanedBlob> TakeOrphanedBlobs(SqlTransaction& transaction, absl::Duration grace);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_SQLITE_RESOURCES_H_
