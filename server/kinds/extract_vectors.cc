// The kind "extract_vectors": a vector from labelled responses (studies/extract_vectors.h). A unit
// is a response, a shard is a chunk: its partial, the means of its responses, is stored once. Put
// together they are in a scratch file, so disk grows with responses and memory does not. Where even
// the disk would be too small (all neurons of a large model) a partial is sums of the responses of
// many chunks.
//
// Responses may be generated first (generated_responses.h). A shard then generates, labels and runs
// its units, and its partial holds the responses beside their means. What labels there are is known
// once all are there: they are put together, checked and written down at the end, and only the
// vector is left to make, as of responses that were given.
//
// Left by a job: "summary", JSON with counts, statistics a layer and the provenance, nothing of
// time or place; the vector; "responses" where they were generated, JSON Lines of LabelledResponse.
// A call leaves these as artifacts/responses.ID, with the vector's id.
#include "studies/extract_vectors.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/extraction_inputs.h"
#include "kinds/extraction_options.h"
#include "kinds/extraction_outcome.h"
#include "kinds/generated_responses.h"
#include "kinds/kinds.h"
#include "kinds/response_work.h"
#include "services/idempotency.h"
#include "services/intervention_codec.h"
#include "services/judges.h"
#include "services/replays.h"
#include "services/study_codec.h"
#include "studies/kept_means.h"
#include "studies/response_means.h"
#include "studies/stored_vector.h"
#include "studies/summed_means.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::kinds {
namespace {

constexpr char kName[] = "extract_vectors";
constexpr int kDefaultBootstrap = 1000;
constexpr double kDefaultInverseRegularization = 1;

// --- The work ------------------------------------------------------------------------------------

// Means of responses or sums of these, and the responses where they are generated, those without
// tokens included: these have no means. Of generated ones means are kept, since what a response
// counts in sums depends on all labels.
struct ExtractionSums {
  std::optional<std::vector<SavedResponse>> generated;
  engine::KeptCaptures memory;  // of `generated`
  std::variant<studies::KeptMeans, studies::SummedMeans> means;

  // Of generated responses the size of their record, 8 bytes, little-endian, and the record; then
  // the means.
  std::string Serialize() const {
    const std::string numbers = std::visit([](const auto& of) { return of.Serialize(); }, means);
    if (!generated) return numbers;
    SavedResponses responses;
    responses.mutable_responses()->Assign(generated->begin(), generated->end());
    const std::string record = services::DeterministicBytes(responses);
    const uint64_t size = record.size();
    std::string bytes(reinterpret_cast<const char*>(&size), sizeof(size));
    absl::StrAppend(&bytes, record, numbers);
    return bytes;
  }
};

// Takes the `count` generated responses off the front of a partial's bytes.
absl::StatusOr<std::vector<SavedResponse>> TakeResponses(int64_t count, absl::string_view& bytes) {
  uint64_t size = 0;
  if (bytes.size() < sizeof(size)) return jobs::PartialDamaged();
  std::memcpy(&size, bytes.data(), sizeof(size));
  bytes.remove_prefix(sizeof(size));
  SavedResponses responses;
  if (size > bytes.size() || !responses.ParseFromArray(bytes.data(), static_cast<int>(size)) ||
      responses.responses_size() != count) {
    return jobs::PartialDamaged();
  }
  bytes.remove_prefix(size);
  return std::vector<SavedResponse>(responses.responses().begin(), responses.responses().end());
}

class ExtractionWork : public ResponseWork<ExtractionSums> {
 public:
  ExtractionWork(ResponseInputs inputs, studies::ResponseMeansPlan plan,
                 const model::Architecture& architecture, store::BlobStore& blobs)
      : ResponseWork(std::move(inputs)),
        plan_(std::move(plan)),
        shape_(studies::ShapeOf(plan_, architecture)),
        blobs_(blobs) {
    if (of().sums_alone()) places_ = studies::PlacesOf(inputs_.responses, of().how().pooling());
  }

