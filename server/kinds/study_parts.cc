#include "kinds/study_parts.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/error.h"
#include "kinds/study_defaults.h"

namespace valuescope::kinds {
namespace {

std::string WithoutPrefix(const std::string& name, absl::string_view prefix) {
  return absl::AsciiStrToLower(absl::StripPrefix(name, prefix));
}

}  // namespace

std::string NameOf(v1::StudyCondition condition) {
  return WithoutPrefix(v1::StudyCondition_Name(condition), "STUDY_CONDITION_");
}

std::string NameOf(v1::StudyDirection direction) {
  return WithoutPrefix(v1::StudyDirection_Name(direction), "STUDY_DIRECTION_");
}

std::string NameOf(const v1::StudySubject& subject) {
  switch (subject.subject_case()) {
    case v1::StudySubject::kDirection:
      return NameOf(subject.direction());
    case v1::StudySubject::kNeurons:
      return absl::StrCat("neurons_",
                          WithoutPrefix(v1::NeuronClass_Name(subject.neurons()), "NEURON_CLASS_"));
    case v1::StudySubject::kRandomDirection:
      return absl::StrCat("random_", subject.random_direction());
    case v1::StudySubject::SUBJECT_NOT_SET:
      break;
  }
  return "baseline";
}

std::string PhaseOf(absl::string_view what, absl::string_view value) {
  return absl::StrCat(what, "/", value);
}

std::string PhaseOf(absl::string_view what, absl::string_view value, v1::StudyCondition condition) {
  return absl::StrCat(what, "/", value, "/", NameOf(condition));
}

std::string PhaseOf(absl::string_view what, absl::string_view value,
                    const v1::StudyLanguage& language) {
  if (language.name().empty()) return PhaseOf(what, value);
  return absl::StrCat(what, "/", value, "/", language.name());
}

std::vector<v1::StudiedValue*> LiveValues(SavedStudyState& state) {
  std::vector<v1::StudiedValue*> live;
  for (v1::StudiedValue& value : *state.mutable_result()->mutable_values()) {
    if (value.failure().empty()) live.push_back(&value);
  }
  return live;
}

absl::Status CheckAnyLives(const SavedStudyState& state) {
  for (const v1::StudiedValue& value : state.result().values()) {
    if (value.failure().empty()) return absl::OkStatus();
  }
  const v1::StudiedValue& first = state.result().values(0);
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "TOO_FEW_RESPONSES",
                         absl::StrCat("no value has responses enough to make vectors of; `",
                                      first.value(), "`: ", first.failure()));
}

const std::string& VectorOf(const v1::StudiedValue& value, v1::StudyCondition condition) {
  return value.vectors(condition == v1::STUDY_CONDITION_INTRINSIC ? 0 : 1).vector();
}

std::vector<v1::StudyLanguage> LanguagesOf(const v1::ValueStudySpec& spec) {
  std::vector<v1::StudyLanguage> languages(1);
  v1::StudyLanguage& own = languages.front();
  *own.mutable_test_queries() = spec.test_queries();
  for (const v1::ValueDefinition& value : spec.values()) {
    v1::LanguageJudge& judge = *own.add_judges();
    judge.set_value(value.value());
    *judge.mutable_score_judge() = value.score_judge();
  }
  if (spec.has_questionnaire()) *own.mutable_questionnaire() = spec.questionnaire();
  languages.insert(languages.end(), spec.languages().begin(), spec.languages().end());
  return languages;
}

const v1::Judge& JudgeIn(const v1::StudyLanguage& language, absl::string_view value) {
  for (const v1::LanguageJudge& judge : language.judges()) {
    if (judge.value() == value) return judge.score_judge();
  }
  VS_CHECK(false);
}

v1::Layers OneLayer(int layer) {
  v1::Layers layers;
  layers.mutable_list()->add_layers(layer);
  return layers;
}

v1::EvaluationCondition IntrinsicCondition(absl::string_view name) {
  v1::EvaluationCondition condition;
  condition.set_name(std::string(name));
  condition.set_system_message("");
  return condition;
}

v1::EvaluationCondition PromptedCondition(absl::string_view name,
                                          const v1::ValueDefinition& value) {
  v1::EvaluationCondition condition;
  condition.set_name(std::string(name));
  *condition.mutable_system_messages() = value.system_messages();
  return condition;
}

v1::GenerateResponsesSpec TrainingGeneration(const v1::ValueStudySpec& spec) {
  v1::GenerateResponsesSpec generation;
  generation.set_model(spec.model());
  *generation.mutable_queries() = spec.queries();
  generation.set_queries_artifact(spec.queries_artifact());
  *generation.mutable_sampling() = spec.sampling();
  generation.set_samples_per_query(spec.samples_per_query());
  generation.set_seed(spec.seed());
  return generation;
}

