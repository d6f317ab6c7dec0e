// What an extraction does with responses, given or generated: their means, put together, and the
// vector that is made of them.
#ifndef VALUESCOPE_KINDS_EXTRACTION_WORK_H_
#define VALUESCOPE_KINDS_EXTRACTION_WORK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "engine/served_model.h"
#include "jobs/work.h"
#include "kinds/extraction_outcome.h"
#include "kinds/response_work.h"
#include "kinds/saved_work.pb.h"
#include "store/blob_store.h"
#include "studies/extract_vectors.h"
#include "studies/kept_means.h"
#include "studies/response_means.h"
#include "studies/summed_means.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::kinds {

// Means of responses or sums of these, and the responses where they are generated, those without
// tokens included: these have no means. Of generated ones means are kept, since what a response
// counts in sums depends on all labels.
struct ExtractionSums {
  std::optional<std::vector<SavedResponse>> generated;
  engine::KeptCaptures memory;  // of `generated`
  std::variant<studies::KeptMeans, studies::SummedMeans> means;

  // Of generated responses the size of their record, 8 bytes, little-endian, and the record; then
  // the means.
  std::string Serialize() const;
};

class ExtractionWork : public ResponseWork<ExtractionSums> {
 public:
  ExtractionWork(ResponseInputs inputs, studies::ResponseMeansPlan plan,
                 const model::Architecture& architecture, store::BlobStore& blobs);

  // What generating and labelling cost.
  const v1::Usage& generation_usage() const { return generation_usage_; }

 protected:
  absl::StatusOr<ExtractionSums> BeginSums(int64_t units) override;
  absl::StatusOr<ExtractionSums> ParseSums(absl::string_view bytes, int64_t done,
                                           int64_t units) override;
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        ExtractionSums& sums) override;
  absl::Status AddShard(const ExtractionSums& shard, ExtractionSums& whole) override;
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(
      const ExtractionSums& whole, const Cancellation& cancellation) override;

 private:
  const SavedExtraction& of() const { return inputs_.record.extract_vectors(); }
  bool weigh_by_tokens() const { return of().how().pooling() == v1::POOLING_TOKEN_MEAN; }
  studies::ExtractionOptions options() const;

  // Of generated responses and their prompts, kept while the requests of others, and their own,
  // run.
  absl::StatusOr<engine::KeptCaptures> MemoryOf(const engine::ServedModel& model,
                                                int64_t responses) const;
  absl::Status BeginGenerated(const engine::ServedModel& model, int64_t units,
                              ExtractionSums& sums) const;
  // No more at once than where they are given.
  absl::Status AddMeansOf(const studies::ResponseSet& set, const engine::ServedModel& model,
                          const Cancellation& cancellation, studies::KeptMeans& means);
  absl::StatusOr<studies::ExtractedVector> Extracted(const engine::ServedModel& model,
                                                     const studies::ResponseSet& set,
                                                     const ExtractionSums& whole,
                                                     const Cancellation& cancellation) const;
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> OutcomeOf(const engine::ServedModel& model,
                                                           const studies::ResponseSet& set,
                                                           const ExtractionSums& whole,
                                                           v1::Provenance provenance,
                                                           std::optional<GeneratedSet> generated,
                                                           const Cancellation& cancellation) const;

  const studies::ResponseMeansPlan plan_;
  const studies::MeansShape shape_;
  store::BlobStore& blobs_;
  std::vector<studies::SummedMeans::Place> places_;  // of sums
  v1::Usage generation_usage_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_EXTRACTION_WORK_H_
