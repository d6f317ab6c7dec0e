#include "kinds/study_request.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/study_defaults.h"
#include "kinds/study_parts.h"
#include "kinds/study_stages.h"
#include "kinds/sweep_measures.h"
#include "kinds/sweep_request.h"
#include "services/model_needs.h"
#include "studies/measure_texts.h"

namespace valuescope::kinds {
namespace {

using Spec = v1::ValueStudySpec;
using services::WorkEstimate;

void Add(const WorkEstimate& of, double times, WorkEstimate& sum) {
  sum.tokens += static_cast<int64_t>(times * static_cast<double>(of.tokens));
  sum.forwards += static_cast<int64_t>(times * static_cast<double>(of.forwards));
  sum.bytes += static_cast<int64_t>(times * static_cast<double>(of.bytes));
  sum.time += times * of.time;
}

// A response that stands for those that are not there yet.
v1::LabelledResponse StandIn() {
  v1::LabelledResponse response;
  response.mutable_prompt()->set_text("a");
  response.mutable_response()->set_text("a");
  return response;
}

// Resolves the parts that are known, one by one, and adds up what all will cost.
class PartResolver {
 public:
  PartResolver(const Spec& spec, const engine::ServedModel& model, const rpc::CallContext& context,
               const StudyTools& tools)
      : spec_(spec), model_(model), context_(context), tools_(tools) {}

  absl::StatusOr<ResolvedStudy> Resolve() {
    resolved_.needs = services::NeedOfModel(model_);
    stages_.resize(kNumStudyStages);
    VS_RETURN_IF_ERROR(AddTraining());
    VS_RETURN_IF_ERROR(AddJudges());
    VS_RETURN_IF_ERROR(AddSteering());
    VS_RETURN_IF_ERROR(AddItems());
    for (int l = 0; l < spec_.languages_size(); ++l) {
      VS_RETURN_IF_ERROR(AddLanguage(absl::StrCat("languages[", l, "]"), spec_.languages(l)));
    }
    VS_RETURN_IF_ERROR(CheckMeasuresAndGuard());
    resolved_.spec = spec_;
    for (const WorkEstimate& stage : stages_) {
      resolved_.stage_units.push_back(std::max<int64_t>(1, stage.forwards));
      Add(stage, 1, resolved_.estimate);
    }
    return std::move(resolved_);
  }

 private:
  int64_t num_values() const { return spec_.values_size(); }
  int64_t grid() const {
    return int64_t{spec_.steered_layers().list().layers_size()} * spec_.coefficients_size();
  }
  // Points of all sweeps, and ways to steer that are tested.
  int64_t num_points() const {
    const int64_t random = spec_.random_directions();
    return num_values() * (1 + spec_.directions_size() * grid()) +
           (random > 0 ? 1 + random * grid() : 0) + num_neuron_points();
  }
  int64_t num_neuron_points() const {
    const v1::StudyNeurons& neurons = spec_.neurons();
    if (neurons.factors().empty()) return 0;
    const int64_t variants = int64_t{neurons.top_percents_size()} * neurons.max_angles_size();
    return num_values() * (1 + neurons.classes_size() * variants * neurons.factors_size() *
                                   (1 + neurons.random_sets()));
  }
  int64_t num_tested() const {
    return num_tested_elsewhere() + num_values() * spec_.random_directions();
  }
  // In another language.
  int64_t num_tested_elsewhere() const {
    const int64_t classes = spec_.neurons().factors().empty() ? 0 : spec_.neurons().classes_size();
    return num_values() * (2 + spec_.directions_size() + classes);
  }
  WorkEstimate& stage(StudyStage stage) { return stages_[static_cast<size_t>(stage)]; }

  template <typename Request>
  absl::StatusOr<WorkEstimate> ResolveAs(absl::string_view kind, const Request& request) {
    VS_ASSIGN_OR_RETURN(const services::ResolvedWork work,
                        tools_.kinds->Get(kind).Resolve(request, context_, {}));
    for (const auto& [name, digest] : work.used) {
      if (absl::StartsWith(name, "artifacts/")) resolved_.used[name] = digest;
    }
    AddNeeds(work.needs);
    return work.estimate;
  }

