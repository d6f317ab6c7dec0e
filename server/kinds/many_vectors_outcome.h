// What an extraction of several vectors comes to. Each is written down as it is made, so that
// memory has one at a time; of those that cannot be made the reason stays. A call leaves a summary
// before the vectors: a request that is repeated is answered from it.
#ifndef VALUESCOPE_KINDS_MANY_VECTORS_OUTCOME_H_
#define VALUESCOPE_KINDS_MANY_VECTORS_OUTCOME_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "jobs/job_kind.h"
#include "kinds/extraction_outcome.h"
#include "kinds/saved_work.pb.h"
#include "nlohmann/json.hpp"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::kinds {

class ManyVectorsOutcome : public ExtractionOutcome {
 public:
  // None of the record's vectors is made yet.
  ManyVectorsOutcome(v1::ExtractionMethod method, const SavedWork& record, int64_t num_tokens);
  // The next one that can be made.
  absl::Status Add(studies::StoredVector vector, std::vector<std::string> warnings,
                   store::BlobStore& blobs);

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore& blobs) const override;
  absl::StatusOr<std::vector<store::Resource>> CallResources(
      store::BlobStore& blobs) const override;
  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override;
  std::string Summary(const std::vector<store::Resource>& resources) const override;
  void Tell(const std::vector<store::Resource>& stored,
            v1::ExtractVectorsResponse& response) const override;

 private:
  struct OfVector {
    v1::ValueVectorResult told;  // without vector and statistics
    std::optional<store::Resource> resource;
    studies::StoredVector vector;  // without rows where they do not fit an answer
  };

  nlohmann::json Described(bool with_layers) const;
  absl::StatusOr<jobs::ArtifactDraft> SummaryDraft(store::BlobStore& blobs) const;

  const v1::ExtractionMethod method_;
  const v1::Provenance provenance_;  // of all
  const int64_t num_tokens_;
  std::vector<OfVector> vectors_;  // as the record has them
  size_t num_made_ = 0;
  std::vector<std::string> warnings_;
};

// The answer to a call that is repeated, from the summary that the first one left. NOT_FOUND where
// one of the vectors was deleted since; DATA_LOSS.
absl::Status ReplayManyVectors(const store::Resource& summary, store::Store& store,
                               store::BlobStore& blobs, v1::ExtractVectorsResponse& response);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_MANY_VECTORS_OUTCOME_H_
