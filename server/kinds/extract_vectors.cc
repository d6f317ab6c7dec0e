// The kind "extract_vectors": a vector from labelled responses (studies/extract_vectors.h), or
// several of the same responses, which run once (value_vectors.h). A unit is a response, a shard is
// a chunk: its partial, the means of its responses, is stored once, however many vectors are made
// of them. Put together they are in a scratch file, so disk grows with responses and memory does
// not. Where even the disk would be too small (all neurons of a large model) a partial is sums of
// the responses of many chunks, of each vector its own.
//
// Responses may be generated first (generated_responses.h). A shard then generates, labels and runs
// its units, and its partial holds the responses beside their means. What labels there are is known
// once all are there: they are put together, checked and written down at the end, and only the
// vector is left to make, as of responses that were given. For sums labels have to be known before:
// every response is two units, one that generates and labels it and later one that runs it.
//
// Left by a job: "summary", JSON with counts, statistics a layer and the provenance, nothing of
// time or place; the vector or vectors; "responses" where they were generated, JSON Lines of
// LabelledResponse. A call leaves these as artifacts/responses.ID, with the vector's id, and the
// summary of several vectors as artifacts/vectors.ID.
#include "studies/extract_vectors.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/extraction_inputs.h"
#include "kinds/extraction_options.h"
#include "kinds/extraction_outcome.h"
#include "kinds/extraction_work.h"
#include "kinds/generated_responses.h"
#include "kinds/kinds.h"
#include "kinds/many_vectors_outcome.h"
#include "kinds/response_work.h"
#include "kinds/value_vectors.h"
#include "services/intervention_codec.h"
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
  const auto record_how = [&how](v1::Provenance& provenance) {
    provenance.set_pooling(how.pooling());
    provenance.set_sign_rule(std::string(SignRuleOf(how.method())));
  };
  record_how(*record.mutable_provenance());
  for (SavedValueVector& vector : *record.mutable_extract_vectors()->mutable_vectors()) {
    record_how(*vector.mutable_provenance());
  }
  if (how.method() == v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS &&
      how.pooling() == v1::POOLING_RESPONSE_MEAN) {
    return;
  }
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
    if (options.at_once) VS_RETURN_IF_ERROR(CheckVectorsOfCall(request));
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
    const int64_t vector_bytes =
        NumVectors(record) * studies::KeptMeans::BytesAside(/*responses=*/1, shape);
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
    outcome.Tell(stored, response);
    if (const v1::Provenance* provenance = outcome.generated()) {
      TellGenerated(work, *provenance, response);
    } else {
      TellInputs(resolved, work, response);
    }
    response.set_seed(request.seed());
  }

  absl::Status Replayed(const store::Resource& earlier,
                        v1::ExtractVectorsResponse& response) const override {
    if (earlier.kind == store::ResourceKind::kArtifact) {
      return ReplayManyVectors(earlier, *sources_.store, *sources_.blobs, response);
    }
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
                            v1::ExtractVectorsResponse& response) {
    response.set_num_dropped(provenance.num_dropped());
    *response.mutable_usage() = work.generation_usage();
    response.mutable_usage()->set_cached_prompt_tokens(
        work.generation_usage().cached_prompt_tokens() + work.cached_tokens());
    services::AddDigests(provenance, response.mutable_digests());
  }

  // Means where the disk has room for them; then shards are small, since a partial is stored once.
  absl::Status ChooseWhatIsKept(const studies::MeansShape& shape, ResponseInputs& inputs) const {
    SavedWork& record = inputs.record;
    const int64_t bytes = ScratchBytes(record, shape);
    if (bytes <= sources_.extraction_scratch_bytes) return absl::OkStatus();
    const bool by_sums =
        MethodOf(record.extract_vectors().how()) == v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS;
    if (!by_sums) {
      return NeverFits(
          "MEANS_TOO_LARGE",
          absl::StrCat("the means of all responses take ", bytes, " bytes of disk, allowed are ",
                       sources_.extraction_scratch_bytes,
                       " (--extraction_scratch_bytes); choose fewer layers, or "
                       "DIFFERENCE_IN_MEANS, which does without"));
    }
    record.mutable_extract_vectors()->set_sums_alone(true);
    record.set_responses_per_shard(ResponsesPerLargeShard(record.num_responses()));
    return absl::OkStatus();
  }

  // What the means of a shard take, and what the vector is made with at the end, so that nothing
  // runs in vain.
  static absl::Status CheckMemory(const ResponseInputs& inputs, const studies::MeansShape& shape) {
    const int64_t bytes = std::max(BytesOfShard(inputs.record, shape), BytesAtEnd(inputs, shape));
    return KeptFor(*inputs.held->engine, bytes, /*can_wait=*/true).status();
  }

  static int64_t BytesOfShard(const SavedWork& record, const studies::MeansShape& shape) {
    if (record.extract_vectors().sums_alone()) return BytesOfSums(record, shape);
    const int64_t responses = std::min(record.num_responses(), record.responses_per_shard());
    return studies::KeptMeans::BytesInMemory(responses, shape) +
           studies::KeptMeans::BytesAside(responses, shape);
  }

  static int64_t BytesAtEnd(const ResponseInputs& inputs, const studies::MeansShape& shape) {
    const SavedExtraction& extraction = inputs.record.extract_vectors();
    const int64_t responses = inputs.record.num_responses();
    const int64_t generated =
        inputs.generation == nullptr ? 0 : 2 * inputs.generation->MemoryOf(responses);
    if (extraction.sums_alone()) {
      return 2 * BytesOfSums(inputs.record, shape) + BytesOfPlaces(extraction) +
             generated;  // a shard's, and all
    }
    const int64_t working =
        inputs.generation == nullptr
            ? WorkingBytesOf(extraction, inputs.responses, shape.width)
            : studies::WorkingBytes(responses, inputs.generation->queries.queries_size(),
                                    shape.width, MethodOf(extraction.how()));
    return studies::KeptMeans::BytesInMemory(responses, shape) + working + generated;
  }

  // Vectors are made one after another.
  static int64_t WorkingBytesOf(const SavedExtraction& extraction, const studies::ResponseSet& set,
                                int64_t width) {
    int64_t most = 0;
    for (const SavedValueVector* vector : MadeVectors(extraction)) {
      most = std::max(most, studies::WorkingBytes(set, SelectionOf(vector, set), width,
                                                  MethodOf(extraction.how())));
    }
    return most;
  }

  static int64_t NumVectors(const SavedWork& record) {
    return static_cast<int64_t>(MadeVectors(record.extract_vectors()).size());
  }

  static int64_t BytesOfSums(const SavedWork& record, const studies::MeansShape& shape) {
    return NumVectors(record) *
           studies::SummedMeans::Bytes(
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
