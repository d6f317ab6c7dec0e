#include "kinds/capture_files.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/dtype.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "jobs/job_kind.h"
#include "jobs/stored_partial.h"

namespace valuescope::kinds {
namespace {

// Of a part that is copied, at a time.
constexpr int64_t kPieceBytes = int64_t{4} << 20;

absl::Status Differs() {
  return ErrorWithReason(absl::StatusCode::kInternal, "CAPTURE_DIFFERS",
                         "what was captured has another shape than was to be expected");
}

SavedBlob Saved(const store::StoredBlob& blob) {
  SavedBlob saved;
  saved.set_digest(blob.digest);
  saved.set_size(blob.size);
  return saved;
}

// Held against its digest.
absl::Status CopyPart(const SavedBlob& part, store::BlobStore& blobs,
                      const Cancellation& cancellation, store::BlobWriter& file) {
  Sha256 hash;
  for (int64_t offset = 0; offset < part.size(); offset += kPieceBytes) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    const absl::StatusOr<std::string> piece = blobs.Read(part.digest(), offset, kPieceBytes);
    if (jobs::IsGone(piece.status())) return jobs::PartialDamaged();
    VS_RETURN_IF_ERROR(piece.status());
    hash.Update(*piece);
    VS_RETURN_IF_ERROR(file.Append(*piece));
  }
  return hash.HexDigest() == part.digest() ? absl::OkStatus() : jobs::PartialDamaged();
}

}  // namespace

absl::Status CapturePartWriter::Append(const studies::DeclaredTensor& planned, DType dtype,
                                       const std::vector<int64_t>& shape, absl::string_view bytes) {
  if (planned.dtype != dtype || planned.shape != shape) return Differs();
  std::unique_ptr<store::BlobWriter>& writer = writers_[SizeOf(dtype)];
  if (writer == nullptr) {
    VS_ASSIGN_OR_RETURN(writer, blobs_->NewWriter());
  }
  return writer->Append(bytes);
}

absl::Status CapturePartWriter::Add(const std::vector<studies::DeclaredTensor>& planned,
                                    const std::vector<engine::Capture>& captures) {
  auto next = planned.begin();
  for (size_t i = 0; i < captures.size(); ++i) {
    const engine::Capture& capture = captures[i];
    if (next == planned.end()) return Differs();
    VS_RETURN_IF_ERROR(
        Append(*next++, capture.tensor.dtype, capture.tensor.shape, capture.tensor.bytes));
    if (i + 1 < captures.size() && captures[i + 1].tap_index == capture.tap_index) continue;
    if (next == planned.end()) return Differs();
    const std::vector<int32_t> positions(capture.positions.begin(), capture.positions.end());
    VS_RETURN_IF_ERROR(Append(*next++, DType::kInt32, {static_cast<int64_t>(positions.size())},
                              {reinterpret_cast<const char*>(positions.data()),
                               positions.size() * sizeof(positions.front())}));
  }
  return next == planned.end() ? absl::OkStatus() : Differs();
}

absl::Status CapturePartWriter::Close(SavedCaptureParts& parts) {
  for (auto& [element_size, writer] : writers_) {
    VS_ASSIGN_OR_RETURN(const store::StoredBlob blob, writer->Finish());
    SavedCapturePart& part = *parts.Add();
    part.set_element_size(static_cast<int32_t>(element_size));
    *part.mutable_blob() = Saved(blob);
  }
  writers_.clear();
  return absl::OkStatus();
}

absl::StatusOr<SavedBlob> JoinCaptureParts(const SavedCaptureParts& parts,
                                           std::vector<studies::DeclaredTensor> tensors,
                                           absl::string_view metadata, store::BlobStore& blobs,
                                           const Cancellation& cancellation) {
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const auto& a, const auto& b) { return SizeOf(a.dtype) > SizeOf(b.dtype); });
  std::set<int32_t, std::greater<>> element_sizes;
  for (const SavedCapturePart& part : parts) element_sizes.insert(part.element_size());
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<store::BlobWriter> file, blobs.NewWriter());
  const std::string head = studies::TensorFileHead(tensors, metadata);
  int64_t size = static_cast<int64_t>(head.size());
  for (const studies::DeclaredTensor& tensor : tensors) size += tensor.bytes();
  VS_RETURN_IF_ERROR(file->Append(head));
  for (const int32_t element_size : element_sizes) {
    for (const SavedCapturePart& part : parts) {
      if (part.element_size() != element_size) continue;
      VS_RETURN_IF_ERROR(CopyPart(part.blob(), blobs, cancellation, *file));
    }
  }
  if (file->size() != size) return jobs::PartialDamaged();
  VS_ASSIGN_OR_RETURN(const store::StoredBlob blob, file->Finish());
  return Saved(blob);
}

absl::Status CheckCaptureFile(const SavedBlob& file, store::BlobStore& blobs) {
  const absl::StatusOr<int64_t> size = blobs.Size(file.digest());
  if (jobs::IsGone(size.status())) return jobs::PartialDamaged();
  VS_RETURN_IF_ERROR(size.status());
  return *size == file.size() ? absl::OkStatus() : jobs::PartialDamaged();
}

}  // namespace valuescope::kinds