  // What generating and labelling cost.
  const v1::Usage& generation_usage() const { return generation_usage_; }

 protected:
  absl::StatusOr<ExtractionSums> BeginSums(int64_t units) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    ExtractionSums sums;
    if (of().sums_alone()) {
      VS_ASSIGN_OR_RETURN(sums.means,
                          studies::SummedMeans::Begin(*model->engine, shape_, weigh_by_tokens()));
      return sums;
    }
    VS_RETURN_IF_ERROR(BeginGenerated(*model, units, sums));
    VS_ASSIGN_OR_RETURN(sums.means,
                        units > inputs_.record.responses_per_shard()
                            ? studies::KeptMeans::BeginAside(*model->engine, blobs_, units, shape_)
                            : studies::KeptMeans::Begin(*model->engine, units, shape_));
    return sums;
  }
  absl::StatusOr<ExtractionSums> ParseSums(absl::string_view bytes, int64_t done,
                                           int64_t units) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    ExtractionSums sums;
    if (of().sums_alone()) {
      VS_ASSIGN_OR_RETURN(sums.means, studies::SummedMeans::Parse(*model->engine, bytes, done,
                                                                  shape_, weigh_by_tokens()));
      return sums;
    }
    VS_RETURN_IF_ERROR(BeginGenerated(*model, units, sums));
    if (sums.generated) {
      VS_ASSIGN_OR_RETURN(sums.generated, TakeResponses(done, bytes));
      done -= std::count_if(sums.generated->begin(), sums.generated->end(),
                            [](const SavedResponse& response) { return response.ids().empty(); });
    }
    VS_ASSIGN_OR_RETURN(sums.means,
                        studies::KeptMeans::Parse(*model->engine, bytes, done, units, shape_));
    return sums;
  }
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        ExtractionSums& sums) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    if (auto* of_sums = std::get_if<studies::SummedMeans>(&sums.means)) {
      const auto places = std::span<const studies::SummedMeans::Place>(places_).subspan(
          static_cast<size_t>(units.first), static_cast<size_t>(units.size()));
      return studies::AddMeans(*model->engine, inputs_.Of(units), places, plan_, cancellation,
                               *of_sums, cached_tokens_);
    }
    auto& means = std::get<studies::KeptMeans>(sums.means);
    if (inputs_.generation == nullptr) {
      return studies::AddMeans(*model->engine, inputs_.Of(units), plan_, cancellation, means,
                               cached_tokens_);
    }
    const services::JudgedFor whom = {
        .tenant = inputs_.tenant, .background = plan_.background, .cancellation = cancellation};
    VS_ASSIGN_OR_RETURN(std::vector<SavedResponse> made,
                        GenerateUnits(*inputs_.generation, *model, units, whom, generation_usage_));
    const studies::ResponseSet set = SetOf(*inputs_.generation, units.first, made);
    VS_RETURN_IF_ERROR(AddMeansOf(set, *model, cancellation, means));
    std::move(made.begin(), made.end(), std::back_inserter(*sums.generated));
    return absl::OkStatus();
  }
  absl::Status AddShard(const ExtractionSums& shard, ExtractionSums& whole) override {
    if (whole.generated) {
      whole.generated->insert(whole.generated->end(), shard.generated->begin(),
                              shard.generated->end());
    }
    return std::visit(
        [&](auto& sums) { return sums.Add(std::get<std::decay_t<decltype(sums)>>(shard.means)); },
        whole.means);
  }
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(
      const ExtractionSums& whole, const Cancellation& cancellation) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    v1::Provenance provenance = inputs_.record.provenance();
    if (inputs_.generation == nullptr) {
      return OutcomeOf(*model, inputs_.responses, whole, std::move(provenance),
                       /*generated=*/std::nullopt, cancellation);
    }
    // Once more, as a set.
    VS_ASSIGN_OR_RETURN(const auto memory,
                        MemoryOf(*model, static_cast<int64_t>(whole.generated->size())));
    const studies::ResponseSet set = SetOf(*inputs_.generation, /*first=*/0, *whole.generated);
    VS_RETURN_IF_ERROR(studies::CheckBothLabels("generated", set));
    VS_RETURN_IF_ERROR(WithFieldRenamed(studies::CheckMethod(options().method, set.responses),
                                        "responses", "generated"));
    GeneratedSet generated{.json_lines = {}, .mean_answer_mass = MeanAnswerMass(*whole.generated)};
    VS_ASSIGN_OR_RETURN(generated.json_lines, WriteJsonLines(blobs_, set));
    Complete(set, generated.json_lines, provenance);
    return OutcomeOf(*model, set, whole, std::move(provenance), std::move(generated), cancellation);
  }

 private:
  const SavedExtraction& of() const { return inputs_.record.extract_vectors(); }
  bool weigh_by_tokens() const { return of().how().pooling() == v1::POOLING_TOKEN_MEAN; }

  // Of generated responses and their prompts, kept while the requests of others, and their own,
  // run.
  absl::StatusOr<engine::KeptCaptures> MemoryOf(const engine::ServedModel& model,
                                                int64_t responses) const {
    return model.engine->KeepCaptures(inputs_.generation->MemoryOf(responses));
  }

  absl::Status BeginGenerated(const engine::ServedModel& model, int64_t units,
                              ExtractionSums& sums) const {
    if (inputs_.generation == nullptr) return absl::OkStatus();
    VS_ASSIGN_OR_RETURN(sums.memory, MemoryOf(model, units));
    sums.generated.emplace();
    return absl::OkStatus();
  }

  // No more at once than where they are given.
  absl::Status AddMeansOf(const studies::ResponseSet& set, const engine::ServedModel& model,
                          const Cancellation& cancellation, studies::KeptMeans& means) {
    const std::span<const studies::LabelledResponse> all = set.responses;
    for (size_t first = 0; first < all.size(); first += kResponsesPerChunk) {
      const size_t count = std::min<size_t>(kResponsesPerChunk, all.size() - first);
      VS_RETURN_IF_ERROR(studies::AddMeans(*model.engine, all.subspan(first, count), plan_,
                                           cancellation, means, cached_tokens_));
    }
    generation_usage_.set_prompt_tokens(generation_usage_.prompt_tokens() + set.num_tokens);
    return absl::OkStatus();
  }

  // What generated responses tell of the result.
  static void Complete(const studies::ResponseSet& set, const store::StoredBlob& json_lines,
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

  studies::ExtractionOptions options() const {
    return {.method = MethodOf(of().how()),
            .pooling = of().how().pooling(),
            .intervals = of().bootstrap_samples() > 0,
            .inverse_regularization = of().how().inverse_regularization()};
  }

  absl::StatusOr<studies::ExtractedVector> Extracted(const engine::ServedModel& model,
                                                     const studies::ResponseSet& set,
                                                     const ExtractionSums& whole,
                                                     const Cancellation& cancellation) const {
    if (const auto* sums = std::get_if<studies::SummedMeans>(&whole.means)) {
      return studies::ExtractVector(set, *sums, plan_.layers, options());
    }
    return studies::ExtractVector(*model.engine, set, std::get<studies::KeptMeans>(whole.means),
                                  plan_.layers, options(), cancellation);
  }

  absl::StatusOr<std::unique_ptr<jobs::Outcome>> OutcomeOf(const engine::ServedModel& model,
                                                           const studies::ResponseSet& set,
                                                           const ExtractionSums& whole,
                                                           v1::Provenance provenance,
                                                           std::optional<GeneratedSet> generated,
                                                           const Cancellation& cancellation) const {
    VS_ASSIGN_OR_RETURN(studies::ExtractedVector extracted,
                        Extracted(model, set, whole, cancellation));
    studies::StoredVector vector;
    vector.record = studies::VectorWithin(model, plan_.site, plan_.layers);
    vector.record.set_display_name(inputs_.record.display_name());
    for (v1::VectorStatistics& row : extracted.statistics) {
      *vector.record.add_statistics() = std::move(row);
    }
    *vector.record.mutable_provenance() = std::move(provenance);
    vector.rows = std::move(extracted.rows);
    return std::make_unique<ExtractionOutcome>(options().method, std::move(vector),
                                               std::move(extracted.warnings), set.num_tokens,
                                               std::move(generated));
  }

  const studies::ResponseMeansPlan plan_;
  const studies::MeansShape shape_;
  store::BlobStore& blobs_;
  std::vector<studies::SummedMeans::Place> places_;  // of sums
  v1::Usage generation_usage_;
};

