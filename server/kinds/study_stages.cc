#include "kinds/study_stages.h"

#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "analysis/statistics.h"
#include "base/status_macros.h"
#include "kinds/study_neurons.h"
#include "kinds/study_outcomes.h"
#include "kinds/study_points.h"
#include "kinds/study_training.h"
#include "kinds/study_vectors.h"
#include "services/prompt_codec.h"
#include "services/user_turns.h"
#include "studies/confidence_interval.h"

namespace valuescope::kinds {
namespace {

using Spec = v1::ValueStudySpec;

// Of the live ones; see LiveValues.
std::vector<int> NumbersOfLive(const SavedStudyState& state) {
  std::vector<int> live;
  for (int v = 0; v < state.result().values_size(); ++v) {
    if (state.result().values(v).failure().empty()) live.push_back(v);
  }
  return live;
}

std::vector<std::string> LiveNames(const SavedStudyState& state) {
  std::vector<std::string> names;
  for (const int v : NumbersOfLive(state)) names.push_back(state.result().values(v).value());
  return names;
}

StudyPart JudgePart(const Spec& spec, std::string phase, const std::string& artifact,
                    const v1::Judge& judge) {
  StudyPart part{.phase = std::move(phase), .spec = {}};
  v1::JudgeResponsesRequest& request = *part.spec.mutable_judge_responses();
  request.set_model(spec.model());
  request.set_artifact(artifact);
  *request.mutable_judge() = judge;
  return part;
}

// Tells what is there of the responses of one condition.
absl::StatusOr<v1::StudyResponses> ResponsesOf(const PartResults& parts, const std::string& phase,
                                               v1::StudyCondition condition) {
  v1::StudyResponses told;
  told.set_condition(condition);
  int64_t tokens = 0;
  VS_RETURN_IF_ERROR(parts.ForEachLine<v1::LabelledResponse>(
      phase, "responses", [&](const v1::LabelledResponse& line) {
        const int length = line.response().token_ids().ids_size();
        tokens += length;
        told.set_num_responses(told.num_responses() + 1);
        if (length == 0) told.set_num_empty(told.num_empty() + 1);
        if (line.expresses()) told.set_num_expressing(told.num_expressing() + 1);
        return absl::OkStatus();
      }));
  const auto count = static_cast<double>(told.num_responses());
  const auto expressing = static_cast<double>(told.num_expressing());
  told.set_expressing_share(expressing / count);
  *told.mutable_expressing_interval() =
      studies::IntervalToProto(analysis::WilsonInterval(expressing, count));
  told.set_mean_tokens(static_cast<double>(tokens) / count);
  v1::JudgeResponsesResponse judged;
  VS_RETURN_IF_ERROR(parts.ReadSummary(phase, judged));
  if (judged.has_label_mass()) told.set_label_mass(judged.label_mass());
  VS_ASSIGN_OR_RETURN(const store::Resource data_set, parts.Artifact(phase, "responses"));
  told.set_data_set_sha256(data_set.blob_digest);
  return told;
}

// Why no vector can be made of them; empty where it can.
std::string FailureOf(const v1::StudyResponses& responses, int least) {
  const int64_t others =
      responses.num_responses() - responses.num_empty() - responses.num_expressing();
  const std::string name = NameOf(responses.condition());
  if (responses.num_expressing() < least) {
    return absl::StrCat(responses.num_expressing(), " of ", responses.num_responses(), " ", name,
                        " responses express the value, ", least, " are needed");
  }
  if (others >= least) return "";
  return absl::StrCat("all but ", others, " of ", responses.num_responses(), " ", name,
                      " responses express the value, ", least, " that do not are needed");
}

}  // namespace

// --- Parts ---------------------------------------------------------------------------------------

absl::StatusOr<std::vector<StudyPart>> StudyStages::PartsOf(StudyStage stage,
                                                            const SavedStudyState& state,
                                                            const PartResults& parts) const {
  switch (stage) {
    case StudyStage::kGenerate:
      return ToGenerate();
    case StudyStage::kJudge:
      return ToJudge(parts);
    case StudyStage::kExtract:
      return ToExtract(state, parts);
    case StudyStage::kAttribute:
      return ToAttribute(state, parts);
    case StudyStage::kSweep:
      return ToSweep(state);
    case StudyStage::kSelect:
      return ToSelect(state, parts);
    case StudyStage::kTest: {
      std::vector<StudyPart> tests = ToTest(state);
      VS_ASSIGN_OR_RETURN(std::vector<StudyPart> removals, ToRemove(state, parts));
      std::move(removals.begin(), removals.end(), std::back_inserter(tests));
      return tests;
    }
    case StudyStage::kMeasure:
      return ToMeasure(state, parts);
  }
  return std::vector<StudyPart>();
}

std::vector<StudyPart> StudyStages::ToGenerate() const {
  std::vector<StudyPart> parts;
  const auto add = [&](std::string phase, v1::EvaluationCondition condition) {
    StudyPart& part = parts.emplace_back(StudyPart{.phase = std::move(phase), .spec = {}});
    v1::GenerateResponsesSpec& generation = *part.spec.mutable_generate_responses();
    generation = TrainingGeneration(spec_);
    *generation.add_conditions() = std::move(condition);
  };
  add(kGenerateIntrinsic, IntrinsicCondition("intrinsic"));
  for (const v1::ValueDefinition& value : spec_.values()) {
    add(PhaseOf("generate", value.value()), PromptedCondition("prompted", value));
  }
  return parts;
}

std::vector<StudyPart> StudyStages::ToJudge(const PartResults& parts) const {
  std::vector<StudyPart> judged;
  for (const v1::ValueDefinition& value : spec_.values()) {
    for (const v1::StudyCondition condition : kStudyConditions) {
      const std::string generated = condition == v1::STUDY_CONDITION_INTRINSIC
                                        ? kGenerateIntrinsic
                                        : PhaseOf("generate", value.value());
      judged.push_back(JudgePart(spec_, PhaseOf("judge", value.value(), condition),
                                 parts.ArtifactName(generated, "responses"), value.judge()));
    }
  }
  return judged;
}

absl::StatusOr<std::vector<StudyPart>> StudyStages::ToExtract(const SavedStudyState& state,
                                                              const PartResults& parts) const {
  std::vector<StudyPart> extracted;
  VS_ASSIGN_OR_RETURN(extracted.emplace_back(), ExtractionPart(spec_, parts, LiveNames(state)));
  return extracted;
}

absl::StatusOr<std::vector<StudyPart>> StudyStages::ToAttribute(const SavedStudyState& state,
                                                                const PartResults& parts) const {
  std::vector<StudyPart> attributed;
  if (spec_.neurons().has_attribute() && !spec_.neurons().attribute()) return attributed;
  for (const int v : NumbersOfLive(state)) {
    const v1::StudiedValue& value = state.result().values(v);
    for (const v1::StudyVector& vector : value.vectors()) {
      const std::string judged = PhaseOf("judge", value.value(), vector.condition());
      StudyPart& part = attributed.emplace_back(
          StudyPart{.phase = PhaseOf("attribute", value.value(), vector.condition()), .spec = {}});
      v1::AttributeNeuronsRequest& request = *part.spec.mutable_attribute_neurons();
      request.set_model(spec_.model());
      request.set_artifact(parts.ArtifactName(judged, "responses"));
      request.set_vector(vector.vector());
      *request.mutable_layers() = spec_.layers();
      request.mutable_direct_contribution();
      request.set_top_k(kTopNeurons);
      request.set_display_name(absl::StrCat(value.value(), " ", NameOf(vector.condition())));
      VS_ASSIGN_OR_RETURN(*request.mutable_judge(), parts.JudgeOf(judged));
    }
  }
  return attributed;
}

std::vector<StudyPart> StudyStages::ToSweep(const SavedStudyState& state) const {
  std::vector<StudyPart> sweeps;
  for (const int v : NumbersOfLive(state)) {
    google::protobuf::RepeatedPtrField<std::string> vectors;
    std::set<std::string> seen;
    for (const v1::StudySelection& selection : state.result().values(v).selections()) {
      const std::string& vector = selection.subject().vector();
      if (!vector.empty() && seen.insert(vector).second) *vectors.Add() = vector;
    }
    StudyPart& part = sweeps.emplace_back(
        StudyPart{.phase = PhaseOf("sweep", spec_.values(v).value()), .spec = {}});
    *part.spec.mutable_steering_sweep() = SweepOver(spec_, vectors, &spec_.values(v).judge());
    const v1::StudiedValue& value = state.result().values(v);
    if (!SteersNeurons(value)) continue;
    StudyPart& neurons =
        sweeps.emplace_back(StudyPart{.phase = PhaseOf(kNeuronSweep, value.value()), .spec = {}});
    *neurons.spec.mutable_steering_sweep() =
        SweepOverNeurons(spec_, value, spec_.values(v).judge());
  }
  if (state.random_vectors().empty()) return sweeps;
  StudyPart& random = sweeps.emplace_back(StudyPart{.phase = kRandomSweep, .spec = {}});
  *random.spec.mutable_steering_sweep() =
      SweepOver(spec_, state.random_vectors(), /*judge=*/nullptr);
  return sweeps;
}

std::vector<StudyPart> StudyStages::ToSelect(const SavedStudyState& state,
                                             const PartResults& parts) const {
  std::vector<StudyPart> selected;
  if (state.random_vectors().empty()) return selected;
  for (const int v : NumbersOfLive(state)) {
    const v1::ValueDefinition& value = spec_.values(v);
    selected.push_back(JudgePart(spec_, PhaseOf("select", value.value()),
                                 parts.ArtifactName(kRandomSweep, "responses"), value.judge()));
  }
  return selected;
}

std::vector<StudyPart> StudyStages::ToTest(const SavedStudyState& state) const {
  std::vector<StudyPart> tests;
  for (const v1::StudyLanguage& language : LanguagesOf(spec_)) {
    if (language.test_queries().empty()) continue;
    for (const int v : NumbersOfLive(state)) {
      StudyPart& part = tests.emplace_back(
          StudyPart{.phase = PhaseOf("test", spec_.values(v).value(), language), .spec = {}});
      v1::GenerateResponsesSpec& generation = *part.spec.mutable_generate_responses();
      generation = SteeredGeneration(spec_, language.test_queries());
      *generation.mutable_conditions() = TestConditions(spec_, state, v, language, /*drawn=*/true);
    }
  }
  return tests;
}

absl::StatusOr<std::vector<StudyPart>> StudyStages::ToRemove(const SavedStudyState& state,
                                                             const PartResults& parts) const {
  std::vector<StudyPart> removals;
  if (spec_.neurons().removed().empty()) return removals;
  for (const int v : NumbersOfLive(state)) {
    const v1::StudiedValue& value = state.result().values(v);
    for (const v1::StudyAttribution& attribution : value.attributions()) {
      const v1::StudyCondition condition = attribution.condition();
      const std::string judged = PhaseOf("judge", value.value(), condition);
      const int layer = LayerToRead(spec_, value, condition);
      StudyPart& part = removals.emplace_back(
          StudyPart{.phase = PhaseOf("remove", value.value(), condition), .spec = {}});
      v1::TestNeuronsRequest& request = *part.spec.mutable_test_neurons();
      request.set_model(spec_.model());
      request.set_artifact(parts.ArtifactName(judged, "responses"));
      request.set_neuron_set(attribution.neuron_set());
      // Blocks behind it cannot have written what is read there.
      for (const int one : spec_.layers().list().layers()) {
        if (one <= layer) request.mutable_layers()->mutable_list()->add_layers(one);
      }
      *request.mutable_sizes() = spec_.neurons().removed();
      v1::VectorProjectionTarget& target = *request.mutable_target()->mutable_vector_projection();
      target.set_vector(VectorOf(value, condition));
      target.set_layer(layer);
      request.set_random_sets(spec_.neurons().random_sets());
      request.set_seed(spec_.seed());
      VS_ASSIGN_OR_RETURN(*request.mutable_judge(), parts.JudgeOf(judged));
    }
  }
  return removals;
}

std::vector<StudyPart> StudyStages::ToMeasure(const SavedStudyState& state,
                                              const PartResults& parts) const {
  std::vector<StudyPart> measured;
  for (const v1::StudyLanguage& language : LanguagesOf(spec_)) {
    for (const int v : NumbersOfLive(state)) MeasureValue(state, parts, language, v, measured);
  }
  return measured;
}

void StudyStages::MeasureValue(const SavedStudyState& state, const PartResults& parts,
                               const v1::StudyLanguage& language, int v,
                               std::vector<StudyPart>& measured) const {
  const std::string& value = spec_.values(v).value();
  const auto add = [&](absl::string_view what) -> v1::JobSpec& {
    return measured.emplace_back(StudyPart{.phase = PhaseOf(what, value, language), .spec = {}})
        .spec;
  };
  const auto conditions = TestConditions(spec_, state, v, language, /*drawn=*/false);
  if (!language.test_queries().empty()) {
    const std::string answers = parts.ArtifactName(PhaseOf("test", value, language), "responses");
    measured.push_back(
        JudgePart(spec_, PhaseOf("score", value, language), answers, JudgeIn(language, value)));
    v1::MeasureTextsRequest& texts = *add("measure").mutable_measure_texts();
    texts = spec_.measures();
    texts.set_model(spec_.model());
    texts.set_artifact(answers);
  }
  if (language.has_questionnaire()) {
    v1::AskQuestionnaireRequest& ask = *add("ask").mutable_ask_questionnaire();
    ask = language.questionnaire();
    ask.set_model(spec_.model());
    *ask.mutable_conditions() = conditions;
  }
  if (!language.name().empty() || !spec_.has_test_choices()) return;
  v1::AnswerChoicesRequest& choose = *add("choose").mutable_answer_choices();
  choose = spec_.test_choices();
  choose.set_model(spec_.model());
  *choose.mutable_conditions() = conditions;
}

// --- What came of them ---------------------------------------------------------------------------

absl::Status StudyStages::Gather(StudyStage stage, const PartResults& parts,
                                 SavedStudyState& state) const {
  const StudyGathering gathering{spec_, model_, context_, tools_, parts};
  switch (stage) {
    case StudyStage::kGenerate:
      return GatherPrompts(state);
    case StudyStage::kJudge:
      return GatherLabels(gathering, state);
    case StudyStage::kExtract:
      return GatherVectors(gathering, state);
    case StudyStage::kAttribute:
      return GatherNeurons(gathering, state);
    case StudyStage::kSweep:
      return GatherPoints(gathering, state);
    case StudyStage::kSelect:
      return ChoosePoints(gathering, state);
    case StudyStage::kTest:
      return GatherRemovals(gathering, state);
    case StudyStage::kMeasure:
      return GatherOutcomes(gathering, state);
  }
  return absl::OkStatus();
}

absl::Status StudyStages::GatherPrompts(SavedStudyState& state) const {
  const std::string& query =
      spec_.queries().empty() ? spec_.development_queries(0) : spec_.queries(0);
  VS_ASSIGN_OR_RETURN(const bool takes_system_message,
                      services::TakesSystemMessage("values", model_, absl::Now()));
  const auto rendered = [&](const std::string& message) -> absl::StatusOr<std::string> {
    const bool left_out = message.empty() && !takes_system_message;
    VS_ASSIGN_OR_RETURN(services::TokenisedPrompt prompt,
                        services::PromptFromProto(
                            "values", services::UserTurn(left_out ? nullptr : &message, query),
                            model_, {.now = absl::Now()}));
    return std::move(prompt.text);
  };
  for (const v1::ValueDefinition& of : spec_.values()) {
    v1::StudiedValue& value = *state.mutable_result()->add_values();
    value.set_value(of.value());
    v1::StudyPrompt& intrinsic = *value.add_prompts();
    intrinsic.set_condition(v1::STUDY_CONDITION_INTRINSIC);
    VS_ASSIGN_OR_RETURN(*intrinsic.mutable_rendered(), rendered(""));
    for (const std::string& message : of.system_messages()) {
      v1::StudyPrompt& prompt = *value.add_prompts();
      prompt.set_condition(v1::STUDY_CONDITION_PROMPTED);
      prompt.set_system_message(message);
      VS_ASSIGN_OR_RETURN(*prompt.mutable_rendered(), rendered(message));
    }
  }
  return absl::OkStatus();
}

absl::Status StudyStages::GatherLabels(const StudyGathering& of, SavedStudyState& state) const {
  for (v1::StudiedValue& value : *state.mutable_result()->mutable_values()) {
    for (const v1::StudyCondition condition : kStudyConditions) {
      const std::string phase = PhaseOf("judge", value.value(), condition);
      VS_ASSIGN_OR_RETURN(*value.add_responses(), ResponsesOf(of.parts, phase, condition));
      const std::string failure = FailureOf(*value.responses().rbegin(), spec_.min_responses());
      if (value.failure().empty()) value.set_failure(failure);
    }
  }
  VS_RETURN_IF_ERROR(CheckAnyLives(state));
  return StoreTraining(of, LiveNames(state));
}

}  // namespace valuescope::kinds
