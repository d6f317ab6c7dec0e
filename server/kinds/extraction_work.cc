#include "kinds/extraction_work.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/number_bytes.h"
#include "base/status_macros.h"
#include "kinds/extraction_options.h"
#include "kinds/generated_responses.h"
#include "kinds/many_vectors_outcome.h"
#include "kinds/value_vectors.h"
#include "services/idempotency.h"
#include "services/judges.h"
#include "studies/response_selection.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::kinds {
namespace {

// Takes the `count` generated responses off the front of a partial's bytes.
absl::StatusOr<std::vector<SavedResponse>> TakeResponses(int64_t count, absl::string_view& bytes) {
  uint64_t size = 0;
  if (bytes.size() < sizeof(size)) return jobs::PartialDamaged();
  TakeNumbers(bytes, std::span(&size, 1));
  SavedResponses responses;
  if (size > bytes.size() || !responses.ParseFromArray(bytes.data(), static_cast<int>(size)) ||
      responses.responses_size() != count) {
    return jobs::PartialDamaged();
  }
  bytes.remove_prefix(size);
  return std::vector<SavedResponse>(responses.responses().begin(), responses.responses().end());
}

// What generated responses tell of the result.
void Complete(const studies::ResponseSet& set, const store::StoredBlob& json_lines,
              v1::Provenance& provenance) {
  provenance.set_num_expressing(set.num_expressing);
  provenance.set_num_non_expressing(set.num_non_expressing);
  provenance.set_num_dropped(set.num_dropped);
  for (const auto& [name, digest] :
       {std::pair<const char*, std::string>{studies::kDataSetInput, json_lines.digest},
        {studies::kResponsesInput, studies::DigestOf(set)}}) {
    v1::ResourceDigest& input = *provenance.add_inputs();
    input.set_name(name);
    input.set_digest(digest);
  }
}

}  // namespace

std::string ExtractionSums::Serialize() const {
  std::string numbers;
  if (const auto* kept = std::get_if<studies::KeptMeans>(&means)) numbers = kept->Serialize();
  if (const auto* summed = std::get_if<std::vector<studies::SummedMeans>>(&means)) {
    for (const studies::SummedMeans& sums : *summed) numbers += sums.Serialize();
  }
  if (!generated) return numbers;
  SavedResponses responses;
  responses.mutable_responses()->Assign(generated->begin(), generated->end());
  const std::string record = services::DeterministicBytes(responses);
  const uint64_t size = record.size();
  std::string bytes(BytesOfNumbers(std::span(&size, 1)));
  absl::StrAppend(&bytes, record, numbers);
  return bytes;
}

ExtractionWork::ExtractionWork(ResponseInputs inputs, studies::ResponseMeansPlan plan,
                               const model::Architecture& architecture, store::BlobStore& blobs)
    : ResponseWork(std::move(inputs)),
      plan_(std::move(plan)),
      shape_(studies::ShapeOf(plan_, architecture)),
      blobs_(blobs),
      made_(MadeVectors(of())) {}

jobs::Extent ExtractionWork::extent() const {
  jobs::Extent extent = ResponseWork::extent();
  if (!generates() || !of().sums_alone()) return extent;
  extent.preparing = {.units = extent.units,
                      .units_per_shard = kGeneratedPerShard,
                      .units_per_chunk = kGeneratedPerShard};
  extent.units *= 2;
  extent.units_per_chunk = kResponsesPerChunk;
  return extent;
}

std::vector<store::Observed> ExtractionWork::Observe(const jobs::UnitRange& units) const {
  std::vector<store::Observed> observed = inputs_.Observe(units);
  // Of several values a response has several labels, or none.
  if (!of().vectors().empty() && !observed.empty()) {
    observed.erase(observed.begin(), observed.end() - 1);
  }
  return observed;
}

absl::StatusOr<ExtractionSums> ExtractionWork::BeginSums(int64_t units) {
  VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
  ExtractionSums sums;
  if (sums_up()) {
    VS_ASSIGN_OR_RETURN(sums.means, BeginSummed(*model));
    return sums;
  }
  VS_RETURN_IF_ERROR(BeginGenerated(*model, units, sums));
  if (of().sums_alone()) return sums;
  VS_ASSIGN_OR_RETURN(sums.means,
                      units > inputs_.record.responses_per_shard()
                          ? studies::KeptMeans::BeginAside(*model->engine, blobs_, units, shape_)
                          : studies::KeptMeans::Begin(*model->engine, units, shape_));
  return sums;
}