  void AddNeeds(const std::string& more) {
    const std::string separator(1, services::kNeedsSeparator);
    std::vector<std::string> all = absl::StrSplit(resolved_.needs, separator, absl::SkipEmpty());
    for (const absl::string_view one : absl::StrSplit(more, separator, absl::SkipEmpty())) {
      if (std::find(all.begin(), all.end(), one) == all.end()) all.emplace_back(one);
    }
    resolved_.needs = absl::StrJoin(all, separator);
  }

  // --- Training queries ---

  absl::Status AddTraining() {
    v1::GenerateResponsesSpec generation = TrainingGeneration(spec_);
    *generation.add_conditions() = IntrinsicCondition("/intrinsic");  // as no value is called
    for (const v1::ValueDefinition& value : spec_.values()) {
      *generation.add_conditions() = PromptedCondition(value.value(), value);
    }
    const auto estimate = ResolveAs("generate_responses", generation);
    if (!estimate.ok()) return OfTraining(estimate.status());
    Add(*estimate, 1, stage(StudyStage::kGenerate));
    // All once more for the vectors; of every value under both conditions for its neurons.
    const double a_value = 2.0 / static_cast<double>(1 + num_values());
    once_ = *estimate;
    once_.forwards = (1 + num_values()) * NumTraining();
    Add(once_, 1, stage(StudyStage::kExtract));
    if (spec_.neurons().attribute()) {
      Add(once_, a_value * static_cast<double>(num_values()), stage(StudyStage::kAttribute));
    }
    return absl::OkStatus();
  }

  // Responses of a condition; of a file that is not counted here about as many as tokens tell.
  int64_t NumTraining() const {
    return std::max<int64_t>(1, spec_.queries_size()) * spec_.samples_per_query();
  }

  absl::Status OfTraining(const absl::Status& status) const {
    for (int v = 0; v < spec_.values_size(); ++v) {
      const std::string from = absl::StrCat("conditions[", v + 1, "].system_messages");
      if (absl::StartsWith(DetailsOf(status).field, from)) {
        return WithFieldRenamed(status, from, absl::StrCat("values[", v, "].system_messages"));
      }
    }
    return WithFieldRenamed(status, "conditions", "values");
  }

  // --- Judges ---

  absl::Status AddJudges() {
    for (int v = 0; v < spec_.values_size(); ++v) {
      const v1::ValueDefinition& value = spec_.values(v);
      const std::string field = absl::StrCat("values[", v, "]");
      const int64_t ways = num_tested() / num_values();
      const auto tested =
          static_cast<double>(ways * spec_.test_queries_size() * spec_.steered_samples_per_query());
      const auto selected =
          static_cast<double>(spec_.random_directions() * grid() *
                              spec_.development_queries_size() * spec_.steered_samples_per_query());
      VS_ASSIGN_OR_RETURN(const WorkEstimate label,
                          OfJudge(absl::StrCat(field, ".judge"), value.judge()));
      Add(label, 2.0 * static_cast<double>(NumTraining()), stage(StudyStage::kJudge));
      Add(label, selected, stage(StudyStage::kSelect));
      VS_ASSIGN_OR_RETURN(const WorkEstimate score,
                          OfJudge(absl::StrCat(field, ".score_judge"), value.score_judge()));
      Add(score, tested, stage(StudyStage::kMeasure));
    }
    return absl::OkStatus();
  }

  // Of one response.
  absl::StatusOr<WorkEstimate> OfJudge(const std::string& field, const v1::Judge& judge) {
    v1::JudgeResponsesRequest request;
    *request.add_responses() = StandIn();
    *request.mutable_judge() = judge;
    auto estimate = ResolveAs("judge_responses", request);
    if (!estimate.ok()) return WithFieldRenamed(estimate.status(), "judge", field);
    if (estimate->tokens > 0) {
      const int64_t answer = std::max(1, spec_.sampling().max_tokens());
      const int64_t tokens = estimate->tokens;
      estimate->tokens += answer;
      estimate->time *= static_cast<double>(estimate->tokens) / static_cast<double>(tokens);
    }
    return estimate;
  }

  // --- Development and test queries ---

