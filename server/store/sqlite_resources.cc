#include "store/sqlite_resources.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "store/blob_store.h"
#include "store/page_token.h"

namespace valuescope::store {
namespace {

// Of metadata in a page, but for the last resource's: a page is answered in one message of 4 MB.
constexpr size_t kMostPageBytes = size_t{2} << 20;

#define RESOURCE_COLUMNS                                                                       \
  "sequence, tenant, kind, id, created_at, format_version, digest, display_name, media_type, " \
  "blob_digest, blob_size, job_id, role, metadata"

Resource ReadResource(SQLite::Statement& row) {
  return Resource{
      .tenant = row.getColumn(1).getString(),
      .kind = static_cast<ResourceKind>(row.getColumn(2).getInt()),
      .id = row.getColumn(3).getString(),
      .created_at = absl::FromUnixMicros(row.getColumn(4).getInt64()),
      .format_version = row.getColumn(5).getInt(),
      .digest = row.getColumn(6).getString(),
      .display_name = row.getColumn(7).getString(),
      .media_type = row.getColumn(8).getString(),
      .metadata = row.getColumn(13).getString(),
      .blob_digest = row.getColumn(9).getString(),
      .blob_size = row.getColumn(10).getInt64(),
      .job_id = row.getColumn(11).getString(),
      .role = row.getColumn(12).getString(),
  };
}

std::optional<Resource> FindResource(SqliteTransaction& transaction, absl::string_view tenant,
                                     ResourceKind kind, absl::string_view id) {
  SQLite::Statement row = transaction.Query(
      "SELECT " RESOURCE_COLUMNS " FROM resources WHERE tenant = ? AND kind = ? AND id = ?", tenant,
      static_cast<int64_t>(kind), id);
  if (!row.executeStep()) return std::nullopt;
  return ReadResource(row);
}

bool IsNamed(SqliteTransaction& transaction, absl::string_view blob_digest) {
  return transaction
      .Integer(
          "SELECT 1 FROM resources WHERE blob_digest <> '' AND blob_digest = ?1"
          " UNION ALL SELECT 1 FROM job_blobs WHERE digest = ?1 LIMIT 1",
          blob_digest)
      .has_value();
}

}  // namespace

absl::StatusOr<std::optional<EarlierRequest>> FindEarlierRequest(SqliteTransaction& transaction,
                                                                 absl::string_view tenant,
                                                                 const IdempotencyKey& key) {
  if (key.request_id.empty()) return std::nullopt;
  SQLite::Statement row =
      transaction.Query("SELECT digest, job_id FROM requests WHERE tenant = ? AND request_id = ?",
                        tenant, key.request_id);
  if (!row.executeStep()) return std::nullopt;
  if (row.getColumn(0).getString() != key.request_digest) {
    return ErrorWithReason(absl::StatusCode::kAlreadyExists, "REQUEST_ID_REUSED",
                           "`request_id` was used before with another request");
  }
  EarlierRequest earlier{.job_id = row.getColumn(1).getString(), .references = {}};
  SQLite::Statement results = transaction.Query(
      "SELECT kind, id FROM request_results WHERE tenant = ? AND request_id = ? ORDER BY position",
      tenant, key.request_id);
  while (results.executeStep()) {
    earlier.references.push_back({.kind = static_cast<ResourceKind>(results.getColumn(0).getInt()),
                                  .id = results.getColumn(1).getString()});
  }
  return earlier;
}

void RememberRequest(SqliteTransaction& transaction, absl::string_view tenant,
                     const IdempotencyKey& key, const EarlierRequest& request) {
  if (key.request_id.empty()) return;
  transaction.Execute("INSERT INTO requests VALUES (?, ?, ?, ?, ?)", tenant, key.request_id,
                      key.request_digest, request.job_id, transaction.now());
  int64_t position = 0;
  for (const ResourceReference& reference : request.references) {
    transaction.Execute("INSERT INTO request_results VALUES (?, ?, ?, ?, ?)", tenant,
                        key.request_id, position++, static_cast<int64_t>(reference.kind),
                        reference.id);
  }
}

absl::Status CheckResource(const Resource& resource) {
  VS_RETURN_IF_ERROR(CheckResourceId("id", resource.id));
  VS_RETURN_IF_ERROR(CheckDigest("digest", resource.digest));
  VS_RETURN_IF_ERROR(CheckDisplayName("display_name", resource.display_name));
  if (resource.blob_size < 0) return InvalidField("blob_size", "must be at least 0");
  if (resource.blob_digest.empty()) return absl::OkStatus();
  return CheckDigest("blob_digest", resource.blob_digest);
}

absl::StatusOr<Resource> PutResource(SqliteTransaction& transaction, Resource resource) {
  if (auto present = FindResource(transaction, resource.tenant, resource.kind, resource.id)) {
    if (present->digest == resource.digest) return *std::move(present);
    return ErrorWithReason(
        absl::StatusCode::kAlreadyExists, "RESOURCE_EXISTS",
        absl::StrCat("`", ResourceName(resource.kind, resource.id), "` exists with other content"));
  }
  resource.created_at = transaction.now();
  transaction.Execute(
      "INSERT INTO resources (tenant, kind, id, created_at, format_version, digest, display_name,"
      " media_type, blob_digest, blob_size, job_id, role, metadata)"
      " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      resource.tenant, static_cast<int64_t>(resource.kind), resource.id, resource.created_at,
      static_cast<int64_t>(resource.format_version), resource.digest, resource.display_name,
      resource.media_type, resource.blob_digest, resource.blob_size, resource.job_id, resource.role,
      Bytes{resource.metadata});
  return resource;
}

absl::StatusOr<Resource> GetResource(SqliteTransaction& transaction, absl::string_view tenant,
                                     ResourceKind kind, absl::string_view id) {
  auto resource = FindResource(transaction, tenant, kind, id);
  if (!resource) return ResourceNotFound(ResourceName(kind, id));
  return *std::move(resource);
}

absl::StatusOr<ResourcePage> ListResources(SqliteTransaction& transaction, absl::string_view tenant,
                                           ResourceKind kind, const ResourceFilter& filter,
                                           const Page& page) {
  const std::vector<std::string> scope = {std::string(tenant), std::string(CollectionOf(kind)),
                                          filter.job_id};
  VS_ASSIGN_OR_RETURN(const PageBounds bounds, ParsePage(page, scope));
  SQLite::Statement rows =
      transaction.Query("SELECT " RESOURCE_COLUMNS
                        " FROM resources WHERE tenant = ?1 AND kind = ?2 AND sequence < ?3"
                        " AND (?4 = '' OR job_id = ?4) ORDER BY sequence DESC LIMIT ?5",
                        tenant, static_cast<int64_t>(kind), bounds.before, filter.job_id,
                        static_cast<int64_t>(bounds.size) + 1);
  ResourcePage result;
  int64_t last = 0;
  size_t bytes = 0;
  while (rows.executeStep()) {
    if (result.resources.size() == static_cast<size_t>(bounds.size) || bytes >= kMostPageBytes) {
      result.next_page_token = MakePageToken(last, scope);
      break;
    }
    last = rows.getColumn(0).getInt64();
    bytes += result.resources.emplace_back(ReadResource(rows)).metadata.size();
  }
  return result;
}

absl::Status DeleteResource(SqliteTransaction& transaction, absl::string_view tenant,
                            ResourceKind kind, absl::string_view id) {
  VS_ASSIGN_OR_RETURN(const Resource resource, GetResource(transaction, tenant, kind, id));
  const bool in_use =
      transaction
          .Integer(
              "SELECT 1 FROM job_inputs i JOIN jobs j ON j.sequence = i.job"
              " WHERE i.tenant = ? AND i.kind = ? AND i.id = ? AND j.state IN (1, 2, 3)",
              tenant, static_cast<int64_t>(kind), id)
          .has_value();
  if (in_use) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
        absl::StrCat("`", ResourceName(kind, id), "` is read by a job that is not finished"));
  }
  transaction.Execute("DELETE FROM resources WHERE tenant = ? AND kind = ? AND id = ?", tenant,
                      static_cast<int64_t>(kind), id);
  if (!resource.blob_digest.empty()) MarkIfUnnamed(transaction, {resource.blob_digest});
  return absl::OkStatus();
}

