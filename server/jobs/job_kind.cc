#include "jobs/job_kind.h"

#include <utility>

#include "base/error.h"

namespace valuescope::jobs {
namespace {

constexpr char kNotReady[] = "NOT_READY";

}  // namespace

absl::Status NotReady(absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kUnavailable, kNotReady, what);
}

bool IsNotReady(const absl::Status& status) { return DetailsOf(status).reason == kNotReady; }

store::Resource ResourceOf(ArtifactDraft draft, std::string id) {
  return store::Resource{
      .tenant = "",
      .kind = store::ResourceKind::kArtifact,
      .id = std::move(id),
      .created_at = {},
      .format_version = draft.format_version,
      .digest = draft.blob.digest,
      .display_name = std::move(draft.display_name),
      .media_type = std::move(draft.media_type),
      .metadata = std::move(draft.metadata),
      .blob_digest = draft.blob.digest,
      .blob_size = draft.blob.size,
      .job_id = "",
      .role = "",
  };
}

}  // namespace valuescope::jobs
