// The kind "extract_vectors": a vector from labelled responses (studies/extract_vectors.h). A unit
// is a response, a shard is a chunk: its partial, the means of its responses, is stored once. Put
// together they are in a scratch file, so disk grows with responses and memory does not. Where even
// the disk would be too small (all neurons of a large model) a partial is sums of the responses of
// many chunks.
//
// Left by a job: "summary", JSON with counts, statistics a layer and the provenance, nothing of
// time or place; the vector.
#include "studies/extract_vectors.h"

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "analysis/linear_probe.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "kinds/kinds.h"
#include "kinds/response_work.h"
#include "nlohmann/json.hpp"
#include "services/intervention_codec.h"
#include "services/replays.h"
#include "services/response_sets.h"
#include "services/study_codec.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "studies/response_means.h"
#include "studies/stored_vector.h"
#include "studies/summed_means.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::kinds {
namespace {

using nlohmann::json;

constexpr char kName[] = "extract_vectors";
constexpr int kDefaultBootstrap = 1000;
constexpr int kMostBootstrap = 10000;
constexpr double kDefaultInverseRegularization = 1;

// Of a request or of a record.
template <typename Choice>
v1::ExtractionMethod MethodOf(const Choice& choice) {
  return choice.method() == v1::EXTRACTION_METHOD_UNSPECIFIED
             ? v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS
             : choice.method();
}

// --- The outcome ---------------------------------------------------------------------------------

// "difference_in_means", "pca".
std::string SummaryNameOf(v1::ExtractionMethod method) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(v1::ExtractionMethod_Name(method), "EXTRACTION_METHOD_"));
}

class ExtractionOutcome : public jobs::Outcome {
 public:
  ExtractionOutcome(v1::ExtractionMethod method, studies::StoredVector made,
                    std::vector<std::string> told, int64_t num_tokens)
      : vector(std::move(made)),
        warnings(std::move(told)),
        method_(method),
        num_tokens_(num_tokens) {}

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore& blobs) const override {
    VS_ASSIGN_OR_RETURN(store::Resource resource, studies::MakeVectorResource(blobs, vector));
    return std::vector<store::Resource>{std::move(resource)};
  }

  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override {
    VS_ASSIGN_OR_RETURN(jobs::ArtifactDraft artifact,
                        MakeSummary(blobs, Described(), vector.record.provenance()));
    return std::vector<jobs::ArtifactDraft>{std::move(artifact)};
  }

  std::string Summary(const std::vector<store::Resource>& resources) const override {
    json summary = Described();
    // By name: an earlier job may have made the same vector, and then the vector is that job's.
    summary["vectors"] = {store::ResourceName(store::ResourceKind::kVector, resources.front().id)};
    return studies::DumpJson(summary);
  }

  const studies::StoredVector vector;
  const std::vector<std::string> warnings;

 private:
  json Described() const {
    json summary = SummaryOf(SummaryNameOf(method_), vector.record.provenance(), num_tokens_);
    summary["layers"] = studies::ListToJson(vector.record.statistics());
    summary["warnings"] = warnings;
    return summary;
  }

  const v1::ExtractionMethod method_;
  const int64_t num_tokens_;
};

// --- The work ------------------------------------------------------------------------------------

// Means of all responses, or sums of them.
struct ExtractionSums {
  std::variant<studies::KeptMeans, studies::SummedMeans> of;

