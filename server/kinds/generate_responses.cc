// The kind "generate_responses": responses to queries under conditions (generated_responses.h),
// steered or not, for other kinds of work to read. There is no call that does so. A unit is a
// response, a shard is a chunk; its partial, the responses, is written to the data set when all
// shards are there, one after another, so that memory holds those of one.
//
// Left by a job: "responses", JSON Lines of LabelledResponse; "summary", JSON with counts by
// condition and the provenance, nothing of time or place.
#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "google/protobuf/empty.pb.h"
#include "kinds/generated_responses.h"
#include "kinds/generation_request.h"
#include "kinds/kinds.h"
#include "kinds/response_work.h"
#include "nlohmann/json.hpp"
#include "services/data_set_lines.h"
#include "services/idempotency.h"
#include "services/judges.h"
#include "studies/json_fields.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {
namespace {

using nlohmann::json;
using Spec = v1::GenerateResponsesSpec;

constexpr char kName[] = "generate_responses";
constexpr int kMostConditions = 64, kMostSystemMessages = 64;

// --- The outcome ---------------------------------------------------------------------------------

// What is counted of the responses under one condition.
struct ConditionCounts {
  int64_t responses = 0;
  int64_t empty = 0;
  int64_t tokens = 0;
  int64_t expressing = 0;
  double mass = 0;  // summed over the judged ones
  int64_t judged = 0;
  std::vector<int64_t> touched;  // positions, by intervention

  void Add(const SavedResponse& response) {
    ++responses;
    empty += response.ids().empty();
    tokens += response.ids_size();
    expressing += response.expresses();
    judged += response.has_answer_mass();
    mass += response.answer_mass();
    touched.resize(std::max<size_t>(touched.size(), static_cast<size_t>(response.touched_size())));
    for (int i = 0; i < response.touched_size(); ++i) {
      touched[static_cast<size_t>(i)] += response.touched(i);
    }
  }
};

class ResponsesOutcome : public jobs::Outcome {
 public:
  ResponsesOutcome(json described, store::StoredBlob lines, v1::Provenance provenance)
      : described_(std::move(described)),
        lines_(std::move(lines)),
        provenance_(std::move(provenance)) {}

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore&) const override {
    return std::vector<store::Resource>();
  }
  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override {
    std::vector<jobs::ArtifactDraft> artifacts;
    VS_ASSIGN_OR_RETURN(artifacts.emplace_back(), MakeSummary(blobs, described_, provenance_));
    artifacts.push_back(ArtifactOf(lines_, "responses", "responses.jsonl",
                                   services::kDataSetMediaType, provenance_));
    return artifacts;
  }
  std::string Summary(const std::vector<store::Resource>&) const override {
    return studies::DumpJson(described_);
  }

 private:
  const json described_;
  const store::StoredBlob lines_;
  const v1::Provenance provenance_;
};

// --- The work ------------------------------------------------------------------------------------

// Responses of a shard or, of all shards, the data set as far as it is written.
struct GeneratedLines {
  SavedResponses responses;
  engine::KeptCaptures memory;  // of `responses`
  std::unique_ptr<store::BlobWriter> lines;
  int64_t written = 0;  // responses
  std::vector<ConditionCounts> counts;

  std::string Serialize() const { return services::DeterministicBytes(responses); }
};

class GeneratingWork : public ResponseWork<GeneratedLines> {
 public:
  GeneratingWork(ResponseInputs inputs, store::BlobStore& blobs)
      : ResponseWork(std::move(inputs)), blobs_(blobs) {}