absl::Status DeleteArtifactsOf(SqliteTransaction& transaction, absl::string_view tenant,
                               absl::string_view job_id) {
  std::vector<std::string> ids;
  SQLite::Statement rows = transaction.Query(
      "SELECT id FROM resources WHERE job_id <> '' AND job_id = ? AND tenant = ? AND kind = ?",
      job_id, tenant, static_cast<int64_t>(ResourceKind::kArtifact));
  while (rows.executeStep()) ids.push_back(rows.getColumn(0).getString());
  for (const std::string& id : ids) {
    VS_RETURN_IF_ERROR(DeleteResource(transaction, tenant, ResourceKind::kArtifact, id));
  }
  return absl::OkStatus();
}

void MarkIfUnnamed(SqliteTransaction& transaction, const std::vector<std::string>& digests) {
  for (const std::string& digest : digests) {
    if (IsNamed(transaction, digest)) continue;
    transaction.Execute("INSERT OR REPLACE INTO orphaned_blobs VALUES (?, ?)", digest,
                        transaction.now());
  }
}

void MarkOrphanedBlobs(SqliteTransaction& transaction, const std::vector<std::string>& digests) {
  for (const std::string& digest : digests) {
    if (IsNamed(transaction, digest)) continue;
    transaction.Execute("INSERT OR IGNORE INTO orphaned_blobs VALUES (?, ?)", digest,
                        transaction.now());
  }
}

std::vector<std::string> TakeOrphanedBlobs(SqliteTransaction& transaction, absl::Duration grace) {
  const absl::Time before = transaction.now() - grace;
  std::vector<std::string> orphans;
  SQLite::Statement rows =
      transaction.Query("SELECT digest FROM orphaned_blobs WHERE since <= ?", before);
  while (rows.executeStep()) {
    std::string digest = rows.getColumn(0).getString();
    if (!IsNamed(transaction, digest)) orphans.push_back(std::move(digest));
  }
  transaction.Execute("DELETE FROM orphaned_blobs WHERE since <= ?", before);
  return orphans;
}

}  // namespace valuescope::store