v1::GenerateResponsesSpec SteeredGeneration(
    const v1::ValueStudySpec& spec,
    const google::protobuf::RepeatedPtrField<std::string>& queries) {
  v1::GenerateResponsesSpec generation;
  generation.set_model(spec.model());
  *generation.mutable_queries() = queries;
  *generation.mutable_sampling() = spec.steered_sampling();
  generation.set_samples_per_query(spec.steered_samples_per_query());
  generation.set_seed(spec.seed());
  return generation;
}

v1::Intervention SteeringOf(const v1::ValueStudySpec& spec, const std::string& vector, int layer,
                            float coefficient) {
  v1::Intervention steering;
  *steering.mutable_layers() = OneLayer(layer);
  if (spec.has_tokens()) *steering.mutable_tokens() = spec.tokens();
  steering.mutable_add()->set_vector(vector);
  steering.mutable_add()->set_coefficient(coefficient);
  return steering;
}

namespace {

// What every sweep of the study has: measures, guard and objective on development queries.
v1::SteeringSweepSpec BeginSweep(const v1::ValueStudySpec& spec, const v1::Judge* judge) {
  v1::SteeringSweepSpec sweep;
  sweep.set_model(spec.model());
  *sweep.mutable_layers() = spec.steered_layers();
  if (spec.has_tokens()) *sweep.mutable_tokens() = spec.tokens();
  v1::SweepEvaluation& responses = *sweep.add_evaluations();
  responses.set_name(kStudyResponses);
  v1::GenerateResponsesSpec& generation = *responses.mutable_responses()->mutable_generation();
  generation = SteeredGeneration(spec, spec.development_queries());
  generation.clear_model();
  if (judge != nullptr) *generation.mutable_judge() = *judge;
  *responses.mutable_responses()->mutable_measures() = spec.measures();
  if (spec.has_development_choices()) {
    v1::SweepEvaluation& choices = *sweep.add_evaluations();
    choices.set_name(kStudyChoices);
    *choices.mutable_choices() = spec.development_choices();
  }
  *sweep.mutable_guard() = spec.guard();
  sweep.mutable_objective()->set_evaluation(kStudyResponses);
  sweep.mutable_objective()->set_measure(judge != nullptr ? kExpressingShare : "mean_tokens");
  return sweep;
}

}  // namespace

v1::SteeringSweepSpec SweepOver(const v1::ValueStudySpec& spec,
                                const google::protobuf::RepeatedPtrField<std::string>& vectors,
                                const v1::Judge* judge) {
  v1::SteeringSweepSpec sweep = BeginSweep(spec, judge);
  *sweep.mutable_vectors() = vectors;
  *sweep.mutable_coefficients() = spec.coefficients();
  return sweep;
}

v1::ClassifyNeuronsRequest ClassificationOf(const v1::StudiedValue& value) {
  v1::ClassifyNeuronsRequest classification;
  classification.mutable_vectors()->set_intrinsic(VectorOf(value, v1::STUDY_CONDITION_INTRINSIC));
  classification.mutable_vectors()->set_prompted(VectorOf(value, v1::STUDY_CONDITION_PROMPTED));
  return classification;
}

v1::SteeringSweepSpec SweepOverNeurons(const v1::ValueStudySpec& spec,
                                       const v1::StudiedValue& value, const v1::Judge& judge) {
  const v1::StudyNeurons& neurons = spec.neurons();
  v1::SteeringSweepSpec sweep = BeginSweep(spec, &judge);
  sweep.set_layers_together(true);
  *sweep.mutable_factors() = neurons.factors();
  sweep.set_random_directions(neurons.random_sets());
  sweep.set_seed(spec.seed());
  for (const v1::StudySelection& selection : value.selections()) {
    if (!selection.subject().has_neurons()) continue;
    v1::SweptClasses& classes = *sweep.add_classes();
    *classes.mutable_classification() = ClassificationOf(value);
    classes.set_class_(selection.subject().neurons());
    *classes.mutable_top_percents() = neurons.top_percents();
    *classes.mutable_max_angles() = neurons.max_angles();
  }
  return sweep;
}

v1::Intervention ScalingOf(const v1::ValueStudySpec& spec, const v1::StudySubject& subject,
                           const v1::SweepPoint& point) {
  v1::Intervention scaling;
  *scaling.mutable_layers()->mutable_list()->mutable_layers() = point.layers();
  if (spec.has_tokens()) *scaling.mutable_tokens() = spec.tokens();
  v1::ScaleNeurons& scale = *scaling.mutable_scale_neurons();
  scale.set_neuron_set(subject.neuron_set());
  scale.set_class_(subject.neurons());
  scale.set_factor(point.factor());
  return scaling;
}

}  // namespace valuescope::kinds