 protected:
  absl::StatusOr<GeneratedLines> BeginSums(int64_t units) override {
    GeneratedLines sums;
    if (units > kGeneratedPerShard) return sums;  // all of them, which are not kept
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    VS_ASSIGN_OR_RETURN(sums.memory, model->engine->KeepCaptures(generation().MemoryOf(units)));
    return sums;
  }
  absl::StatusOr<GeneratedLines> ParseSums(absl::string_view bytes, int64_t done,
                                           int64_t units) override {
    VS_ASSIGN_OR_RETURN(GeneratedLines sums, BeginSums(units));
    if (!sums.responses.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
        sums.responses.responses_size() != done) {
      return jobs::PartialDamaged();
    }
    return sums;
  }

  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        GeneratedLines& sums) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    const services::JudgedFor whom = {
        .tenant = inputs_.tenant, .background = inputs_.background(), .cancellation = cancellation};
    v1::Usage usage;
    auto made = GenerateUnits(generation(), *model, units, whom, usage);
    if (!made.ok()) return WithFieldRenamed(made.status(), "generated", "spec");
    for (SavedResponse& response : *made) {
      *sums.responses.add_responses() = std::move(response);
    }
    return absl::OkStatus();
  }

  absl::Status AddShard(const GeneratedLines& shard, GeneratedLines& whole) override {
    if (whole.lines == nullptr) {
      VS_ASSIGN_OR_RETURN(whole.lines, blobs_.NewWriter());
      whole.counts.resize(static_cast<size_t>(generation().how.conditions_size()));
    }
    std::string text;
    for (const SavedResponse& response : shard.responses.responses()) {
      const GeneratedUnit unit = UnitOf(generation().how, whole.written++);
      whole.counts[static_cast<size_t>(unit.condition)].Add(response);
      text += JsonLineOf(LineOf(generation(), unit, response));
    }
    return whole.lines->Append(text);
  }

  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(const GeneratedLines& whole,
                                                            const Cancellation&) override {
    if (whole.written != generation().units()) return jobs::PartialDamaged();
    VS_ASSIGN_OR_RETURN(store::StoredBlob lines, whole.lines->Finish());
    v1::Provenance provenance = inputs_.record.provenance();
    if (generation().judge != nullptr) {
      for (const ConditionCounts& counts : whole.counts) {
        provenance.set_num_expressing(provenance.num_expressing() + counts.expressing);
        provenance.set_num_non_expressing(provenance.num_non_expressing() + counts.responses -
                                          counts.expressing);
      }
    }
    return std::make_unique<ResponsesOutcome>(Described(whole), std::move(lines),
                                              std::move(provenance));
  }

 private:
  const Generation& generation() const { return *inputs_.generation; }

  json Described(const GeneratedLines& whole) const {
    json conditions = json::array(), warnings = json::array();
    for (int c = 0; c < generation().how.conditions_size(); ++c) {
      const ConditionCounts& counts = whole.counts[static_cast<size_t>(c)];
      const std::string& name = generation().how.conditions(c).name();
      json condition = {{"condition", name},
                        {"num_responses", counts.responses},
                        {"num_empty", counts.empty},
                        {"num_tokens", counts.tokens},
                        {"touched_positions", counts.touched}};
      if (generation().judge != nullptr) condition["num_expressing"] = counts.expressing;
      if (counts.judged > 0) {
        const double mass = counts.mass / static_cast<double>(counts.judged);
        condition["mean_answer_mass"] = mass;
        if (mass < services::kLeastAnswerMass) {
          warnings.push_back(absl::StrFormat(
              "`%s`: the judge answers yes or no with a probability of %.2g on average: it says "
              "something else, and its labels mean little",
              name, mass));
        }
      }
      conditions.push_back(std::move(condition));
    }
    return {{"format_version", kSummaryVersion},
            {"num_responses", whole.written},
            {"conditions", std::move(conditions)},
            {"warnings", std::move(warnings)}};
  }

  store::BlobStore& blobs_;
};

// --- The request ---------------------------------------------------------------------------------

// Those of which each query gets one.
absl::Status AddDrawnMessages(const v1::EvaluationCondition& given, ConditionSource& condition) {
  if (given.system_messages().empty()) return absl::OkStatus();
  const std::string field = absl::StrCat(condition.field, ".system_messages");
  if (given.has_system_message()) {
    return InvalidField(field, "must be empty beside `system_message`");
  }
  if (given.system_messages_size() > kMostSystemMessages) {
    return OutOfRange(field, given.system_messages_size(), 0, kMostSystemMessages);
  }
  condition.system_messages.assign(given.system_messages().begin(), given.system_messages().end());
  condition.system_field = field;
  condition.several_messages = true;
  return absl::OkStatus();
}

// INVALID_ARGUMENT naming "conditions[c].name" where two have one name.
absl::StatusOr<GenerationSource> SourceOf(const Spec& spec) {
  GenerationSource source{.whole = "the spec",
                          .prefix = "",
                          .queries = spec.queries(),
                          .queries_artifact = spec.queries_artifact(),
                          .conditions = {},
                          .most_conditions = kMostConditions,
                          .sampling = spec.sampling(),
                          .samples = spec.has_samples_per_query() ? spec.samples_per_query() : 1,
                          .judge = spec.has_judge() ? &spec.judge() : nullptr,
                          .labels_required = false,
                          .draw_seed = spec.seed()};
  std::set<std::string> names;
  for (int c = 0; c < spec.conditions_size(); ++c) {
    const v1::EvaluationCondition& given = spec.conditions(c);
    ConditionSource& condition = source.conditions.emplace_back();
    condition.name = given.name().empty() ? absl::StrCat(c) : given.name();
    condition.field = absl::StrCat("conditions[", c, "]");
    condition.system_field = absl::StrCat(condition.field, ".system_message");
    if (given.has_system_message()) condition.system_messages = {given.system_message()};
    VS_RETURN_IF_ERROR(AddDrawnMessages(given, condition));
    condition.interventions = &given.interventions();
    if (names.insert(condition.name).second) continue;
    return InvalidField(absl::StrCat(condition.field, ".name"),
                        absl::StrCat("`", condition.name, "` is another condition's too"));
  }
  if (!source.conditions.empty()) return source;
  source.conditions = {{.name = "0", .system_messages = {""}, .system_field = "conditions"}};
  return source;
}