  absl::Status AddSteering() {
    VS_ASSIGN_OR_RETURN(const WorkEstimate point,
                        OfSteered("development_queries", spec_.development_queries()));
    const double passes = this->passes();
    Add(point, passes * static_cast<double>(num_points()), stage(StudyStage::kSweep));
    VS_ASSIGN_OR_RETURN(const WorkEstimate condition,
                        OfSteered("test_queries", spec_.test_queries()));
    Add(condition, static_cast<double>(num_tested()), stage(StudyStage::kTest));
    // Of every condition's vector: each number of neurons and its random sets.
    const v1::StudyNeurons& neurons = spec_.neurons();
    const double removed = 2.0 * static_cast<double>(num_values()) * neurons.removed_size() *
                           (1 + neurons.random_sets());
    Add(once_, removed / static_cast<double>(1 + num_values()), stage(StudyStage::kTest));
    Add(condition, (passes - 1) * static_cast<double>(num_tested()), stage(StudyStage::kMeasure));
    return absl::OkStatus();
  }

  // Of an answer that is generated and measured.
  double passes() const { return spec_.measures().perplexity() ? 2 : 1; }

  // Under one way to steer.
  absl::StatusOr<WorkEstimate> OfSteered(
      const std::string& field, const google::protobuf::RepeatedPtrField<std::string>& queries) {
    v1::GenerateResponsesSpec generation = SteeredGeneration(spec_, queries);
    v1::EvaluationCondition& condition = *generation.add_conditions() = IntrinsicCondition("point");
    v1::Intervention& steering = *condition.add_interventions() =
        SteeringOf(spec_, "", spec_.steered_layers().list().layers(0), 1);
    const auto width = static_cast<size_t>(model_.architecture.hidden);
    v1::Tensor& tensor = *steering.mutable_add()->mutable_tensor();
    tensor.set_dtype(v1::DATA_TYPE_FLOAT32);
    tensor.add_shape(static_cast<int64_t>(width));
    tensor.set_data(std::string(width * sizeof(float), '\0'));
    auto estimate = ResolveAs("generate_responses", generation);
    if (estimate.ok()) return estimate;
    const absl::Status& status = estimate.status();
    if (absl::StartsWith(DetailsOf(status).field, "conditions[0].interventions")) {
      return InvalidField("tokens", DetailsOf(status).description, DetailsOf(status).reason);
    }
    const absl::Status of_queries = WithFieldRenamed(status, "queries", field);
    const absl::Status of_samples =
        WithFieldRenamed(of_queries, "samples_per_query", "steered_samples_per_query");
    return WithFieldRenamed(of_samples, "sampling", "steered_sampling");
  }

  // --- Items, measures and the guard ---

  template <typename Request>
  absl::Status AddItemsOf(const std::string& field, absl::string_view kind, Request request,
                          double times, StudyStage of) {
    request.set_model(spec_.model());
    *request.add_conditions() = IntrinsicCondition("point");
    const auto estimate = ResolveAs(kind, request);
    if (!estimate.ok()) return InField(field, estimate.status());
    Add(*estimate, times, stage(of));
    return absl::OkStatus();
  }

  absl::Status AddItems() {
    const auto points = static_cast<double>(num_points()),
               tested = static_cast<double>(num_tested());
    if (spec_.has_development_choices()) {
      VS_RETURN_IF_ERROR(AddItemsOf("development_choices", "answer_choices",
                                    spec_.development_choices(), points, StudyStage::kSweep));
    }
    if (spec_.has_test_choices()) {
      VS_RETURN_IF_ERROR(AddItemsOf("test_choices", "answer_choices", spec_.test_choices(), tested,
                                    StudyStage::kMeasure));
    }
    if (!spec_.has_questionnaire()) return absl::OkStatus();
    return AddItemsOf("questionnaire", "ask_questionnaire", spec_.questionnaire(), tested,
                      StudyStage::kMeasure);
  }

  // --- Another language ---

