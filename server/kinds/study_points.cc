#include "kinds/study_points.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/statistics.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/study_defaults.h"
#include "kinds/study_parts.h"
#include "studies/steering_sweep.h"

namespace valuescope::kinds {
namespace {

v1::SweepObjective Objective() {
  v1::SweepObjective objective;
  objective.set_evaluation(kStudyResponses);
  objective.set_measure(kExpressingShare);
  return objective;
}

// How many answers of each point express the value.
struct Labelled {
  double expressing = 0, answers = 0;
};

absl::StatusOr<std::map<std::string, Labelled>> LabelsOf(const PartResults& parts,
                                                         const std::string& phase) {
  std::map<std::string, Labelled> labels;
  VS_RETURN_IF_ERROR(parts.ForEachLine<v1::LabelledResponse>(
      phase, "responses", [&](const v1::LabelledResponse& line) {
        Labelled& of = labels[line.condition()];
        of.expressing += line.expresses();
        ++of.answers;
        return absl::OkStatus();
      }));
  return labels;
}

// The points of the random directions as they are for a value: its judge's share stands first.
absl::Status AddRandomPoints(const StudyGathering& of, const SavedStudyState& state,
                             v1::StudiedValue& value) {
  VS_ASSIGN_OR_RETURN(const auto labels, LabelsOf(of.parts, PhaseOf("select", value.value())));
  std::map<std::string, int> numbers;
  for (const std::string& vector : state.random_vectors()) {
    numbers.try_emplace(vector, static_cast<int>(numbers.size()));
  }
  return of.parts.ForEachLine<v1::SweepPoint>(
      kRandomSweep, "points", [&](const v1::SweepPoint& measured) {
        const auto number = numbers.find(measured.subject());
        const auto label = labels.find(measured.name());
        if (number == numbers.end() || label == labels.end()) return absl::OkStatus();
        v1::SweepPoint& point = *value.add_development_points() = measured;
        point.set_subject(kRandomSubject);
        point.set_random(number->second);
        point.clear_measures();
        v1::SweepMeasure& share = *point.add_measures();
        share.set_evaluation(kStudyResponses);
        share.set_measure(kExpressingShare);
        share.set_value(label->second.expressing / label->second.answers);
        const auto interval =
            analysis::WilsonInterval(label->second.expressing, label->second.answers);
        share.set_lower(interval.lower);
        share.set_upper(interval.upper);
        point.mutable_measures()->MergeFrom(measured.measures());
        return absl::OkStatus();
      });
}

// The points that a subject is chosen among, with the random ones beside it.
std::vector<v1::SweepPoint> PointsFor(const v1::StudiedValue& value, const std::string& subject) {
  std::vector<v1::SweepPoint> points;
  for (const v1::SweepPoint& point : value.development_points()) {
    if (point.subject() != subject && point.subject() != kRandomSubject) continue;
    points.push_back(point);
    points.back().set_subject(subject);
  }
  return points;
}

const v1::SweepPoint* PointOfName(const v1::StudiedValue& value, const std::string& name) {
  for (const v1::SweepPoint& point : value.development_points()) {
    if (point.name() == name) return &point;
  }
  return nullptr;
}

// The best point of a random direction; null where none passes.
const v1::SweepPoint* BestOfRandom(const v1::StudiedValue& value, int number) {
  std::vector<v1::SweepPoint> points;
  for (const v1::SweepPoint& point : value.development_points()) {
    if (point.subject() != kRandomSubject || point.random() != number) continue;
    points.push_back(point);
    points.back().clear_random();
  }
  const std::vector<std::string> subject = {kRandomSubject};
  const auto selected = studies::SelectPoints(Objective(), subject, /*num_random=*/0, points);
  return selected.front().has_point() ? PointOfName(value, selected.front().point()) : nullptr;
}

// What the sweep over a value's neurons calls the classes, in the order of the selections.
std::map<std::string, v1::StudySelection*> NeuronSubjects(v1::StudiedValue& value) {
  std::map<std::string, v1::StudySelection*> subjects;
  for (v1::StudySelection& selection : *value.mutable_selections()) {
    if (!selection.subject().has_neurons()) continue;
    subjects.emplace(absl::StrCat("classes[", subjects.size(), "]"), &selection);
  }
  return subjects;
}

absl::Status GatherNeuronPoints(const StudyGathering& of, v1::StudiedValue& value) {
  const auto subjects = NeuronSubjects(value);
  return of.parts.ForEachLine<v1::SweepPoint>(
      PhaseOf(kNeuronSweep, value.value()), "points", [&](const v1::SweepPoint& measured) {
        const auto subject = subjects.find(measured.subject());
        if (subject == subjects.end() || measured.has_random()) return absl::OkStatus();
        v1::SweepPoint& point = *value.add_development_points() = measured;
        point.set_subject(NameOf(subject->second->subject()));
        return absl::OkStatus();
      });
}

// The sweep chose itself, beside random sets; the classes are stored as they are at the points
// chosen.
absl::Status ChooseNeurons(const StudyGathering& of, v1::StudiedValue& value) {
  v1::SteeringSweepResult swept;
  VS_RETURN_IF_ERROR(of.parts.ReadSummary(PhaseOf(kNeuronSweep, value.value()), swept));
  const auto subjects = NeuronSubjects(value);
  for (const v1::SweepSelection& selected : swept.selected()) {
    const auto found = subjects.find(selected.subject());
    if (found == subjects.end()) continue;
    v1::StudySelection& selection = *found->second;
    *selection.mutable_selection() = selected;
    selection.mutable_selection()->set_subject(NameOf(selection.subject()));
    const v1::SweepPoint* const point = PointOfName(value, selected.point());
    if (!selected.has_point() || point == nullptr) continue;
    v1::ClassifyNeuronsRequest request = ClassificationOf(value);
    request.set_model(of.spec.model());
    request.set_top_percent(point->top_percent());
    request.set_max_angle(point->max_angle());
    request.set_display_name(value.value());
    v1::ClassifyNeuronsResponse response;
    VS_RETURN_IF_ERROR(of.tools.neurons->ClassifyNeurons(of.context, request, &response));
    selection.mutable_subject()->set_neuron_set(response.neuron_set().name());
  }
  return absl::OkStatus();
}

v1::EvaluationCondition ConditionOf(const v1::ValueStudySpec& spec,
                                    const v1::ValueDefinition& value, const TestedWay& way,
                                    bool drawn) {
  if (way.name == kSystemMessage && drawn) return PromptedCondition(way.name, value);
  v1::EvaluationCondition condition = IntrinsicCondition(way.name);
  if (way.name == kSystemMessage) condition.set_system_message(value.system_messages(0));
  if (!way.subject) return condition;
  if (way.subject->has_neurons()) {
    *condition.add_interventions() = ScalingOf(spec, *way.subject, way.point);
    return condition;
  }
  *condition.add_interventions() =
      SteeringOf(spec, way.subject->vector(), way.point.layers(0), way.point.coefficient());
  return condition;
}

}  // namespace

bool SteersNeurons(const v1::StudiedValue& value) {
  return std::any_of(
      value.selections().begin(), value.selections().end(),
      [](const v1::StudySelection& selection) { return selection.subject().has_neurons(); });
}

int LayerToRead(const v1::ValueStudySpec& spec, const v1::StudiedValue& value,
                v1::StudyCondition condition) {
  const v1::StudyDirection direction = condition == v1::STUDY_CONDITION_INTRINSIC
                                           ? v1::STUDY_DIRECTION_INTRINSIC
                                           : v1::STUDY_DIRECTION_PROMPTED;
  for (const v1::StudySelection& selection : value.selections()) {
    if (selection.subject().direction() != direction) continue;
    for (const v1::SweepPoint& point : value.development_points()) {
      if (point.name() == selection.selection().point()) return point.layers(0);
    }
  }
  return *spec.steered_layers().list().layers().rbegin();
}

absl::Status GatherPoints(const StudyGathering& of, SavedStudyState& state) {
  for (v1::StudiedValue& value : *state.mutable_result()->mutable_values()) {
    if (!value.failure().empty()) continue;
    VS_RETURN_IF_ERROR(of.parts.ForEachLine<v1::SweepPoint>(
        PhaseOf("sweep", value.value()), "points", [&](const v1::SweepPoint& point) {
          *value.add_development_points() = point;
          return absl::OkStatus();
        }));
    if (SteersNeurons(value)) VS_RETURN_IF_ERROR(GatherNeuronPoints(of, value));
  }
  return absl::OkStatus();
}

absl::Status ChoosePoints(const StudyGathering& of, SavedStudyState& state) {
  for (v1::StudiedValue& value : *state.mutable_result()->mutable_values()) {
    if (!value.failure().empty()) continue;
    if (!state.random_vectors().empty()) VS_RETURN_IF_ERROR(AddRandomPoints(of, state, value));
    for (v1::StudySelection& selection : *value.mutable_selections()) {
      if (selection.subject().has_neurons()) continue;
      const std::vector<std::string> subject = {selection.subject().vector()};
      *selection.mutable_selection() =
          studies::SelectPoints(Objective(), subject, state.random_vectors_size(),
                                PointsFor(value, subject.front()))
              .front();
    }
    if (SteersNeurons(value)) VS_RETURN_IF_ERROR(ChooseNeurons(of, value));
    for (const v1::StudySelection& selection : value.selections()) {
      if (selection.selection().has_point()) continue;
      v1::StudyUntested& untested = *value.add_untested();
      untested.set_name(NameOf(selection.subject()));
      untested.set_reason(absl::StrCat("none of its ", selection.selection().num_points(),
                                       " points kept the guard on development queries"));
    }
  }
  return absl::OkStatus();
}

std::vector<TestedWay> WaysToTest(const SavedStudyState& state, const v1::StudiedValue& value,
                                  const v1::StudyLanguage& language) {
  std::vector<TestedWay> ways = {{.name = kBaseline, .subject = {}, .point = {}},
                                 {.name = kSystemMessage, .subject = {}, .point = {}}};
  for (const v1::StudySelection& selection : value.selections()) {
    const v1::SweepPoint* const point = PointOfName(value, selection.selection().point());
    if (!selection.selection().has_point() || point == nullptr) continue;
    ways.push_back(
        {.name = NameOf(selection.subject()), .subject = selection.subject(), .point = *point});
  }
  if (!language.name().empty()) return ways;
  for (int r = 0; r < state.random_vectors_size(); ++r) {
    const v1::SweepPoint* const point = BestOfRandom(value, r);
    if (point == nullptr) continue;
    v1::StudySubject subject;
    subject.set_random_direction(r);
    subject.set_vector(state.random_vectors(r));
    ways.push_back({.name = NameOf(subject), .subject = subject, .point = *point});
  }
  return ways;
}

google::protobuf::RepeatedPtrField<v1::EvaluationCondition> TestConditions(
    const v1::ValueStudySpec& spec, const SavedStudyState& state, int value,
    const v1::StudyLanguage& language, bool drawn) {
  google::protobuf::RepeatedPtrField<v1::EvaluationCondition> conditions;
  for (const TestedWay& way : WaysToTest(state, state.result().values(value), language)) {
    *conditions.Add() = ConditionOf(spec, spec.values(value), way, drawn);
  }
  return conditions;
}

}  // namespace valuescope::kinds
