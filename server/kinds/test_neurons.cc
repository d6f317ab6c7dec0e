// The kind "test_neurons": what neurons cause (studies/neuron_test_plan.h). A unit is a pass: a
// response that is looked at once, or one that is run under a condition.
//
// Shards. The first has the looks, where there are any: what it comes to, means and norms of all
// neurons, is what the others build on, so that all of them draw the same random sets and put the
// same means in the place of neurons. The others have kPassesPerShard passes each, more where there
// would be more than kMostShards. Partial: NeuronTestSums.
//
// Left by a job: "summary", JSON with the curves and the provenance, nothing of time or place.
#include "studies/test_neurons.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/attribution_target.h"
#include "kinds/kinds.h"
#include "kinds/neuron_ranking.h"
#include "kinds/response_work.h"
#include "kinds/saved_model.h"
#include "kinds/saved_neuron_test.h"
#include "nlohmann/json.hpp"
#include "services/model_needs.h"
#include "services/request_codec.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "studies/neuron_measures.h"
#include "studies/neuron_test_plan.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {
namespace {

using nlohmann::json;
using Request = v1::TestNeuronsRequest;

constexpr char kName[] = "test_neurons";
constexpr int64_t kPassesPerChunk = 256;
constexpr int64_t kPassesPerShard = 8 * kPassesPerChunk;
constexpr int64_t kMostShards = 1024;
// A call is answered within minutes on what serves a small model.
constexpr int64_t kMostPassesAtOnce = 20'000;

// A fixed function of the number of passes.
int64_t PassesPerShard(int64_t passes) {
  const int64_t chunks = (passes + kPassesPerChunk - 1) / kPassesPerChunk;
  return std::max(kPassesPerShard, (chunks + kMostShards - 1) / kMostShards * kPassesPerChunk);
}

// --- The outcome ---------------------------------------------------------------------------------

class NeuronTestOutcome : public jobs::Outcome {
 public:
  NeuronTestOutcome(v1::TestNeuronsResponse found, v1::NeuronTest test, int64_t num_tokens)
      : result(std::move(found)), test_(test), num_tokens_(num_tokens) {}

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore&) const override {
    return std::vector<store::Resource>();
  }

  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override {
    std::vector<jobs::ArtifactDraft> artifacts;
    VS_ASSIGN_OR_RETURN(artifacts.emplace_back(),
                        MakeSummary(blobs, Described(), result.provenance()));
    return artifacts;
  }

  std::string Summary(const std::vector<store::Resource>&) const override {
    return studies::DumpJson(Described());
  }

  const v1::TestNeuronsResponse result;  // with its provenance

 private:
  json Described() const {
    json summary = SummaryOf(
        absl::AsciiStrToLower(absl::StripPrefix(v1::NeuronTest_Name(test_), "NEURON_TEST_")),
        result.provenance(), num_tokens_);
    summary["num_responses"] = result.num_responses();
    summary["full"] = result.full();
    if (result.has_empty()) summary["empty"] = result.empty();
    if (result.rankings().empty()) {
      summary["points"] = studies::ListToJson(result.points());
    } else {
      summary["rankings"] = studies::ListToJson(result.rankings());
    }
    summary["warnings"] =
        json(std::vector<std::string>(result.warnings().begin(), result.warnings().end()));
    return summary;
  }

  const v1::NeuronTest test_;
  const int64_t num_tokens_;
};

// --- The work ------------------------------------------------------------------------------------

class NeuronTestWork : public ResponseWork<studies::NeuronTestSums> {
 public:
  NeuronTestWork(ResponseInputs inputs, studies::NeuronTestPlan plan,
                 const studies::NeuronTestPasses& passes, int64_t intermediate,
                 engine::KeptCaptures memory)
      : ResponseWork(std::move(inputs)),
        plan_(std::move(plan)),
        passes_(passes),
        intermediate_(intermediate),
        memory_(std::move(memory)) {}

  const studies::NeuronTestPasses& passes() const { return passes_; }

