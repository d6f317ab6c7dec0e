// The work of a capture. A unit is an input; the inputs of a shard make about one file
// (capture_plan.h), which is put together when they are done (capture_files.h), so that nothing
// large is left to the merge. A partial names blobs and stays small.
#ifndef VALUESCOPE_KINDS_CAPTURE_WORK_H_
#define VALUESCOPE_KINDS_CAPTURE_WORK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "jobs/work.h"
#include "kinds/capture_files.h"
#include "kinds/capture_index.h"
#include "kinds/capture_plan.h"
#include "kinds/response_work.h"
#include "kinds/saved_work.pb.h"
#include "nlohmann/json.hpp"
#include "store/blob_store.h"

namespace valuescope::kinds {

class CaptureOutcome : public jobs::Outcome {
 public:
  CaptureOutcome(std::vector<CaptureFile> files, store::StoredBlob index, nlohmann::json summary,
                 v1::Provenance provenance);

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore& blobs) const override;
  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override;
  std::string Summary(const std::vector<store::Resource>& resources) const override;

 private:
  const std::vector<CaptureFile> files_;
  const store::StoredBlob index_;
  const nlohmann::json summary_;
  const v1::Provenance provenance_;
};

struct CapturedInputs {
  SavedCaptures saved;
  engine::KeptCaptures memory;  // of it

  std::string Serialize() const;
  std::vector<std::string> Blobs() const;
};

class CapturingWork : public ResponseWork<CapturedInputs> {
 public:
  // `capture` is what the inputs share, `plan` is of its taps. `blobs` outlives the work.
  CapturingWork(ResponseInputs inputs, engine::Request capture, CapturePlan plan,
                store::BlobStore& blobs);

  // Of all tensors.
  int64_t bytes() const { return bytes_; }
  int64_t num_tensors() const;
  int64_t num_files() const;
  // What is held of so many inputs, bytes.
  int64_t MemoryOf(int64_t inputs) const;

  jobs::Extent extent() const override;

 protected:
  absl::StatusOr<CapturedInputs> BeginSums(int64_t units) override;
  absl::StatusOr<CapturedInputs> ParseSums(absl::string_view bytes, int64_t done,
                                           int64_t units) override;
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        CapturedInputs& sums) override;
  absl::Status AddShard(const CapturedInputs& shard, CapturedInputs& whole) override;
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(
      const CapturedInputs& whole, const Cancellation& cancellation) override;

 private:
  const SavedCapture& of() const { return inputs_.record.capture(); }
  engine::SequenceExtent ExtentOf(int64_t input) const;
  int64_t BytesOfAll() const;
  std::vector<int64_t> FileEnds(const jobs::UnitRange& shard) const;
  absl::Status PutTogether(const jobs::UnitRange& file, const Cancellation& cancellation,
                           SavedCaptures& saved) const;
  absl::StatusOr<std::vector<CaptureFile>> FilesOf(const SavedCaptures& saved) const;
  std::string HeadMetadata() const;
  absl::StatusOr<nlohmann::ordered_json> IndexMetadata(const SavedCaptures& saved) const;

  const engine::Request capture_;
  const CapturePlan plan_;
  store::BlobStore& blobs_;
  const int64_t bytes_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_CAPTURE_WORK_H_
