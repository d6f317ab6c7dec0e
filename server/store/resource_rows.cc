#include "store/resource_rows.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/shared_tenant.h"
#include "base/status_macros.h"
#include "store/blob_store.h"
#include "store/page_token.h"
#include "store/tenant_rows.h"

namespace valuescope::store {
namespace {

// Of metadata in a page, but for the last resource's: a page is answered in one message of 4 MB.
constexpr size_t kMostPageBytes = size_t{2} << 20;
// For who is about to remove the row: nobody else reads or removes it.
constexpr char kRemoving[] = " FOR UPDATE";
// Pages that are read for one of a model.
constexpr int kMostLooks = 20;

#define RESOURCE_COLUMNS                                                                       \
  "sequence, tenant, kind, id, created_at, format_version, digest, display_name, media_type, " \
  "blob_digest, blob_size, job_id, role, metadata, publisher, published_at"

Resource ReadResource(SqlRows& row) {
  return Resource{
      .tenant = row.Text(1),
      .kind = static_cast<ResourceKind>(row.Integer(2)),
      .id = row.Text(3),
      .created_at = absl::FromUnixMicros(row.Integer(4)),
      .format_version = static_cast<int>(row.Integer(5)),
      .digest = row.Text(6),
      .display_name = row.Text(7),
      .media_type = row.Text(8),
      .metadata = row.Text(13),
      .blob_digest = row.Text(9),
      .blob_size = row.Integer(10),
      .job_id = row.Text(11),
      .role = row.Text(12),
      .publisher = row.Text(14),
      .published_at = absl::FromUnixMicros(row.Integer(15)),
  };
}

// `lock`: the row's, for as long as the transaction lasts; empty for none.
std::optional<Resource> FindResource(SqlTransaction& transaction, absl::string_view tenant,
                                     ResourceKind kind, absl::string_view id,
                                     absl::string_view lock = "") {
  // Text that no name has may be more than a database can compare.
  if (!CheckResourceId("id", id).ok()) return std::nullopt;
  const auto row =
      transaction.Query(absl::StrCat("SELECT " RESOURCE_COLUMNS
                                     " FROM resources WHERE tenant = $1 AND kind = $2 AND id = $3",
                                     transaction.Locking(lock)),
                        tenant, static_cast<int64_t>(kind), id);
  if (!row->Next()) return std::nullopt;
  return ReadResource(*row);
}

// What is published under that name. What a tenant of that name had before nobody could be it any
// more is not.
std::optional<Resource> FindPublished(SqlTransaction& transaction, ResourceKind kind,
                                      absl::string_view id, absl::string_view lock = "") {
  auto resource = FindResource(transaction, kSharedTenant, kind, id, lock);
  if (resource && resource->publisher.empty()) return std::nullopt;
  return resource;
}

// What it counts for; bytes that several resources share count for each.
int64_t StoredBytes(const Resource& resource) {
  return resource.blob_size + static_cast<int64_t>(resource.metadata.size());
}

bool IsNamed(SqlTransaction& transaction, absl::string_view blob_digest) {
  return transaction
      .Integer(
          "SELECT 1 FROM resources WHERE blob_digest <> '' AND blob_digest = $1"
          " UNION ALL SELECT 1 FROM job_blobs WHERE digest = $1"
          " UNION ALL SELECT 1 FROM step_results WHERE partial_blob <> '' AND partial_blob = $1"
          " UNION ALL SELECT 1 FROM step_blobs WHERE digest = $1 LIMIT 1",
          blob_digest)
      .has_value();
}

}  // namespace

absl::StatusOr<std::optional<EarlierRequest>> FindEarlierRequest(SqlTransaction& transaction,
                                                                 absl::string_view tenant,
                                                                 const IdempotencyKey& key) {
  if (key.request_id.empty()) return std::nullopt;
  const auto row =
      transaction.Query("SELECT digest, job_id FROM requests WHERE tenant = $1 AND request_id = $2",
                        tenant, key.request_id);
  if (!row->Next()) return std::nullopt;
  if (row->Text(0) != key.request_digest) {
    return ErrorWithReason(absl::StatusCode::kAlreadyExists, "REQUEST_ID_REUSED",
                           "`request_id` was used before with another request");
  }
  EarlierRequest earlier{.job_id = row->Text(1), .references = {}};
  const auto results = transaction.Query(
      "SELECT kind, id FROM request_results WHERE tenant = $1 AND request_id = $2 ORDER BY "
      "position",
      tenant, key.request_id);
  while (results->Next()) {
    earlier.references.push_back(
        {.kind = static_cast<ResourceKind>(results->Integer(0)), .id = results->Text(1)});
  }
  return earlier;
}

void RememberRequest(SqlTransaction& transaction, absl::string_view tenant,
                     const IdempotencyKey& key, const EarlierRequest& request) {
  if (key.request_id.empty()) return;
  transaction.Execute("INSERT INTO requests VALUES ($1, $2, $3, $4, $5)", tenant, key.request_id,
                      key.request_digest, request.job_id, transaction.now());
  int64_t position = 0;
  for (const ResourceReference& reference : request.references) {
    transaction.Execute("INSERT INTO request_results VALUES ($1, $2, $3, $4, $5)", tenant,
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

namespace {

absl::Status OtherContent(ResourceKind kind, absl::string_view id, absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kAlreadyExists, "RESOURCE_EXISTS",
                         absl::StrCat("`", ResourceName(kind, id), "` ", what));
}

// One that is not there.
absl::Status InsertResource(SqlTransaction& transaction, const Resource& resource,
                            const TenantPolicies& tenants) {
  transaction.Execute(
      "INSERT INTO resources (tenant, kind, id, created_at, format_version, digest, display_name,"
      " media_type, blob_digest, blob_size, job_id, role, metadata, publisher, published_at)"
      " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
      resource.tenant, static_cast<int64_t>(resource.kind), resource.id, resource.created_at,
      static_cast<int64_t>(resource.format_version), resource.digest, resource.display_name,
      resource.media_type, resource.blob_digest, resource.blob_size, resource.job_id, resource.role,
      Bytes{resource.metadata}, resource.publisher, resource.published_at);
  return AddStoredBytes(transaction, resource.tenant, StoredBytes(resource), tenants);
}

// The row of a tenant, which nobody reads and `resource` is.
void RemoveResource(SqlTransaction& transaction, const Resource& resource) {
  transaction.Execute("DELETE FROM resources WHERE tenant = $1 AND kind = $2 AND id = $3",
                      resource.tenant, static_cast<int64_t>(resource.kind), resource.id);
  FreeStoredBytes(transaction, resource.tenant, StoredBytes(resource));
  if (!resource.blob_digest.empty()) MarkIfUnnamed(transaction, {resource.blob_digest});
}

// A job that is not finished and reads the row of that tenant.
std::optional<std::string> ReaderOf(SqlTransaction& transaction, const Resource& resource) {
  const auto readers = transaction.Query(
      "SELECT j.id FROM job_inputs i JOIN jobs j ON j.sequence = i.job"
      " WHERE i.tenant = $1 AND i.kind = $2 AND i.id = $3 AND j.state IN (1, 2, 3) LIMIT 1",
      resource.tenant, static_cast<int64_t>(resource.kind), resource.id);
  if (!readers->Next()) return std::nullopt;
  return readers->Text(0);
}

absl::Status InUse(const Resource& resource, absl::string_view reader, absl::string_view way_out) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "RESOURCE_IN_USE",
                         absl::StrCat("`", ResourceName(resource.kind, resource.id),
                                      "` is read by ", reader, ", which is not finished", way_out));
}

}  // namespace

absl::StatusOr<Resource> PutResource(SqlTransaction& transaction, Resource resource,
                                     const TenantPolicies& tenants) {
  if (auto present = FindResource(transaction, resource.tenant, resource.kind, resource.id)) {
    if (present->digest == resource.digest) return *std::move(present);
    return OtherContent(resource.kind, resource.id, "exists with other content");
  }
  resource.created_at = transaction.now();
  VS_RETURN_IF_ERROR(InsertResource(transaction, resource, tenants));
  return resource;
}

absl::StatusOr<Resource> GetResource(SqlTransaction& transaction, absl::string_view tenant,
                                     ResourceKind kind, absl::string_view id,
                                     absl::string_view lock) {
  if (auto own = FindResource(transaction, tenant, kind, id, lock)) return *std::move(own);
  if (auto shared = FindPublished(transaction, kind, id, lock)) return *std::move(shared);
  return ResourceNotFound(ResourceName(kind, id));
}

absl::StatusOr<Resource> GetOwnResource(SqlTransaction& transaction, absl::string_view tenant,
                                        ResourceKind kind, absl::string_view id,
                                        absl::string_view lock) {
  auto resource = FindResource(transaction, tenant, kind, id, lock);
  if (!resource) return ResourceNotFound(ResourceName(kind, id));
  return *std::move(resource);
}

absl::StatusOr<ResourcePage> ListResources(SqlTransaction& transaction, absl::string_view tenant,
                                           ResourceKind kind, const ResourceFilter& filter,
                                           const Page& page) {
  const std::vector<std::string> scope = {std::string(tenant), std::string(CollectionOf(kind)),
                                          filter.job_id, filter.model};
  VS_ASSIGN_OR_RETURN(const PageBounds bounds, ParsePage(page, scope));
  ResourcePage result;
  int64_t last = bounds.before;
  size_t bytes = 0;
  // Of a model as many as a page has are read at a time, since nobody knows how many are its own.
  const int looks = filter.model.empty() ? 1 : kMostLooks;
  for (int look = 0; look < looks; ++look) {
    const auto rows =
        transaction.Query("SELECT " RESOURCE_COLUMNS
                          " FROM resources WHERE tenant = $1 AND kind = $2 AND sequence < $3"
                          " AND ($4 = '' OR job_id = $4) AND (tenant <> $6 OR publisher <> '')"
                          " ORDER BY sequence DESC LIMIT $5",
                          tenant, static_cast<int64_t>(kind), last, filter.job_id,
                          static_cast<int64_t>(bounds.size) + 1, kSharedTenant);
    int read = 0;
    while (rows->Next()) {
      if (result.resources.size() == static_cast<size_t>(bounds.size) || bytes >= kMostPageBytes) {
        result.next_page_token = MakePageToken(last, scope);
        return result;
      }
      ++read;
      last = rows->Integer(0);
      Resource resource = ReadResource(*rows);
      if (!filter.model.empty() && !filter.is_of_model(resource)) continue;
      bytes += resource.metadata.size();
      result.resources.push_back(std::move(resource));
    }
    if (read <= bounds.size) return result;  // there are no more
  }
  result.next_page_token = MakePageToken(last, scope);
  return result;
}

absl::StatusOr<Resource> PublishResource(SqlTransaction& transaction, absl::string_view tenant,
                                         ResourceKind kind, absl::string_view id,
                                         const TenantPolicies& tenants) {
  const auto present = FindResource(transaction, kSharedTenant, kind, id);
  // The row stays until it is there twice, and its blob with it.
  const auto own = FindResource(transaction, tenant, kind, id, kReading);
  if (present && !present->publisher.empty() && (!own || own->digest == present->digest)) {
    return *present;
  }
  if (!own) return ResourceNotFound(ResourceName(kind, id));
  if (present) {
    return OtherContent(kind, id,
                        present->publisher.empty()
                            ? "is of a tenant that was named `shared` before no tenant could be"
                            : "is published with other content");
  }
  Resource published = *own;
  published.tenant = std::string(kSharedTenant);
  published.publisher = std::string(tenant);
  published.published_at = transaction.now();
  VS_RETURN_IF_ERROR(InsertResource(transaction, published, tenants));
  return published;
}

absl::Status WithdrawResource(SqlTransaction& transaction, absl::string_view tenant,
                              ResourceKind kind, absl::string_view id,
                              const Withdrawal& withdrawal) {
  // Locked before it is asked who reads it: who is about to read it has locked it too.
  const auto published = FindPublished(transaction, kind, id, kRemoving);
  if (!published) return ResourceNotFound(ResourceName(kind, id));
  if (published->publisher != tenant && !withdrawal.of_anybody) {
    return ErrorWithReason(
        absl::StatusCode::kPermissionDenied, "ANOTHER_PUBLISHER",
        absl::StrCat("`", ResourceName(kind, id), "` was published by `", published->publisher,
                     "`: that tenant can withdraw it, and admins can"));
  }
  // Whose job it is is nobody else's business.
  if (!withdrawal.although_read && ReaderOf(transaction, *published)) {
    return InUse(*published, "a job of some tenant", "; an admin can withdraw it with `force`");
  }
  RemoveResource(transaction, *published);
  return absl::OkStatus();
}

absl::Status DeleteResource(SqlTransaction& transaction, absl::string_view tenant,
                            ResourceKind kind, absl::string_view id) {
  VS_ASSIGN_OR_RETURN(const Resource resource,
                      GetOwnResource(transaction, tenant, kind, id, kRemoving));
  if (const auto reader = ReaderOf(transaction, resource)) {
    return InUse(resource, absl::StrCat("`jobs/", *reader, "`"), "; cancel it, or wait for it");
  }
  RemoveResource(transaction, resource);
  return absl::OkStatus();
}

absl::Status DeleteArtifactsOf(SqlTransaction& transaction, absl::string_view tenant,
                               absl::string_view job_id) {
  std::vector<std::string> ids;
  const auto rows = transaction.Query(
      "SELECT id FROM resources WHERE job_id <> '' AND job_id = $1 AND tenant = $2 AND kind = $3",
      job_id, tenant, static_cast<int64_t>(ResourceKind::kArtifact));
  while (rows->Next()) ids.push_back(rows->Text(0));
  for (const std::string& id : ids) {
    VS_RETURN_IF_ERROR(DeleteResource(transaction, tenant, ResourceKind::kArtifact, id));
  }
  return absl::OkStatus();
}

void MarkIfUnnamed(SqlTransaction& transaction, const std::vector<std::string>& digests) {
  for (const std::string& digest : digests) {
    if (IsNamed(transaction, digest)) continue;
    transaction.Execute(
        "INSERT INTO orphaned_blobs VALUES ($1, $2)"
        " ON CONFLICT (digest) DO UPDATE SET since = excluded.since",
        digest, transaction.now());
  }
}

void MarkOrphanedBlobs(SqlTransaction& transaction, const std::vector<std::string>& digests) {
  for (const std::string& digest : digests) {
    if (IsNamed(transaction, digest)) continue;
    transaction.Execute("INSERT INTO orphaned_blobs VALUES ($1, $2) ON CONFLICT DO NOTHING", digest,
                        transaction.now());
  }
}

std::vector<OrphanedBlob> TakeOrphanedBlobs(SqlTransaction& transaction, absl::Duration grace) {
  std::vector<OrphanedBlob> orphans;
  // In one statement: a partial that another transaction drops meanwhile is not deleted unseen.
  const auto rows = transaction.Query(
      "DELETE FROM orphaned_blobs WHERE since = 0 OR since <= $1 RETURNING digest, since",
      transaction.now() - grace);
  while (rows->Next()) {
    orphans.push_back({.digest = rows->Text(0), .was_partial = rows->Integer(1) == 0});
  }
  std::erase_if(orphans,
                [&](const OrphanedBlob& orphan) { return IsNamed(transaction, orphan.digest); });
  return orphans;
}

}  // namespace valuescope::store