  jobs::Extent extent() const override {
    return {.units = num_looks() + passes_.num_passes(),
            .units_per_shard = inputs_.record.test_neurons().passes_per_shard(),
            .units_per_chunk = kPassesPerChunk,
            .preparing = {.units = num_looks(),
                          .units_per_shard = num_looks(),
                          .units_per_chunk = kPassesPerChunk}};
  }

 protected:
  absl::StatusOr<studies::NeuronTestSums> BeginSums(int64_t) override {
    return studies::NeuronTestSums();
  }
  absl::StatusOr<studies::NeuronTestSums> ParseSums(absl::string_view bytes, int64_t,
                                                    int64_t) override {
    return studies::NeuronTestSums::Parse(
        bytes, static_cast<int64_t>(plan_.layers.size()) * intermediate_);
  }
  absl::Status PrepareWith(const studies::NeuronTestSums& looks) override {
    VS_ASSIGN_OR_RETURN(
        conditions_, studies::NeuronConditions::Of(plan_, passes_, looks.measures, intermediate_));
    return absl::OkStatus();
  }
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        studies::NeuronTestSums& sums) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    const studies::NeuronTestRun run = {.engine = *model->engine,
                                        .responses = inputs_.responses.responses,
                                        .plan = plan_,
                                        .passes = passes_,
                                        .cancellation = cancellation,
                                        .cached_tokens = cached_tokens_};
    if (units.first < num_looks()) {
      VS_RETURN_IF_ERROR(studies::AddLooks(run, units.first, units.end, sums.measures));
      if (units.end < num_looks() || plan_.random_sets == 0) return absl::OkStatus();
      return studies::MeasureNorms(run, sums.measures);
    }
    VS_RETURN_IF_ERROR(PrepareWithoutLooks());
    return studies::AddPasses(run, *conditions_, units.first - num_looks(), units.end - num_looks(),
                              sums.values);
  }
  absl::Status AddShard(const studies::NeuronTestSums& shard,
                        studies::NeuronTestSums& whole) override {
    // Looks are one shard, the first; no other has measures.
    if (shard.values.empty()) whole.measures = shard.measures;
    whole.values.insert(whole.values.end(), shard.values.begin(), shard.values.end());
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(
      const studies::NeuronTestSums& whole, const Cancellation& cancellation) override {
    if (static_cast<int64_t>(whole.values.size()) != passes_.num_passes()) {
      return ErrorWithReason(absl::StatusCode::kDataLoss, "PARTIAL_DAMAGED",
                             "the stored partial results have another number of passes");
    }
    VS_RETURN_IF_ERROR(PrepareWithoutLooks());
    VS_ASSIGN_OR_RETURN(
        v1::TestNeuronsResponse result,
        studies::SummariseNeuronTest(plan_, passes_, *conditions_, whole.values, cancellation));
    *result.mutable_provenance() = inputs_.record.provenance();
    return std::make_unique<NeuronTestOutcome>(std::move(result), plan_.test, passes_.num_tokens());
  }

 private:
  int64_t num_looks() const { return static_cast<int64_t>(passes_.looked_at().size()); }
  // Where nothing has to be known of the neurons.
  absl::Status PrepareWithoutLooks() {
    return conditions_ ? absl::OkStatus() : PrepareWith(studies::NeuronTestSums());
  }

  const studies::NeuronTestPlan plan_;
  const studies::NeuronTestPasses passes_;
  const int64_t intermediate_;
  const engine::KeptCaptures memory_;
  std::optional<studies::NeuronConditions> conditions_;
};

// --- The request ---------------------------------------------------------------------------------

