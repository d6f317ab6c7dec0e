#include "studies/score_selectivity.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "studies/stored_record.h"

namespace valuescope::studies {
namespace {

// What counted as active, which the record of the request tells where it was not the default.
absl::StatusOr<v1::ActivationDefinition> DefinitionOf(const v1::NeuronSet& set) {
  const auto options = nlohmann::json::parse(set.provenance().options(), /*cb=*/nullptr,
                                             /*allow_exceptions=*/false);
  const nlohmann::json::json_pointer place("/activation_probability_difference/definition");
  v1::ActivationDefinition definition = v1::ACTIVATION_DEFINITION_UNSPECIFIED;
  if (!options.is_object() || !options.contains(place.parent_pointer())) {
    return DamagedRecord("a set of activation probability without its options");
  }
  if (options.contains(place) &&
      (!options.at(place).is_string() ||
       !v1::ActivationDefinition_Parse(options.at(place).get<std::string>(), &definition))) {
    return DamagedRecord("a set of activation probability of an unknown definition");
  }
  return definition == v1::ACTIVATION_DEFINITION_UNSPECIFIED ? v1::ACTIVATION_DEFINITION_PRODUCT
                                                             : definition;
}

bool SameLayers(const v1::NeuronSet& a, const v1::NeuronSet& b) {
  return std::equal(a.layers().begin(), a.layers().end(), b.layers().begin(), b.layers().end(),
                    [](const v1::NeuronSetLayer& one, const v1::NeuronSetLayer& other) {
                      return one.layer() == other.layer() &&
                             one.num_neurons() == other.num_neurons();
                    });
}

bool HasValue(int64_t values, int k) { return ((static_cast<uint64_t>(values) >> k) & 1) != 0; }

}  // namespace

absl::Status CheckProbabilities(absl::string_view field, const v1::NeuronSet& set,
                                const v1::NeuronSet& first) {
  if (set.method() != kActivationProbabilityMethod) {
    return InvalidField(field,
                        absl::StrCat("is a set of ", set.method(), ", allowed are those of ",
                                     kActivationProbabilityMethod),
                        "WRONG_METHOD");
  }
  if (set.model_digest() != first.model_digest()) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
        absl::StrCat("`", field, "` is a set of another model than `neuron_sets[0]`"));
  }
  VS_ASSIGN_OR_RETURN(const auto definition, DefinitionOf(set));
  VS_ASSIGN_OR_RETURN(const auto first_definition, DefinitionOf(first));
  if (definition != first_definition) {
    return InvalidField(
        field,
        absl::StrCat("counts as active what ", v1::ActivationDefinition_Name(definition),
                     " does, but neuron_sets[0] what ",
                     v1::ActivationDefinition_Name(first_definition), " does"),
        "WRONG_DEFINITION");
  }
  if (SameLayers(set, first)) return absl::OkStatus();
  return InvalidField(field, "has other layers than neuron_sets[0]", "WRONG_LAYERS");
}

absl::StatusOr<Selectivity> ScoreSelectivity(
    std::span<const std::vector<double>> probabilities,
    const google::protobuf::RepeatedPtrField<v1::NeuronSetLayer>& layers,
    const analysis::SelectivityOptions& options) {
  VS_ASSIGN_OR_RETURN(const analysis::ActivationSelectivity scored,
                      analysis::ScoreSelectivity(probabilities, options));
  std::vector<int32_t> members(scored.scores.size());
  for (const int64_t member : scored.members) members[static_cast<size_t>(member)] = 1;
  Selectivity selectivity{.columns = {}, .activity_threshold = scored.activity_threshold};
  std::ptrdiff_t begin = 0;
  for (const v1::NeuronSetLayer& layer : layers) {
    const std::ptrdiff_t end = begin + layer.num_neurons();
    NeuronColumns& column = selectivity.columns.emplace_back();
    column.layer = layer.layer();
    column.scores.assign(scored.scores.begin() + begin, scored.scores.begin() + end);
    column.members.assign(members.begin() + begin, members.begin() + end);
    column.values.assign(scored.values.begin() + begin, scored.values.begin() + end);
    begin = end;
  }
  return selectivity;
}

void DescribeSelectivity(const Selectivity& selectivity, int num_values, int64_t top_k,
                         v1::ScoreSelectivityResponse& response) {
  response.set_activity_threshold(selectivity.activity_threshold);
  response.mutable_members_of_value()->Resize(num_values, 0);
  std::map<int, const NeuronColumns*> by_layer;
  for (const NeuronColumns& column : selectivity.columns) {
    by_layer[column.layer] = &column;
    for (size_t i = 0; i < column.members.size(); ++i) {
      for (int k = 0; column.members[i] != 0 && k < num_values; ++k) {
        (*response.mutable_members_of_value())[k] += HasValue(column.values[i], k);
      }
    }
  }
  for (const v1::NeuronScore& neuron : TopNeurons(selectivity.columns, top_k)) {
    const int64_t values = by_layer.at(neuron.layer())->values[static_cast<size_t>(neuron.index())];
    v1::SelectiveNeuron& selective = *response.add_top();
    selective.set_layer(neuron.layer());
    selective.set_index(neuron.index());
    selective.set_entropy(std::max(0.0, std::log(num_values) - neuron.score()));
    for (int k = 0; k < num_values; ++k) {
      if (HasValue(values, k)) selective.add_values(k);
    }
  }
}

}  // namespace valuescope::studies