// --- The request ---------------------------------------------------------------------------------

// Method and pooling, in the record and its provenance. Records of version 2 have the default of
// both.
void SetHow(const v1::ExtractVectorsRequest& request, SavedWork& record) {
  SavedExtractionMethod how;
  how.set_method(MethodOf(request));
  how.set_pooling(request.pooling() == v1::POOLING_UNSPECIFIED ? v1::POOLING_RESPONSE_MEAN
                                                               : request.pooling());
  how.set_inverse_regularization(request.has_inverse_regularization()
                                     ? request.inverse_regularization()
                                     : kDefaultInverseRegularization);
  record.mutable_provenance()->set_pooling(how.pooling());
  record.mutable_provenance()->set_sign_rule(std::string(SignRuleOf(how.method())));
  if (how.method() == v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS &&
      how.pooling() == v1::POOLING_RESPONSE_MEAN) {
    return;
  }
  record.set_format_version(std::max(record.format_version(), kSavedWorkWithMethods));
  *record.mutable_extract_vectors()->mutable_how() = std::move(how);
}

class ExtractVectorsKind
    : public ResponseKind<v1::ExtractVectorsRequest, v1::ExtractVectorsResponse, ExtractionWork,
                          ExtractionOutcome> {
 public:
  explicit ExtractVectorsKind(const Sources& sources) : ResponseKind(sources) {}

  absl::string_view Name() const override { return kName; }

  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view tenant,
                                                   absl::string_view spec) override {
    VS_ASSIGN_OR_RETURN(const SavedWork record, ParseSavedWork(spec));
    VS_ASSIGN_OR_RETURN(ResponseInputs inputs,
                        ResponseInputs::Open(sources_, tenant, record, SavedWork::kExtractVectors));
    const SavedExtraction& of = record.extract_vectors();
    VS_ASSIGN_OR_RETURN(const model::Site site, services::SiteFromProto("site", of.site()));
    studies::ResponseMeansPlan plan{.tenant = inputs.tenant,
                                    .site = site,
                                    .layers = {of.layers().begin(), of.layers().end()},
                                    .tokens = studies::TokensOf(of.how().pooling()),
                                    .interventions = nullptr,
                                    .background = true,
                                    .token_norms = of.token_norms()};
    VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
    services::UsedResources used;
    VS_ASSIGN_OR_RETURN(plan.interventions,
                        services::PreparedFromProto(
                            of.interventions(), {inputs.tenant, *model, *sources_.vectors}, used));
    return std::make_unique<ExtractionWork>(std::move(inputs), std::move(plan), model->architecture,
                                            *sources_.blobs);
  }

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(
      const v1::ExtractVectorsRequest& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    services::ResolvedWork resolved;
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", request.model(), *sources_.models));
    VS_RETURN_IF_ERROR(CheckExtractionOptions(request));
    studies::ResponseMeansPlan plan{.tenant = context.tenant,
                                    .tokens = studies::TokensOf(request.pooling()),
                                    .background = !options.at_once};
    plan.token_norms = plan.tokens == engine::TokenKind::kResponse;
    VS_ASSIGN_OR_RETURN(plan.site, services::SiteFromProto("site", request.site()));
    VS_ASSIGN_OR_RETURN(
        plan.layers,
        services::LayersFromProto("layers", request.has_layers() ? &request.layers() : nullptr,
                                  {.site = plan.site,
                                   .num_layers = model->architecture.num_layers,
                                   .all_by_default = true}));
    VS_ASSIGN_OR_RETURN(
        plan.interventions,
        services::PreparedFromProto(request.interventions(),
                                    {context.tenant, *model, *sources_.vectors}, resolved.used));
    VS_ASSIGN_OR_RETURN(
        ResponseInputs inputs,
        ExtractionInputsOf(request, model, plan, context, options, sources_, resolved.used));
    SavedWork& record = inputs.record;
    SavedExtraction& extraction = *record.mutable_extract_vectors();
    extraction.set_site(services::SiteToProto(plan.site));
    extraction.set_token_norms(plan.token_norms);
    extraction.mutable_layers()->Assign(plan.layers.begin(), plan.layers.end());
    extraction.set_bootstrap_samples(request.has_bootstrap_samples() ? request.bootstrap_samples()
                                                                     : kDefaultBootstrap);
    SetHow(request, record);
    const studies::MeansShape shape = studies::ShapeOf(plan, model->architecture);
    VS_RETURN_IF_ERROR(ChooseWhatIsKept(shape, inputs));
    VS_RETURN_IF_ERROR(CheckMemory(inputs, shape));
    if (!options.at_once) {
      VS_RETURN_IF_ERROR(
          context.Hold(static_cast<int64_t>(request.interventions().SpaceUsedExcludingSelfLong())));
      *extraction.mutable_interventions() = request.interventions();
      VS_RETURN_IF_ERROR(CheckStorable(inputs, context));
    }
    const int64_t vector_bytes = studies::KeptMeans::BytesAside(/*responses=*/1, shape);
    resolved.estimate = inputs.generation == nullptr
                            ? EstimateOf(*model, inputs.responses, vector_bytes)
                            : EstimateOfGenerated(*model, *inputs.generation, vector_bytes);
    resolved.estimate.scratch_bytes = ScratchBytes(record, shape);
    resolved.needs = inputs.needs();
    resolved.work = std::make_unique<ExtractionWork>(std::move(inputs), std::move(plan),
                                                     model->architecture, *sources_.blobs);
    return resolved;
  }

  void Answered(const v1::ExtractVectorsRequest& request, const services::ResolvedWork& resolved,
                const ExtractionWork& work, const ExtractionOutcome& outcome,
                const std::vector<store::Resource>& stored,
                v1::ExtractVectorsResponse& response) const override {
    const studies::StoredVector& vector = outcome.vector;
    const bool fits = services::DataBytes(vector, static_cast<size_t>(vector.num_rows())) <=
                      services::kMaxMessageData;
    *response.mutable_vector() = services::VectorToProto(
        stored.front(), vector, {.with_data = fits, .with_statistics = false, .layers = {}});
    *response.mutable_statistics() = vector.record.statistics();
    if (outcome.generated()) {
      TellGenerated(work, vector.record.provenance(), stored.back(), response);
    } else {
      TellInputs(resolved, work, response);
    }
    response.set_seed(request.seed());
    for (const std::string& warning : outcome.warnings) response.add_warnings(warning);
  }

  absl::Status Replayed(const store::Resource& earlier,
                        v1::ExtractVectorsResponse& response) const override {
    VS_RETURN_IF_ERROR(services::ReplayExtractVectors(earlier, *sources_.blobs, &response));
    const auto responses = sources_.store->GetResource(
        earlier.tenant, store::ResourceKind::kArtifact, ResponsesIdOf(earlier.id));
    if (absl::IsNotFound(responses.status())) return absl::OkStatus();
    VS_RETURN_IF_ERROR(responses.status());
    response.set_responses_artifact(store::ResourceName(responses->kind, responses->id));
    return absl::OkStatus();
  }

 private:
  // Every response is generated, and then runs once more as one that was given does.
  static services::WorkEstimate EstimateOfGenerated(const engine::ServedModel& model,
                                                    const Generation& generation,
                                                    int64_t vector_bytes) {
    constexpr int64_t kTokenBytes = 8;  // of JSON, about
    const GenerationCost cost = generation.MostCost();
    return EstimateOf(model, 2 * cost.tokens + cost.judge_tokens,
                      cost.generated_tokens + generation.units() + cost.judgements,
                      vector_bytes + kTokenBytes * cost.tokens);
  }

  static void TellGenerated(const ExtractionWork& work, const v1::Provenance& provenance,
                            const store::Resource& responses,
                            v1::ExtractVectorsResponse& response) {
    response.set_num_dropped(provenance.num_dropped());
    *response.mutable_usage() = work.generation_usage();
    response.mutable_usage()->set_cached_prompt_tokens(
        work.generation_usage().cached_prompt_tokens() + work.cached_tokens());
    services::AddDigests(provenance, response.mutable_digests());
    response.set_responses_artifact(store::ResourceName(responses.kind, responses.id));
  }

  // Means where the disk has room for them; then shards are small, since a partial is stored once.
  absl::Status ChooseWhatIsKept(const studies::MeansShape& shape, ResponseInputs& inputs) const {
    SavedWork& record = inputs.record;
    const int64_t bytes = ScratchBytes(record, shape);
    if (bytes <= sources_.extraction_scratch_bytes) return absl::OkStatus();
    const bool by_sums =
        MethodOf(record.extract_vectors().how()) == v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS &&
        inputs.generation == nullptr;
    if (!by_sums) {
      return NeverFits(
          "MEANS_TOO_LARGE",
          absl::StrCat("the means of all responses take ", bytes, " bytes of disk, allowed are ",
                       sources_.extraction_scratch_bytes,
                       " (--extraction_scratch_bytes); choose fewer layers, or "
                       "DIFFERENCE_IN_MEANS of given responses, which does without"));
    }
    record.mutable_extract_vectors()->set_sums_alone(true);
    record.set_format_version(std::max(record.format_version(), kSavedWorkWithMethods));
    record.set_responses_per_shard(ResponsesPerLargeShard(record.num_responses()));
    return absl::OkStatus();
  }

  // What the vector is made with at the end, so that nothing runs in vain.
  static absl::Status CheckMemory(const ResponseInputs& inputs, const studies::MeansShape& shape) {
    return KeptFor(*inputs.held->engine, BytesAtEnd(inputs, shape), /*can_wait=*/true).status();
  }

  static int64_t BytesAtEnd(const ResponseInputs& inputs, const studies::MeansShape& shape) {
    const SavedExtraction& extraction = inputs.record.extract_vectors();
    if (extraction.sums_alone())
      return 2 * BytesOfSums(inputs.record, shape);  // a shard's, and all
    const v1::ExtractionMethod method = MethodOf(extraction.how());
    const int64_t responses = inputs.record.num_responses();
    const int64_t bytes = studies::KeptMeans::BytesInMemory(responses, shape);
    if (inputs.generation == nullptr) {
      return bytes + studies::WorkingBytes(inputs.responses, shape.width, method);
    }
    const int64_t queries = inputs.generation->queries.queries_size();
    return bytes + studies::WorkingBytes(responses, queries, shape.width, method) +
           2 * inputs.generation->MemoryOf(responses);
  }

  static int64_t BytesOfSums(const SavedWork& record, const studies::MeansShape& shape) {
    return studies::SummedMeans::Bytes(
        shape, record.extract_vectors().how().pooling() == v1::POOLING_TOKEN_MEAN);
  }

  // Partial results, and what they are put together in.
  static int64_t ScratchBytes(const SavedWork& record, const studies::MeansShape& shape) {
    const int64_t responses = record.num_responses();
    if (record.extract_vectors().sums_alone()) {
      const int64_t shards = (responses - 1) / record.responses_per_shard() + 1;
      return shards * BytesOfSums(record, shape);
    }
    return 2 * studies::KeptMeans::BytesAside(responses, shape) +
           studies::KeptMeans::BytesInMemory(responses, shape);
  }
};

}  // namespace

std::unique_ptr<services::Kind> ExtractVectors(const Sources& sources) {
  return std::make_unique<ExtractVectorsKind>(sources);
}

}  // namespace valuescope::kinds