  std::string Serialize() const {
    return std::visit([](const auto& sums) { return sums.Serialize(); }, of);
  }
};

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

 protected:
  absl::StatusOr<ExtractionSums> BeginSums(int64_t units) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    if (of().sums_alone()) {
      return Held(studies::SummedMeans::Begin(*model->engine, shape_, weigh_by_tokens()));
    }
    return Held(units > inputs_.record.responses_per_shard()
                    ? studies::KeptMeans::BeginAside(*model->engine, blobs_, units, shape_)
                    : studies::KeptMeans::Begin(*model->engine, units, shape_));
  }
  absl::StatusOr<ExtractionSums> ParseSums(absl::string_view bytes, int64_t done,
                                           int64_t units) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    if (of().sums_alone()) {
      return Held(
          studies::SummedMeans::Parse(*model->engine, bytes, done, shape_, weigh_by_tokens()));
    }
    return Held(studies::KeptMeans::Parse(*model->engine, bytes, done, units, shape_));
  }
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        ExtractionSums& sums) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    if (auto* means = std::get_if<studies::KeptMeans>(&sums.of)) {
      return studies::AddMeans(*model->engine, inputs_.Of(units), plan_, cancellation, *means,
                               cached_tokens_);
    }
    const auto places = std::span<const studies::SummedMeans::Place>(places_).subspan(
        static_cast<size_t>(units.first), static_cast<size_t>(units.size()));
    return studies::AddMeans(*model->engine, inputs_.Of(units), places, plan_, cancellation,
                             std::get<studies::SummedMeans>(sums.of), cached_tokens_);
  }
  absl::Status AddShard(const ExtractionSums& shard, ExtractionSums& whole) override {
    return std::visit(
        [&](auto& sums) { return sums.Add(std::get<std::decay_t<decltype(sums)>>(shard.of)); },
        whole.of);
  }
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(
      const ExtractionSums& whole, const Cancellation& cancellation) override {
    const studies::ExtractionOptions options = {
        .method = MethodOf(of().how()),
        .pooling = of().how().pooling(),
        .intervals = of().bootstrap_samples() > 0,
        .inverse_regularization = of().how().inverse_regularization()};
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    VS_ASSIGN_OR_RETURN(studies::ExtractedVector extracted,
                        Extracted(*model, whole, options, cancellation));
    studies::StoredVector vector;
    vector.record = studies::VectorWithin(*model, plan_.site, plan_.layers);
    vector.record.set_display_name(inputs_.record.display_name());
    for (v1::VectorStatistics& row : extracted.statistics) {
      *vector.record.add_statistics() = std::move(row);
    }
    *vector.record.mutable_provenance() = inputs_.record.provenance();
    vector.rows = std::move(extracted.rows);
    return std::make_unique<ExtractionOutcome>(options.method, std::move(vector),
                                               std::move(extracted.warnings),
                                               inputs_.responses.num_tokens);
  }

 private:
  template <typename Sums>
  static absl::StatusOr<ExtractionSums> Held(absl::StatusOr<Sums> sums) {
    if (!sums.ok()) return std::move(sums).status();
    return ExtractionSums{*std::move(sums)};
  }

  const SavedExtraction& of() const { return inputs_.record.extract_vectors(); }
  bool weigh_by_tokens() const { return of().how().pooling() == v1::POOLING_TOKEN_MEAN; }

  absl::StatusOr<studies::ExtractedVector> Extracted(const engine::ServedModel& model,
                                                     const ExtractionSums& whole,
                                                     const studies::ExtractionOptions& options,
                                                     const Cancellation& cancellation) const {
    if (const auto* sums = std::get_if<studies::SummedMeans>(&whole.of)) {
      return studies::ExtractVector(inputs_.responses, *sums, plan_.layers, options);
    }
    return studies::ExtractVector(*model.engine, inputs_.responses,
                                  std::get<studies::KeptMeans>(whole.of), plan_.layers, options,
                                  cancellation);
  }

  const studies::ResponseMeansPlan plan_;
  const studies::MeansShape shape_;
  store::BlobStore& blobs_;
  std::vector<studies::SummedMeans::Place> places_;  // of sums
};

// --- The request ---------------------------------------------------------------------------------

absl::string_view SignRuleOf(v1::ExtractionMethod method) {
  switch (method) {
    case v1::EXTRACTION_METHOD_PCA:
    case v1::EXTRACTION_METHOD_PCA_CENTERED:
      return "along the mean over pairs of mean(expressing) - mean(non-expressing)";
    case v1::EXTRACTION_METHOD_LINEAR_PROBE:
      return "towards expressing";
    default:
      return studies::kDifferenceSign;
  }
}

absl::Status CheckProbeOptions(const v1::ExtractVectorsRequest& request) {
  const bool is_probe = request.method() == v1::EXTRACTION_METHOD_LINEAR_PROBE;
  if (is_probe && request.pooling() == v1::POOLING_TOKEN_MEAN) {
    return InvalidField("pooling",
                        "LINEAR_PROBE takes one point of each response, TOKEN_MEAN has none");
  }
  if (!request.has_inverse_regularization()) return absl::OkStatus();
  if (!is_probe) return InvalidField("inverse_regularization", "is of LINEAR_PROBE alone");
  const double c = request.inverse_regularization();
  if (c >= analysis::kLeastInverseRegularization && c <= analysis::kMostInverseRegularization) {
    return absl::OkStatus();
  }
  return OutOfRange("inverse_regularization", c, analysis::kLeastInverseRegularization,
                    analysis::kMostInverseRegularization);
}

