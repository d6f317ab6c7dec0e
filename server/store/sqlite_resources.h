// Resources, idempotency keys and orphaned blobs in SQLite. Every function works inside the
// caller's transaction and throws SQLite::Exception; what each does is told in store/store.h.
#ifndef VALUESCOPE_STORE_SQLITE_RESOURCES_H_
#define VALUESCOPE_STORE_SQLITE_RESOURCES_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/sqlite_database.h"
#include "store/store.h"

namespace valuescope::store {

absl::StatusOr<std::optional<EarlierRequest>> FindEarlierRequest(SqliteTransaction& transaction,
                                                                 absl::string_view tenant,
                                                                 const IdempotencyKey& key);
// Does nothing for an empty key.
void RememberRequest(SqliteTransaction& transaction, absl::string_view tenant,
                     const IdempotencyKey& key, const EarlierRequest& request);

// Checks everything of a resource that a caller chose.
absl::Status CheckResource(const Resource& resource);

// Stores one checked resource, or returns the equal one that is there.
absl::StatusOr<Resource> PutResource(SqliteTransaction& transaction, Resource resource);
absl::StatusOr<Resource> GetResource(SqliteTransaction& transaction, absl::string_view tenant,
                                     ResourceKind kind, absl::string_view id);
absl::StatusOr<ResourcePage> ListResources(SqliteTransaction& transaction, absl::string_view tenant,
                                           ResourceKind kind, const ResourceFilter& filter,
                                           const Page& page);
absl::Status DeleteResource(SqliteTransaction& transaction, absl::string_view tenant,
                            ResourceKind kind, absl::string_view id);
// Deletes the artifacts that a job made.
absl::Status DeleteArtifactsOf(SqliteTransaction& transaction, absl::string_view tenant,
                               absl::string_view job_id);
// Marks `digests`, of whatever has just lost a name, that have none left.
void MarkIfUnnamed(SqliteTransaction& transaction, const std::vector<std::string>& digests);
void MarkOrphanedBlobs(SqliteTransaction& transaction, const std::vector<std::string>& digests);
std::vector<std::string> TakeOrphanedBlobs(SqliteTransaction& transaction, absl::Duration grace);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_SQLITE_RESOURCES_H_