class TestNeuronsKind : public ResponseKind<v1::TestNeuronsRequest, v1::TestNeuronsResponse,
                                            NeuronTestWork, NeuronTestOutcome> {
 public:
  explicit TestNeuronsKind(const Sources& sources) : ResponseKind(sources) {}

  absl::string_view Name() const override { return kName; }
  absl::string_view Unit() const override { return "passes"; }

  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view tenant,
                                                   absl::string_view spec) override {
    VS_ASSIGN_OR_RETURN(const SavedWork record, ParseSavedWork(spec));
    VS_ASSIGN_OR_RETURN(ResponseInputs inputs,
                        ResponseInputs::Open(sources_, tenant, record, SavedWork::kTestNeurons));
    const SavedNeuronTest& of = record.test_neurons();
    VS_RETURN_IF_ERROR(CheckComplete(of));
    NamedVectors vectors;
    VS_ASSIGN_OR_RETURN(vectors.target, StoredVectorOf(tenant, of.vector()));
    VS_ASSIGN_OR_RETURN(vectors.reference, StoredVectorOf(tenant, of.reference()));
    VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
    VS_ASSIGN_OR_RETURN(studies::NeuronTestPlan plan, PlanOf(of, vectors, *model));
    plan.tenant = inputs.tenant;
    plan.background = true;
    const studies::NeuronTestPasses passes(plan, inputs.responses.responses);
    return WorkOf(std::move(inputs), std::move(plan), passes, *model, /*can_wait=*/false);
  }

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(
      const Request& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    services::ResolvedWork resolved;
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", request.model(), *sources_.models));
    VS_RETURN_IF_ERROR(CheckNeuronTestOptions(request));
    NamedVectors vectors;
    VS_ASSIGN_OR_RETURN(SavedNeuronTest of,
                        ResolveTest(request, *model, context, resolved.used, vectors));
    services::ResolveOptions unlabelled = options;
    unlabelled.labels_required = false;
    VS_ASSIGN_OR_RETURN(ResponseInputs inputs, InputsOfRequest(request, model, context, unlabelled,
                                                               sources_, resolved.used));
    VS_ASSIGN_OR_RETURN(studies::NeuronTestPlan plan, PlanOf(of, vectors, *model));
    plan.tenant = context.tenant;
    plan.background = !options.at_once;
    const studies::NeuronTestPasses passes(plan, inputs.responses.responses);
    VS_RETURN_IF_ERROR(CheckPasses(inputs, plan, passes, *model, context, options, of));
    of.set_passes_per_shard(PassesPerShard(passes.num_passes()));
    SavedWork& record = inputs.record;
    if (of.rankings_size() > 0) record.set_format_version(kSavedWorkOfRankings);
    record.set_responses_per_shard(studies::kResponsesTogether);
    *record.mutable_provenance() = ProvenanceOfTest(request, *model, inputs, resolved.used);
    *record.mutable_test_neurons() = std::move(of);
    if (!options.at_once) VS_RETURN_IF_ERROR(CheckStorable(inputs, context));
    resolved.estimate = EstimateOfPasses(*model, inputs, passes);
    resolved.needs = services::NeedOfModel(*model);
    if (request.rankings_size() > 0) {
      absl::StrAppend(&resolved.needs, std::string(1, services::kNeedsSeparator),
                      services::NeedOfWork(kSavedWorkOfRankings));
    }
    VS_ASSIGN_OR_RETURN(resolved.work, WorkOf(std::move(inputs), std::move(plan), passes, *model,
                                              /*can_wait=*/!options.at_once));
    return resolved;
  }

  void Answered(const Request&, const services::ResolvedWork& resolved, const NeuronTestWork& work,
                const NeuronTestOutcome& outcome, const std::vector<store::Resource>&,
                v1::TestNeuronsResponse& response) const override {
    response = outcome.result;
    TellInputs(resolved, work, response);
    response.mutable_usage()->set_prompt_tokens(work.passes().num_tokens());
  }

  // Nothing is left of which a second answer could be made, and the request has no request_id.
  absl::Status Replayed(const store::Resource&, v1::TestNeuronsResponse&) const override {
    VS_CHECK(false);
  }

 private:
  static v1::Provenance ProvenanceOfTest(const Request& request, const engine::ServedModel& model,
                                         const ResponseInputs& inputs,
                                         const services::UsedResources& used) {
    v1::Provenance provenance =
        ProvenanceOf(request, model, inputs.responses, used, model::Site::kMlpNeurons,
                     {"model", "responses", "artifact", "neuron_set", "rankings", "reference",
                      "seed", "judge", "display_name"});
    provenance.clear_pooling();
    provenance.set_sign_rule("mean of the target over the expressing responses");
    provenance.add_seeds(request.seed());
    return provenance;
  }

  static services::WorkEstimate EstimateOfPasses(const engine::ServedModel& model,
                                                 const ResponseInputs& inputs,
                                                 const studies::NeuronTestPasses& passes) {
    constexpr int64_t kBytesOfSummary = 1 << 16;
    services::WorkEstimate estimate = EstimateOf(model, inputs.responses, kBytesOfSummary);
    estimate.time *=
        static_cast<double>(passes.num_tokens()) / static_cast<double>(estimate.tokens);
    estimate.tokens = passes.num_tokens();
    estimate.forwards = passes.num_passes() + static_cast<int64_t>(passes.looked_at().size());
    return estimate;
  }

  static absl::Status CheckPasses(const ResponseInputs& inputs, const studies::NeuronTestPlan& plan,
                                  const studies::NeuronTestPasses& passes,
                                  const engine::ServedModel& model, const rpc::CallContext& context,
                                  const services::ResolveOptions& options,
                                  const SavedNeuronTest& record) {
    if (options.at_once && passes.num_passes() > kMostPassesAtOnce) {
      return NeverFits("USE_A_JOB",
                       absl::StrCat("takes ", passes.num_passes(), " passes, one call takes ",
                                    kMostPassesAtOnce, "; create a job with the same request"));
    }
    return TargetNamedAsAsked(
        record.target(), studies::CheckNeuronTest(*model.engine, inputs.responses.responses, plan,
                                                  passes, context.cancellation));
  }

  absl::StatusOr<SavedNeuronTest> ResolveTest(const Request& request,
                                              const engine::ServedModel& model,
                                              const rpc::CallContext& context,
                                              services::UsedResources& used,
                                              NamedVectors& vectors) const {
    SavedNeuronTest record = ChoicesOf(request);
    VS_ASSIGN_OR_RETURN(
        const std::vector<int> layers,
        services::LayersFromProto("layers", request.has_layers() ? &request.layers() : nullptr,
                                  {.site = model::Site::kMlpNeurons,
                                   .num_layers = model.architecture.num_layers,
                                   .all_by_default = true}));
    record.mutable_layers()->Assign(layers.begin(), layers.end());
    VS_ASSIGN_OR_RETURN(std::vector<SavedRanking> rankings,
                        RankingsOf(request, layers, model, context, sources_, used));
    PutRankings(std::move(rankings), record);
    VS_ASSIGN_OR_RETURN(ResolvedTarget target,
                        ResolveTarget(request.target(), model, context, sources_, used));
    *record.mutable_target() = std::move(target.record);
    record.set_vector(target.vector_id);
    vectors.target = std::move(target.vector);
    if (request.reference().empty()) return record;
    constexpr char kField[] = "reference";
    VS_ASSIGN_OR_RETURN(vectors.reference,
                        UsableVectorOfName(context, kField, request.reference(),
                                           model::Site::kMlpNeurons, model, sources_, used));
    VS_ASSIGN_OR_RETURN(*record.mutable_reference(),
                        services::IdOfName(kField, "vectors", request.reference()));
    return record;
  }

  static absl::StatusOr<std::unique_ptr<NeuronTestWork>> WorkOf(
      ResponseInputs inputs, studies::NeuronTestPlan plan, const studies::NeuronTestPasses& passes,
      const engine::ServedModel& model, bool can_wait) {
    const int64_t intermediate = model.architecture.intermediate;
    const int64_t neurons = static_cast<int64_t>(plan.layers.size()) * intermediate;
    VS_ASSIGN_OR_RETURN(
        engine::KeptCaptures memory,
        KeptFor(*model.engine, studies::NeuronTestBytes(passes, neurons), can_wait));
    return std::make_unique<NeuronTestWork>(std::move(inputs), std::move(plan), passes,
                                            intermediate, std::move(memory));
  }
};

}  // namespace

std::unique_ptr<services::Kind> TestNeurons(const Sources& sources) {
  return std::make_unique<TestNeuronsKind>(sources);
}

}  // namespace valuescope::kinds