  absl::Status AddLanguage(const std::string& field, const v1::StudyLanguage& language) {
    const auto tested = static_cast<double>(num_tested_elsewhere());
    if (language.has_questionnaire()) {
      VS_RETURN_IF_ERROR(AddItemsOf(absl::StrCat(field, ".questionnaire"), "ask_questionnaire",
                                    language.questionnaire(), tested, StudyStage::kMeasure));
    }
    if (language.test_queries().empty()) return absl::OkStatus();
    VS_ASSIGN_OR_RETURN(const WorkEstimate condition,
                        OfSteered(absl::StrCat(field, ".test_queries"), language.test_queries()));
    Add(condition, tested, stage(StudyStage::kTest));
    Add(condition, (passes() - 1) * tested, stage(StudyStage::kMeasure));
    const double answers =
        tested / static_cast<double>(num_values()) *
        static_cast<double>(language.test_queries_size() * spec_.steered_samples_per_query());
    for (int j = 0; j < language.judges_size(); ++j) {
      VS_ASSIGN_OR_RETURN(const WorkEstimate score,
                          OfJudge(absl::StrCat(field, ".judges[", j, "].score_judge"),
                                  language.judges(j).score_judge()));
      Add(score, answers, stage(StudyStage::kMeasure));
    }
    return absl::OkStatus();
  }

  // What the sweeps will be, as far as their size and their bounds tell before there are vectors.
  absl::Status CheckSweeps() const {
    for (const int count : {spec_.directions_size(), spec_.random_directions()}) {
      google::protobuf::RepeatedPtrField<std::string> vectors;
      for (int i = 0; i < count; ++i) *vectors.Add() = absl::StrCat("vectors/", i);
      if (vectors.empty()) continue;
      VS_RETURN_IF_ERROR(CheckSweepSize(SweepOver(spec_, vectors, &spec_.values(0).judge()),
                                        model_.architecture.num_layers));
    }
    if (spec_.neurons().factors().empty()) return absl::OkStatus();
    v1::StudiedValue value;
    for (const char* const vector : {"vectors/0", "vectors/1"}) {
      value.add_vectors()->set_vector(vector);
    }
    for (const int number : spec_.neurons().classes()) {
      value.add_selections()->mutable_subject()->set_neurons(static_cast<v1::NeuronClass>(number));
    }
    return CheckSweepSize(SweepOverNeurons(spec_, value, spec_.values(0).judge()),
                          model_.architecture.num_layers);
  }

  absl::Status CheckMeasuresAndGuard() {
    VS_RETURN_IF_ERROR(CheckSweeps());
    v1::MeasureTextsRequest request = spec_.measures();
    request.set_model(spec_.model());
    *request.add_responses() = StandIn();
    const auto resolved = ResolveAs("measure_texts", request);
    if (!resolved.ok()) return InField("measures", resolved.status());
    VS_ASSIGN_OR_RETURN(const v1::MeasureTextsRequest filled,
                        studies::WithDefaults(spec_.measures(), model_.architecture.vocabulary));
    SweepMeasures known;
    AddMeasures(kStudyResponses, filled, JudgedCounts(), v1::TextMeasures(), known);
    if (spec_.has_development_choices()) {
      AddMeasures(kStudyChoices, spec_.development_choices().reading(), v1::ChoicesResult(), known);
    }
    for (int b = 0; b < spec_.guard_size(); ++b) {
      const v1::SweepBound& bound = spec_.guard(b);
      std::vector<std::string> names;
      bool found = false;
      for (const v1::SweepMeasure& one : known) {
        names.push_back(absl::StrCat(one.evaluation(), " ", one.measure()));
        found |= one.evaluation() == bound.evaluation() && one.measure() == bound.measure();
      }
      if (found) continue;
      return InvalidField(absl::StrCat("guard[", b, "].measure"),
                          absl::StrCat("must be one of ", absl::StrJoin(names, ", ")));
    }
    return absl::OkStatus();
  }

  const Spec& spec_;
  const engine::ServedModel& model_;
  const rpc::CallContext& context_;
  const StudyTools& tools_;
  ResolvedStudy resolved_;
  std::vector<WorkEstimate> stages_;
  WorkEstimate once_;  // every training response run once
};

}  // namespace

absl::StatusOr<ResolvedStudy> ResolveStudy(const Spec& given, const engine::ServedModel& model,
                                           const rpc::CallContext& context,
                                           const StudyTools& tools) {
  VS_ASSIGN_OR_RETURN(const Spec spec, WithStudyDefaults(given, model));
  return PartResolver(spec, model, context, tools).Resolve();
}

}  // namespace valuescope::kinds
