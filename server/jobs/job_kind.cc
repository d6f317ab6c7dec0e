#include "jobs/job_kind.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::jobs {
namespace {

constexpr char kNotReady[] = "NOT_READY";
constexpr char kPartialDamaged[] = "PARTIAL_DAMAGED";
constexpr char kShard[] = "valuescope/shard";  // of a status

}  // namespace

absl::Status NotReady(absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kUnavailable, kNotReady, what);
}

bool IsNotReady(const absl::Status& status) { return DetailsOf(status).reason == kNotReady; }

absl::Status PartialDamaged() {
  return ErrorWithReason(absl::StatusCode::kDataLoss, kPartialDamaged,
                         "the stored partial result of a shard is damaged");
}

bool IsPartialDamaged(const absl::Status& status) {
  return DetailsOf(status).reason == kPartialDamaged;
}

absl::Status OfShard(int64_t shard, absl::Status status) {
  if (IsPartialDamaged(status) && !DamagedShard(status)) {
    status.SetPayload(kShard, absl::Cord(absl::StrCat(shard)));
  }
  return status;
}

std::optional<int64_t> DamagedShard(const absl::Status& status) {
  const auto payload = status.GetPayload(kShard);
  int64_t shard = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &shard)) return std::nullopt;
  return shard;
}

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
