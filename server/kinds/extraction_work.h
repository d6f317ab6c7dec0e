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
// tokens included: these have no means.
struct ExtractionSums {
  std::optional<std::vector<SavedResponse>> generated;
  engine::KeptCaptures memory;  // of `generated`
  // Nothing where responses are generated to be summed up later. Sums are of each vector.
  std::variant<std::monostate, studies::KeptMeans, std::vector<studies::SummedMeans>> means;

  // Of generated responses the size of their record, 8 bytes, little-endian, and the record; then
  // the means, or the sums one after another.
  std::string Serialize() const;
};

// What a response counts in sums depends on all labels. Where sums are made of generated responses
// all of them are generated and labelled first, by the shards that prepare, and the others sum up
// those that have tokens, cut as if they had been given; units beyond the last of these are none.
class ExtractionWork : public ResponseWork<ExtractionSums> {
 public:
  ExtractionWork(ResponseInputs inputs, studies::ResponseMeansPlan plan,
                 const model::Architecture& architecture, store::BlobStore& blobs);

  jobs::Extent extent() const override;
  std::vector<store::Observed> Observe(const jobs::UnitRange& units) const override;

  // What generating and labelling cost.
  const v1::Usage& generation_usage() const { return generation_usage_; }

 protected:
  absl::StatusOr<ExtractionSums> BeginSums(int64_t units) override;
  absl::StatusOr<ExtractionSums> ParseSums(absl::string_view bytes, int64_t done,
                                           int64_t units) override;
  absl::Status PrepareWith(const ExtractionSums& generated) override;
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        ExtractionSums& sums) override;
  absl::Status AddShard(const ExtractionSums& shard, ExtractionSums& whole) override;
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(
      const ExtractionSums& whole, const Cancellation& cancellation) override;

 private:
  const SavedExtraction& of() const { return inputs_.record.extract_vectors(); }
  bool weigh_by_tokens() const { return of().how().pooling() == v1::POOLING_TOKEN_MEAN; }
  bool generates() const { return inputs_.generation != nullptr; }
  // Whether what is begun now is sums: of generated responses once all are there.
  bool sums_up() const { return of().sums_alone() && !(generates() && places_.empty()); }
  // The responses that the vector is made of; of generated ones once all are there.
  const studies::ResponseSet& set() const { return generates() ? prepared_ : inputs_.responses; }
  studies::ExtractionOptions options() const;

  // Of generated responses and their prompts, kept while the requests of others, and their own,
  // run.
  absl::StatusOr<engine::KeptCaptures> MemoryOf(const engine::ServedModel& model,
                                                int64_t responses) const;
  absl::Status BeginGenerated(const engine::ServedModel& model, int64_t units,
                              ExtractionSums& sums) const;
  absl::Status AddGenerated(const jobs::UnitRange& units, const engine::ServedModel& model,
                            const Cancellation& cancellation, ExtractionSums& sums);
  // Finds the places in sums, unless that was done.
  absl::Status FindPlaces(const engine::ServedModel& model);
  absl::StatusOr<std::vector<studies::SummedMeans>> BeginSummed(const engine::ServedModel& model);
  absl::StatusOr<std::vector<studies::SummedMeans>> ParseSummed(const engine::ServedModel& model,
                                                                absl::string_view bytes,
                                                                int64_t done);
  absl::Status AddSummed(const jobs::UnitRange& units, const engine::ServedModel& model,
                         const Cancellation& cancellation, std::vector<studies::SummedMeans>& sums);
  // Of generated responses that run once more.
  void AddPromptTokens(int64_t tokens);
  // No more at once than where they are given.
  absl::Status AddMeansOf(const studies::ResponseSet& set, const engine::ServedModel& model,
                          const Cancellation& cancellation, studies::KeptMeans& means);
  // The number-th of the vectors that are made.
  absl::StatusOr<studies::ExtractedVector> Extracted(const engine::ServedModel& model,
                                                     const ExtractionSums& whole, size_t number,
                                                     const Cancellation& cancellation) const;
  studies::StoredVector VectorOf(const engine::ServedModel& model, const std::string& display_name,
                                 v1::Provenance provenance,
                                 studies::ExtractedVector& extracted) const;
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> OutcomeOf(const engine::ServedModel& model,
                                                           const ExtractionSums& whole,
                                                           v1::Provenance provenance,
                                                           std::optional<GeneratedSet> generated,
                                                           const Cancellation& cancellation) const;
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> ManyOutcomeOf(
      const engine::ServedModel& model, const ExtractionSums& whole,
      const Cancellation& cancellation) const;

  const studies::ResponseMeansPlan plan_;
  const studies::MeansShape shape_;
  store::BlobStore& blobs_;
  // Of generated responses, once all are there, as they would be given.
  studies::ResponseSet prepared_;
  engine::KeptCaptures prepared_memory_;
  const std::vector<const SavedValueVector*> made_;               // vectors, of the inputs' record
  std::vector<std::vector<studies::SummedMeans::Place>> places_;  // in sums, by vector, of set()
  engine::KeptCaptures places_memory_;                            // of several
  v1::Usage generation_usage_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_EXTRACTION_WORK_H_
