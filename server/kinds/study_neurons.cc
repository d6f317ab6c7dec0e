#include "kinds/study_neurons.h"

#include <string>

#include "base/status_macros.h"
#include "kinds/study_parts.h"
#include "kinds/study_points.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {
namespace {

absl::Status AddOverlaps(const StudyGathering& of, const v1::StudyClassification& classes,
                         v1::StudyAttribution& told) {
  if (classes.neuron_set().empty()) return absl::OkStatus();
  v1::CompareNeuronSetsRequest request;
  request.add_sets()->set_neuron_set(told.neuron_set());
  for (const v1::StudyClass& one : classes.classes()) {
    v1::NeuronSetFilter& filter = *request.add_sets();
    filter.set_neuron_set(classes.neuron_set());
    filter.set_class_(one.class_());
  }
  v1::CompareNeuronSetsResponse response;
  VS_RETURN_IF_ERROR(of.tools.neurons->CompareNeuronSets(of.context, request, &response));
  for (const v1::NeuronSetOverlap& one : response.overlaps()) {
    if (one.first() != 0 || one.has_layer()) continue;
    v1::StudyClassOverlap& overlap = *told.add_class_overlaps();
    overlap.set_class_(classes.classes(one.second() - 1).class_());
    overlap.set_intersection(one.intersection());
    overlap.set_expected_intersection(one.expected_intersection());
    if (one.has_jaccard()) overlap.set_jaccard(one.jaccard());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status GatherNeurons(const StudyGathering& of, SavedStudyState& state) {
  for (v1::StudiedValue* const value : LiveValues(state)) {
    for (const v1::StudyCondition condition : kStudyConditions) {
      const std::string phase = PhaseOf("attribute", value->value(), condition);
      if (!of.parts.parts().contains(phase)) continue;
      v1::GetNeuronSetRequest request;
      VS_ASSIGN_OR_RETURN(*request.mutable_name(), of.parts.Made(phase, "neuron_sets"));
      v1::GetNeuronSetResponse response;
      VS_RETURN_IF_ERROR(of.tools.neurons->GetNeuronSet(of.context, request, &response));
      v1::StudyAttribution& told = *value->add_attributions();
      told.set_condition(condition);
      told.set_neuron_set(response.neuron_set().name());
      *told.mutable_layers() = response.neuron_set().layers();
      *told.mutable_top() = response.neuron_set().top();
      *told.mutable_warnings() = response.neuron_set().warnings();
      VS_RETURN_IF_ERROR(AddOverlaps(of, value->classification(), told));
    }
  }
  return absl::OkStatus();
}

absl::Status GatherRemovals(const StudyGathering& of, SavedStudyState& state) {
  for (v1::StudiedValue* const value : LiveValues(state)) {
    for (const v1::StudyCondition condition : kStudyConditions) {
      const std::string phase = PhaseOf("remove", value->value(), condition);
      if (!of.parts.parts().contains(phase)) continue;
      v1::TestNeuronsResponse tested;
      VS_RETURN_IF_ERROR(of.parts.ReadSummary(phase, tested));
      v1::StudyCausalControl& told = *value->add_causal_controls();
      told.set_condition(condition);
      told.set_layer(LayerToRead(of.spec, *value, condition));
      *told.mutable_points() = tested.points();
      told.set_full(tested.full());
      if (tested.has_empty()) told.set_empty(tested.empty());
      told.set_num_responses(tested.num_responses());
      *told.mutable_warnings() = tested.warnings();
    }
  }
  return absl::OkStatus();
}

}  // namespace valuescope::kinds