absl::StatusOr<ExtractionSums> ExtractionWork::ParseSums(absl::string_view bytes, int64_t done,
                                                         int64_t units) {
  VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
  ExtractionSums sums;
  if (sums_up()) {
    VS_ASSIGN_OR_RETURN(sums.means, ParseSummed(*model, bytes, done));
    return sums;
  }
  VS_RETURN_IF_ERROR(BeginGenerated(*model, units, sums));
  if (sums.generated) {
    VS_ASSIGN_OR_RETURN(sums.generated, TakeResponses(done, bytes));
    done -= std::count_if(sums.generated->begin(), sums.generated->end(),
                          [](const SavedResponse& response) { return response.ids().empty(); });
  }
  if (of().sums_alone()) {
    if (!bytes.empty()) return jobs::PartialDamaged();
    return sums;
  }
  VS_ASSIGN_OR_RETURN(sums.means,
                      studies::KeptMeans::Parse(*model->engine, bytes, done, units, shape_));
  return sums;
}

absl::Status ExtractionWork::PrepareWith(const ExtractionSums& generated) {
  VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
  VS_ASSIGN_OR_RETURN(prepared_memory_,
                      MemoryOf(*model, static_cast<int64_t>(generated.generated->size())));
  prepared_ = SetOf(*inputs_.generation, /*first=*/0, *generated.generated);
  VS_RETURN_IF_ERROR(studies::CheckBothLabels("generated", prepared_));
  VS_RETURN_IF_ERROR(
      WithFieldRenamed(studies::CheckMethod(options().method, prepared_, studies::AllOf(prepared_)),
                       "responses", "generated"));
  if (!of().sums_alone()) return absl::OkStatus();
  VS_RETURN_IF_ERROR(FindPlaces(*model));
  AddPromptTokens(prepared_.num_tokens);  // as they will run once more
  return absl::OkStatus();
}

absl::Status ExtractionWork::AddUnits(const jobs::UnitRange& units,
                                      const Cancellation& cancellation, ExtractionSums& sums) {
  VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
  if (auto* summed = std::get_if<std::vector<studies::SummedMeans>>(&sums.means)) {
    return AddSummed(units, *model, cancellation, *summed);
  }
  if (generates()) return AddGenerated(units, *model, cancellation, sums);
  return studies::AddMeans(*model->engine, inputs_.Of(units), plan_, cancellation,
                           std::get<studies::KeptMeans>(sums.means), cached_tokens_);
}

