#include "jobs/stored_partial.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/failpoint.h"
#include "base/id.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "jobs/job_kind.h"

namespace valuescope::jobs {
namespace {

constexpr char kPartialLost[] = "PARTIAL_LOST";
constexpr char kDamaged[] = "damaged";
// Of the random bytes in front of a partial: those of an UUID.
constexpr int64_t kUniqueBytes = 36;
constexpr int64_t kReadAtOnce = 4 << 20;  // bytes

absl::Status Damaged() { return absl::DataLossError("its bytes are damaged"); }

// The partial in `blob`, held against its digest. DATA_LOSS where they differ.
absl::StatusOr<std::string> ReadPartial(store::BlobStore& blobs, const store::StoredBlob& blob) {
  VS_ASSIGN_OR_RETURN(const int64_t size, blobs.Size(blob.digest));
  if (size != blob.size || size < kUniqueBytes) return Damaged();
  Sha256 hash;
  VS_ASSIGN_OR_RETURN(const std::string unique, blobs.Read(blob.digest, 0, kUniqueBytes));
  hash.Update(unique);
  std::string partial;
  partial.reserve(static_cast<size_t>(size - kUniqueBytes));
  for (int64_t read = kUniqueBytes; read < size;) {
    VS_ASSIGN_OR_RETURN(const std::string piece,
                        blobs.Read(blob.digest, read, std::min(kReadAtOnce, size - read)));
    if (piece.empty()) return Damaged();
    hash.Update(piece);
    partial += piece;
    read += static_cast<int64_t>(piece.size());
  }
  if (hash.HexDigest() != blob.digest) return Damaged();
  return partial;
}

// PARTIAL_LOST, or why the shard could not be opened again.
absl::Status Restart(store::Store& store, const store::Lease& lease, int64_t shard,
                     absl::string_view lost, absl::string_view what_happened) {
  const absl::Status cause = ErrorWithReason(
      absl::StatusCode::kDataLoss, kPartialLost,
      absl::StrCat("the partial result of shard ", shard, " of `jobs/", lease.job_id, "` is ",
                   what_happened, ": the shard is done again from its start"));
  VS_RETURN_IF_ERROR(store.RestartShard(lease, shard, lost, cause));
  return cause;
}

}  // namespace

absl::Status PutAside(store::BlobStore& blobs, int64_t most_in_row,
                      store::ShardProgress& progress) {
  if (static_cast<int64_t>(progress.partial.size()) <= most_in_row) return absl::OkStatus();
  VS_FAILPOINT("partial_put_aside");
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<store::BlobWriter> writer, blobs.NewWriter());
  VS_RETURN_IF_ERROR(writer->Append(NewUuid()));
  VS_RETURN_IF_ERROR(writer->Append(progress.partial));
  VS_ASSIGN_OR_RETURN(progress.partial_blob, writer->Finish());
  progress.partial = std::string();
  VS_FAILPOINT("partial_is_blob");
  return absl::OkStatus();
}

absl::StatusOr<store::ShardProgress> ReadShard(store::Store& store, store::BlobStore& blobs,
                                               const store::Lease& lease, int64_t shard) {
  std::string gone;
  while (true) {
    VS_ASSIGN_OR_RETURN(store::ShardProgress progress, store.ReadProgress(lease, shard));
    const store::StoredBlob blob = std::exchange(progress.partial_blob, {});
    if (blob.digest.empty()) return progress;
    absl::StatusOr<std::string> partial = ReadPartial(blobs, blob);
    if (partial.ok()) {
      progress.partial = *std::move(partial);
      return progress;
    }
    if (!IsGone(partial.status())) return partial.status();
    // It may have been replaced meanwhile, or changed on its way.
    if (std::exchange(gone, blob.digest) != blob.digest) continue;
    return Restart(
        store, lease, shard, blob.digest,
        absl::IsNotFound(partial.status()) ? "not in the blob store any more" : kDamaged);
  }
}

bool IsPartialLost(const absl::Status& status) { return DetailsOf(status).reason == kPartialLost; }

bool IsGone(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsDataLoss(status) || absl::IsOutOfRange(status);
}

absl::Status RestartIfDamaged(store::Store& store, const store::Lease& lease, absl::Status ended) {
  if (!IsPartialDamaged(ended)) return ended;
  const int64_t shard = DamagedShard(ended).value_or(lease.shard);
  if (shard == store::kMergeStep) return ended;  // of all shards together
  return Restart(store, lease, shard, /*lost=*/"", kDamaged);
}

}  // namespace valuescope::jobs