class GenerateResponsesKind
    : public ResponseKind<Spec, google::protobuf::Empty, GeneratingWork, ResponsesOutcome> {
 public:
  explicit GenerateResponsesKind(const Sources& sources) : ResponseKind(sources) {}

  absl::string_view Name() const override { return kName; }

  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view tenant,
                                                   absl::string_view spec) override {
    VS_ASSIGN_OR_RETURN(const SavedWork record, ParseSavedWork(spec));
    VS_ASSIGN_OR_RETURN(ResponseInputs inputs, ResponseInputs::Open(sources_, tenant, record,
                                                                    SavedWork::kGenerateResponses));
    if (inputs.generation == nullptr) return jobs::PartialDamaged();
    return std::make_unique<GeneratingWork>(std::move(inputs), *sources_.blobs);
  }

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(
      const Spec& spec, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    services::ResolvedWork resolved;
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", spec.model(), *sources_.models));
    VS_ASSIGN_OR_RETURN(const GenerationSource source, SourceOf(spec));
    VS_ASSIGN_OR_RETURN(Generation generation,
                        GenerationOf(source, *model, context, options, sources_, resolved.used));
    ResponseInputs inputs{.tenant = context.tenant,
                          .models = sources_.models,
                          .held = model,
                          .responses = {},
                          .generation = std::make_shared<const Generation>(std::move(generation)),
                          .texts = nullptr,
                          .record = RecordOf(*model, /*display_name=*/"", options)};
    SavedWork& record = inputs.record;
    record.set_num_responses(inputs.generation->units());
    record.set_responses_per_shard(kGeneratedPerShard);
    *record.mutable_generation() = inputs.generation->how;
    *record.mutable_provenance() = ProvenanceOfSpec(spec, inputs, resolved.used);
    record.mutable_generate_responses();
    VS_RETURN_IF_ERROR(CheckStorable(inputs, context));
    resolved.estimate = EstimateOfGeneration(*model, *inputs.generation);
    resolved.needs = inputs.needs();
    resolved.work = std::make_unique<GeneratingWork>(std::move(inputs), *sources_.blobs);
    return resolved;
  }

  // There is no call.
  void Answered(const Spec&, const services::ResolvedWork&, const GeneratingWork&,
                const ResponsesOutcome&, const std::vector<store::Resource>&,
                google::protobuf::Empty&) const override {
    VS_CHECK(false);
  }
  absl::Status Replayed(const store::Resource&, google::protobuf::Empty&) const override {
    VS_CHECK(false);
  }

 private:
  static v1::Provenance ProvenanceOfSpec(const Spec& spec, const ResponseInputs& inputs,
                                         const services::UsedResources& used) {
    v1::Provenance provenance = studies::ProvenanceOf(*inputs.held, /*rendered_chat=*/true);
    provenance.set_judge(JudgesOf(*inputs.generation));
    *provenance.mutable_inputs() = services::InputsOf(used);
    // An upload goes by its content.
    for (v1::ResourceDigest& input : *provenance.mutable_inputs()) {
      if (input.name() == spec.queries_artifact()) input.set_name(studies::kQueriesInput);
    }
    provenance.set_options(studies::RecordOfRequest(spec, {"model", "queries_artifact"}));
    provenance.add_seeds(spec.sampling().seed());
    if (spec.seed() != 0) provenance.add_seeds(spec.seed());
    return provenance;
  }

  static services::WorkEstimate EstimateOfGeneration(const engine::ServedModel& model,
                                                     const Generation& generation) {
    constexpr int64_t kTokenBytes = 8;  // of JSON, about
    const GenerationCost cost = generation.MostCost();
    return EstimateOf(model, cost.tokens + cost.judge_tokens,
                      cost.generated_tokens + cost.judgements, kTokenBytes * cost.tokens);
  }
};

}  // namespace

std::unique_ptr<services::Kind> GenerateResponses(const Sources& sources) {
  return std::make_unique<GenerateResponsesKind>(sources);
}

}  // namespace valuescope::kinds