absl::Status CheckOptions(const v1::ExtractVectorsRequest& request) {
  if (!v1::ExtractionMethod_IsValid(request.method())) {
    return InvalidField("method", "is no method that this server knows");
  }
  VS_RETURN_IF_ERROR(CheckProbeOptions(request));
  if (!v1::Pooling_IsValid(request.pooling())) {
    return InvalidField("pooling", "is no way of pooling that this server knows");
  }
  if (request.has_bootstrap_samples() &&
      (request.bootstrap_samples() < 0 || request.bootstrap_samples() > kMostBootstrap)) {
    return OutOfRange("bootstrap_samples", request.bootstrap_samples(), 0, kMostBootstrap);
  }
  VS_RETURN_IF_ERROR(services::CheckJudge(request));
  return CheckDisplayName("display_name", request.display_name());
}

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
  record.set_format_version(kSavedWorkWithMethods);
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
    VS_RETURN_IF_ERROR(CheckOptions(request));
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
    VS_ASSIGN_OR_RETURN(ResponseInputs inputs,
                        InputsOfRequest(request, model, context, options, sources_, resolved.used));
    VS_RETURN_IF_ERROR(
        WithFieldRenamed(studies::CheckMethod(MethodOf(request), inputs.responses.responses),
                         "responses", request.artifact().empty() ? "responses" : "artifact"));
    VS_RETURN_IF_ERROR(studies::CheckResponses(*model->engine, inputs.responses.responses, plan,
                                               context.cancellation));
    SavedWork& record = inputs.record;
    v1::Provenance& provenance = *record.mutable_provenance();
    provenance = ProvenanceOf(
        request, *model, inputs.responses, resolved.used, plan.site,
        {"model", "responses", "artifact", "judge", "seed", "display_name", "request_id"});
    SavedExtraction& extraction = *record.mutable_extract_vectors();
    extraction.set_site(services::SiteToProto(plan.site));
    extraction.set_token_norms(plan.token_norms);
    extraction.mutable_layers()->Assign(plan.layers.begin(), plan.layers.end());
    extraction.set_bootstrap_samples(request.has_bootstrap_samples() ? request.bootstrap_samples()
                                                                     : kDefaultBootstrap);
    SetHow(request, record);
    const studies::MeansShape shape = studies::ShapeOf(plan, model->architecture);
    VS_RETURN_IF_ERROR(ChooseWhatIsKept(shape, inputs.record));
    VS_RETURN_IF_ERROR(CheckMemory(inputs, shape));
    if (!options.at_once) {
      VS_RETURN_IF_ERROR(
          context.Hold(static_cast<int64_t>(request.interventions().SpaceUsedExcludingSelfLong())));
      *extraction.mutable_interventions() = request.interventions();
      VS_RETURN_IF_ERROR(CheckStorable(inputs, context));
    }
    resolved.estimate = EstimateOf(*model, inputs.responses,
                                   studies::KeptMeans::BytesAside(/*responses=*/1, shape));
    resolved.estimate.scratch_bytes = ScratchBytes(record, shape);
    resolved.needs = NeedsOfModel(model->id);
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
    TellInputs(resolved, work, response);
    response.set_seed(request.seed());
    for (const std::string& warning : outcome.warnings) response.add_warnings(warning);
  }

  absl::Status Replayed(const store::Resource& earlier,
                        v1::ExtractVectorsResponse& response) const override {
    return services::ReplayExtractVectors(earlier, *sources_.blobs, &response);
  }

 private:
  // Means where the disk has room for them; then shards are small, since a partial is stored once.
  absl::Status ChooseWhatIsKept(const studies::MeansShape& shape, SavedWork& record) const {
    record.set_responses_per_shard(kResponsesPerChunk);
    const int64_t bytes = ScratchBytes(record, shape);
    if (bytes <= sources_.extraction_scratch_bytes) return absl::OkStatus();
    if (MethodOf(record.extract_vectors().how()) != v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS) {
      return NeverFits(
          "MEANS_TOO_LARGE",
          absl::StrCat("the method needs the means of all responses, which take ", bytes,
                       " bytes of disk, allowed are ", sources_.extraction_scratch_bytes,
                       " (--extraction_scratch_bytes); choose fewer layers, or "
                       "DIFFERENCE_IN_MEANS, which does without"));
    }
    record.mutable_extract_vectors()->set_sums_alone(true);
    record.set_format_version(kSavedWorkWithMethods);
    record.set_responses_per_shard(ResponsesPerLargeShard(record.num_responses()));
    return absl::OkStatus();
  }

  // What the vector is made with at the end, so that nothing runs in vain.
  static absl::Status CheckMemory(const ResponseInputs& inputs, const studies::MeansShape& shape) {
    const SavedExtraction& extraction = inputs.record.extract_vectors();
    const int64_t bytes =
        extraction.sums_alone()
            // Of a shard and of all.
            ? 2 * BytesOfSums(inputs.record, shape)
            : studies::KeptMeans::BytesInMemory(inputs.record.num_responses(), shape) +
                  studies::WorkingBytes(inputs.responses, shape.width, MethodOf(extraction.how()));
    return KeptFor(*inputs.held->engine, bytes, /*can_wait=*/true).status();
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