absl::Status ExtractionWork::AddShard(const ExtractionSums& shard, ExtractionSums& whole) {
  if (shard.generated) {
    whole.generated->insert(whole.generated->end(), shard.generated->begin(),
                            shard.generated->end());
  }
  if (const auto* kept = std::get_if<studies::KeptMeans>(&shard.means)) {
    return std::get<studies::KeptMeans>(whole.means).Add(*kept);
  }
  const auto* summed = std::get_if<std::vector<studies::SummedMeans>>(&shard.means);
  if (summed == nullptr) return absl::OkStatus();
  if (std::holds_alternative<std::monostate>(whole.means)) {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    VS_ASSIGN_OR_RETURN(whole.means, BeginSummed(*model));
  }
  auto& sums = std::get<std::vector<studies::SummedMeans>>(whole.means);
  for (size_t v = 0; v < sums.size(); ++v) VS_RETURN_IF_ERROR(sums[v].Add((*summed)[v]));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<jobs::Outcome>> ExtractionWork::FinishSums(
    const ExtractionSums& whole, const Cancellation& cancellation) {
  VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
  if (!of().vectors().empty()) return ManyOutcomeOf(*model, whole, cancellation);
  v1::Provenance provenance = inputs_.record.provenance();
  if (!generates()) {
    return OutcomeOf(*model, whole, std::move(provenance), /*generated=*/std::nullopt,
                     cancellation);
  }
  if (!of().sums_alone()) VS_RETURN_IF_ERROR(PrepareWith(whole));
  GeneratedSet generated{.json_lines = {}, .mean_answer_mass = MeanAnswerMass(*whole.generated)};
  VS_ASSIGN_OR_RETURN(generated.json_lines, WriteJsonLines(blobs_, prepared_));
  Complete(prepared_, generated.json_lines, provenance);
  return OutcomeOf(*model, whole, std::move(provenance), std::move(generated), cancellation);
}

studies::ExtractionOptions ExtractionWork::options() const {
  return {.method = MethodOf(of().how()),
          .pooling = of().how().pooling(),
          .intervals = of().bootstrap_samples() > 0,
          .inverse_regularization = of().how().inverse_regularization()};
}

absl::StatusOr<engine::KeptCaptures> ExtractionWork::MemoryOf(const engine::ServedModel& model,
                                                              int64_t responses) const {
  return model.engine->KeepCaptures(inputs_.generation->MemoryOf(responses));
}

absl::Status ExtractionWork::BeginGenerated(const engine::ServedModel& model, int64_t units,
                                            ExtractionSums& sums) const {
  if (!generates()) return absl::OkStatus();
  const int64_t responses = std::min(units, inputs_.record.num_responses());
  VS_ASSIGN_OR_RETURN(sums.memory, MemoryOf(model, responses));
  sums.generated.emplace();
  return absl::OkStatus();
}

absl::Status ExtractionWork::AddGenerated(const jobs::UnitRange& units,
                                          const engine::ServedModel& model,
                                          const Cancellation& cancellation, ExtractionSums& sums) {
  const services::JudgedFor whom = {
      .tenant = inputs_.tenant, .background = plan_.background, .cancellation = cancellation};
  VS_ASSIGN_OR_RETURN(std::vector<SavedResponse> made,
                      GenerateUnits(*inputs_.generation, model, units, whom, generation_usage_));
  if (auto* means = std::get_if<studies::KeptMeans>(&sums.means)) {
    const studies::ResponseSet set = SetOf(*inputs_.generation, units.first, made);
    VS_RETURN_IF_ERROR(AddMeansOf(set, model, cancellation, *means));
  }
  std::move(made.begin(), made.end(), std::back_inserter(*sums.generated));
  return absl::OkStatus();
}

// Before a chunk runs, so that a job's spec is opened without it.
absl::Status ExtractionWork::FindPlaces(const engine::ServedModel& model) {
  if (!places_.empty()) return absl::OkStatus();
  if (!of().vectors().empty()) {
    VS_ASSIGN_OR_RETURN(places_memory_, model.engine->KeepCaptures(BytesOfPlaces(of())));
  }
  for (const SavedValueVector* vector : made_) {
    places_.push_back(studies::PlacesOf(set(), SelectionOf(vector, set()), of().how().pooling()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<studies::SummedMeans>> ExtractionWork::BeginSummed(
    const engine::ServedModel& model) {
  VS_RETURN_IF_ERROR(FindPlaces(model));
  std::vector<studies::SummedMeans> sums;
  while (sums.size() < made_.size()) {
    VS_ASSIGN_OR_RETURN(sums.emplace_back(),
                        studies::SummedMeans::Begin(*model.engine, shape_, weigh_by_tokens()));
  }
  return sums;
}

// Of generated responses a shard's last units may be none, and of several vectors each is of some.
absl::StatusOr<std::vector<studies::SummedMeans>> ExtractionWork::ParseSummed(
    const engine::ServedModel& model, absl::string_view bytes, int64_t done) {
  VS_RETURN_IF_ERROR(FindPlaces(model));
  const auto size = static_cast<size_t>(studies::SummedMeans::Bytes(shape_, weigh_by_tokens()));
  if (bytes.size() != made_.size() * size) return jobs::PartialDamaged();
  std::vector<studies::SummedMeans> sums;
  while (!bytes.empty()) {
    VS_ASSIGN_OR_RETURN(sums.emplace_back(),
                        studies::SummedMeans::Parse(*model.engine, bytes.substr(0, size), done,
                                                    shape_, weigh_by_tokens()));
    bytes.remove_prefix(size);
  }
  const bool of_all = !generates() && of().vectors().empty();
  if (of_all && sums.front().count() != done) return jobs::PartialDamaged();
  return sums;
}

absl::Status ExtractionWork::AddSummed(const jobs::UnitRange& units,
                                       const engine::ServedModel& model,
                                       const Cancellation& cancellation,
                                       std::vector<studies::SummedMeans>& sums) {
  const std::span<const studies::LabelledResponse> all = set().responses;
  const int64_t before = extent().preparing.units;
  const size_t first = std::min<size_t>(static_cast<size_t>(units.first - before), all.size());
  const size_t count = std::min<size_t>(static_cast<size_t>(units.size()), all.size() - first);
  return studies::AddMeans(*model.engine, all.subspan(first, count), static_cast<int64_t>(first),
                           places_, plan_, cancellation, sums, cached_tokens_);
}

absl::Status ExtractionWork::AddMeansOf(const studies::ResponseSet& set,
                                        const engine::ServedModel& model,
                                        const Cancellation& cancellation,
                                        studies::KeptMeans& means) {
  const std::span<const studies::LabelledResponse> all = set.responses;
  for (size_t first = 0; first < all.size(); first += kResponsesPerChunk) {
    const size_t count = std::min<size_t>(kResponsesPerChunk, all.size() - first);
    VS_RETURN_IF_ERROR(studies::AddMeans(*model.engine, all.subspan(first, count), plan_,
                                         cancellation, means, cached_tokens_));
  }
  AddPromptTokens(set.num_tokens);
  return absl::OkStatus();
}

void ExtractionWork::AddPromptTokens(int64_t tokens) {
  generation_usage_.set_prompt_tokens(generation_usage_.prompt_tokens() + tokens);
}

absl::StatusOr<studies::ExtractedVector> ExtractionWork::Extracted(
    const engine::ServedModel& model, const ExtractionSums& whole, size_t number,
    const Cancellation& cancellation) const {
  const studies::ResponseSelection selection = SelectionOf(made_[number], set());
  if (const auto* sums = std::get_if<std::vector<studies::SummedMeans>>(&whole.means)) {
    const studies::SummedMeans& of_vector = (*sums)[number];
    if (of_vector.count() != static_cast<int64_t>(selection.size())) return jobs::PartialDamaged();
    return studies::ExtractVector(set(), selection, of_vector, plan_.layers, options());
  }
  return studies::ExtractVector(*model.engine, set(), selection,
                                std::get<studies::KeptMeans>(whole.means), plan_.layers, options(),
                                cancellation);
}

studies::StoredVector ExtractionWork::VectorOf(const engine::ServedModel& model,
                                               const std::string& display_name,
                                               v1::Provenance provenance,
                                               studies::ExtractedVector& extracted) const {
  studies::StoredVector vector;
  vector.record = studies::VectorWithin(model, plan_.site, plan_.layers);
  vector.record.set_display_name(display_name);
  for (v1::VectorStatistics& row : extracted.statistics) {
    *vector.record.add_statistics() = std::move(row);
  }
  *vector.record.mutable_provenance() = std::move(provenance);
  vector.rows = std::move(extracted.rows);
  return vector;
}

absl::StatusOr<std::unique_ptr<jobs::Outcome>> ExtractionWork::OutcomeOf(
    const engine::ServedModel& model, const ExtractionSums& whole, v1::Provenance provenance,
    std::optional<GeneratedSet> generated, const Cancellation& cancellation) const {
  VS_ASSIGN_OR_RETURN(studies::ExtractedVector extracted,
                      Extracted(model, whole, /*number=*/0, cancellation));
  studies::StoredVector vector =
      VectorOf(model, inputs_.record.display_name(), std::move(provenance), extracted);
  return std::make_unique<OneVectorOutcome>(options().method, std::move(vector),
                                            std::move(extracted.warnings), set().num_tokens,
                                            std::move(generated));
}

// One vector at a time is in memory.
absl::StatusOr<std::unique_ptr<jobs::Outcome>> ExtractionWork::ManyOutcomeOf(
    const engine::ServedModel& model, const ExtractionSums& whole,
    const Cancellation& cancellation) const {
  auto outcome =
      std::make_unique<ManyVectorsOutcome>(options().method, inputs_.record, set().num_tokens);
  for (size_t number = 0; number < made_.size(); ++number) {
    const SavedValueVector& made = *made_[number];
    VS_ASSIGN_OR_RETURN(studies::ExtractedVector extracted,
                        Extracted(model, whole, number, cancellation));
    VS_RETURN_IF_ERROR(
        outcome->Add(VectorOf(model, made.of().display_name(), made.provenance(), extracted),
                     std::move(extracted.warnings), blobs_));
  }
  return outcome;
}

}  // namespace valuescope::kinds
