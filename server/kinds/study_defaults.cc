#include "kinds/study_defaults.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "analysis/circumplex.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/study_kept_apart.h"
#include "services/circumplex_request.h"
#include "services/request_codec.h"
#include "studies/distinct_elements.h"

namespace valuescope::kinds {
namespace {

using Spec = v1::ValueStudySpec;

constexpr int kMostValues = 16, kMostCoefficients = 16;
constexpr int kMostRandomDirections = 50, kMostShownQueries = 32;
constexpr int kMostFactors = 16, kMostShares = 8, kMostStudyRandomSets = 100;
constexpr char kOfStudy[] = "must be unset here: the study has it";

// --- Names and numbers ---------------------------------------------------------------------------

template <typename Optional>
absl::Status CheckRange(const char* field, Optional value, Optional lowest, Optional highest) {
  if (value >= lowest && value <= highest) return absl::OkStatus();
  return OutOfRange(field, static_cast<double>(value), static_cast<double>(lowest),
                    static_cast<double>(highest));
}

template <typename Numbers>
absl::Status CheckNumbersDiffer(const std::string& field, const Numbers& numbers) {
  return studies::CheckDistinct(field, numbers, [](auto number) { return number; });
}

absl::Status CheckCoefficients(const Spec& spec) {
  if (spec.coefficients_size() > kMostCoefficients) {
    return OutOfRange("coefficients", spec.coefficients_size(), 0, kMostCoefficients);
  }
  for (int i = 0; i < spec.coefficients_size(); ++i) {
    if (std::isfinite(spec.coefficients(i)) && spec.coefficients(i) != 0) continue;
    return InvalidField(absl::StrCat("coefficients[", i, "]"), "must be finite and not 0",
                        "OUT_OF_RANGE");
  }
  return CheckNumbersDiffer("coefficients", spec.coefficients());
}

absl::Status CheckDirections(const Spec& spec) {
  for (int i = 0; i < spec.directions_size(); ++i) {
    const std::string field = absl::StrCat("directions[", i, "]");
    const int direction = spec.directions(i);
    if (direction < v1::STUDY_DIRECTION_INTRINSIC || direction > v1::STUDY_DIRECTION_MEAN_DELTA) {
      return InvalidField(field, "is not a direction of this version");
    }
    if (direction == v1::STUDY_DIRECTION_MEAN_DELTA && spec.values_size() < 2) {
      return InvalidField(field, "is MEAN_DELTA, which needs two values or more");
    }
  }
  return CheckNumbersDiffer("directions", spec.directions());
}

absl::Status CheckFactors(const v1::StudyNeurons& neurons) {
  for (int i = 0; i < neurons.factors_size(); ++i) {
    if (std::isfinite(neurons.factors(i)) && neurons.factors(i) != 1) continue;
    return InvalidField(absl::StrCat("neurons.factors[", i, "]"), "must be finite and not 1",
                        "OUT_OF_RANGE");
  }
  VS_RETURN_IF_ERROR(CheckNumbersDiffer("neurons.factors", neurons.factors()));
  return CheckRange("neurons.factors", neurons.factors_size(), 0, kMostFactors);
}

// Of k or angle: `most` inclusive, 0 not.
absl::Status CheckShares(const std::string& field,
                         const google::protobuf::RepeatedField<double>& shares, double most) {
  if (shares.size() > kMostShares) return OutOfRange(field, shares.size(), 0, kMostShares);
  for (int i = 0; i < shares.size(); ++i) {
    if (shares[i] > 0 && shares[i] <= most) continue;
    return OutOfRange(absl::StrCat(field, "[", i, "]"), shares[i], 0, most);
  }
  return CheckNumbersDiffer(field, shares);
}

absl::Status CheckNeurons(const v1::StudyNeurons& neurons) {
  VS_RETURN_IF_ERROR(CheckFactors(neurons));
  VS_RETURN_IF_ERROR(CheckShares("neurons.top_percents", neurons.top_percents(), 100));
  VS_RETURN_IF_ERROR(CheckShares("neurons.max_angles", neurons.max_angles(), 45));
  std::set<int> classes;
  for (int i = 0; i < neurons.classes_size(); ++i) {
    const int one = neurons.classes(i);
    if (one < v1::NEURON_CLASS_SHARED || one > v1::NEURON_CLASS_PROMPTED ||
        !classes.insert(one).second) {
      return InvalidField(absl::StrCat("neurons.classes[", i, "]"),
                          "must be SHARED, INTRINSIC or PROMPTED, none of them twice");
    }
  }
  VS_RETURN_IF_ERROR(
      CheckRange("neurons.random_sets", neurons.random_sets(), 0, kMostStudyRandomSets));
  if (neurons.removed_size() > kMostFactors) {
    return OutOfRange("neurons.removed", neurons.removed_size(), 0, kMostFactors);
  }
  for (int i = 0; i < neurons.removed_size(); ++i) {
    if (neurons.removed(i) > (i == 0 ? 0 : neurons.removed(i - 1))) continue;
    return InvalidField(absl::StrCat("neurons.removed[", i, "]"), "must be at least 1, ascending");
  }
  if (neurons.removed().empty() || neurons.attribute()) return absl::OkStatus();
  return InvalidField("neurons.removed", "needs neurons.attribute, by which neurons are ranked");
}

absl::Status CheckNumbers(const Spec& spec) {
  VS_RETURN_IF_ERROR(CheckRange("values", spec.values_size(), 1, kMostValues));
  VS_RETURN_IF_ERROR(CheckRange("min_responses", spec.min_responses(), 1, 1 << 30));
  VS_RETURN_IF_ERROR(
      CheckRange("random_directions", spec.random_directions(), 0, kMostRandomDirections));
  VS_RETURN_IF_ERROR(CheckRange("bootstrap_samples", spec.bootstrap_samples(), 200, 10'000));
  VS_RETURN_IF_ERROR(CheckRange("permutations", spec.permutations(), 200, 100'000));
  VS_RETURN_IF_ERROR(CheckRange("shown_queries", spec.shown_queries(), 0, kMostShownQueries));
  VS_RETURN_IF_ERROR(CheckCoefficients(spec));
  VS_RETURN_IF_ERROR(CheckNeurons(spec.neurons()));
  return CheckDirections(spec);
}

// --- What the study has itself -------------------------------------------------------------------

absl::Status CheckUnset(const std::string& field, bool is_set) {
  return is_set ? InvalidField(field, kOfStudy) : absl::OkStatus();
}

template <typename Request>
absl::Status CheckItems(const std::string& field, const Request& request) {
  VS_RETURN_IF_ERROR(CheckUnset(absl::StrCat(field, ".model"), !request.model().empty()));
  VS_RETURN_IF_ERROR(CheckUnset(absl::StrCat(field, ".conditions"), !request.conditions().empty()));
  return CheckUnset(absl::StrCat(field, ".display_name"), !request.display_name().empty());
}

absl::Status CheckMeasures(const v1::MeasureTextsRequest& measures) {
  VS_RETURN_IF_ERROR(CheckUnset("measures.model", !measures.model().empty()));
  VS_RETURN_IF_ERROR(CheckUnset("measures.responses", !measures.responses().empty()));
  VS_RETURN_IF_ERROR(CheckUnset("measures.artifact", !measures.artifact().empty()));
  VS_RETURN_IF_ERROR(CheckUnset("measures.display_name", !measures.display_name().empty()));
  if (measures.ngrams().empty() || absl::c_linear_search(measures.ngrams(), 2)) {
    return absl::OkStatus();
  }
  return InvalidField("measures.ngrams", "must have 2: the guard and the report tell Distinct-2");
}

absl::Status CheckParts(const Spec& spec) {
  VS_RETURN_IF_ERROR(CheckMeasures(spec.measures()));
  VS_RETURN_IF_ERROR(CheckItems("development_choices", spec.development_choices()));
  VS_RETURN_IF_ERROR(CheckItems("test_choices", spec.test_choices()));
  for (int l = 0; l < spec.languages_size(); ++l) {
    VS_RETURN_IF_ERROR(CheckItems(absl::StrCat("languages[", l, "].questionnaire"),
                                  spec.languages(l).questionnaire()));
  }
  return CheckItems("questionnaire", spec.questionnaire());
}

// --- Defaults ------------------------------------------------------------------------------------

void AddBound(const char* evaluation, const char* measure, void (v1::SweepBound::*set)(double),
              double value, Spec& spec) {
  v1::SweepBound& bound = *spec.add_guard();
  bound.set_evaluation(evaluation);
  bound.set_measure(measure);
  (bound.*set)(value);
}

void FillGuard(Spec& spec) {
  if (!spec.guard().empty()) return;
  if (spec.measures().perplexity()) {
    AddBound(kStudyResponses, "perplexity", &v1::SweepBound::set_ratio_at_most, 3, spec);
  }
  AddBound(kStudyResponses, "distinct_2", &v1::SweepBound::set_ratio_at_least, .8, spec);
  if (spec.has_development_choices()) {
    AddBound(kStudyChoices, "accuracy", &v1::SweepBound::set_drop_at_most, .05, spec);
  }
}

void FillNumbers(Spec& spec) {
  if (!spec.has_samples_per_query()) spec.set_samples_per_query(1);
  if (!spec.has_steered_samples_per_query()) spec.set_steered_samples_per_query(1);
  if (!spec.has_min_responses()) spec.set_min_responses(10);
  if (!spec.has_random_directions()) spec.set_random_directions(20);
  if (!spec.has_bootstrap_samples()) spec.set_bootstrap_samples(2'000);
  if (!spec.has_permutations()) spec.set_permutations(10'000);
  if (!spec.has_shown_queries()) spec.set_shown_queries(5);
  if (spec.coefficients().empty()) {
    for (const float one : {1.F, 2.F, 4.F}) spec.add_coefficients(one);
  }
  v1::StudyNeurons& neurons = *spec.mutable_neurons();
  if (!neurons.has_attribute()) neurons.set_attribute(true);
  if (!neurons.has_random_sets()) neurons.set_random_sets(spec.random_directions());
  if (neurons.top_percents().empty()) neurons.add_top_percents(1);
  if (neurons.max_angles().empty()) neurons.add_max_angles(30);
  if (neurons.classes().empty()) {
    for (const auto one :
         {v1::NEURON_CLASS_SHARED, v1::NEURON_CLASS_INTRINSIC, v1::NEURON_CLASS_PROMPTED}) {
      neurons.add_classes(one);
    }
  }
  if (!spec.directions().empty()) return;
  for (int d = v1::STUDY_DIRECTION_INTRINSIC; d <= v1::STUDY_DIRECTION_MEAN_DELTA; ++d) {
    if (d == v1::STUDY_DIRECTION_MEAN_DELTA && spec.values_size() < 2) continue;
    spec.add_directions(static_cast<v1::StudyDirection>(d));
  }
}

// Where all ten of Schwartz's values are studied.
void FillCircumplex(Spec& spec) {
  std::set<std::string> names;
  for (const v1::ValueDefinition& value : spec.values()) names.insert(value.value());
  const bool all = absl::c_all_of(analysis::kSchwartzValues, [&](absl::string_view name) {
    return names.contains(std::string(name));
  });
  if (all && names.size() == analysis::kSchwartzValues.size()) spec.mutable_circumplex();
}

absl::Status CheckCircumplex(const Spec& spec) {
  if (!spec.has_circumplex()) return absl::OkStatus();
  std::vector<std::string> values;
  for (const v1::ValueDefinition& value : spec.values()) values.push_back(value.value());
  return services::CircumplexFromProto(spec.circumplex(), values, "values").status();
}

absl::Status FillLayers(const engine::ServedModel& model, Spec& spec) {
  const services::LayersOptions options = {.num_layers = model.architecture.num_layers,
                                           .all_by_default = true};
  VS_ASSIGN_OR_RETURN(
      const std::vector<int> layers,
      services::LayersFromProto("layers", spec.has_layers() ? &spec.layers() : nullptr, options));
  std::vector<int> steered = layers;
  if (spec.has_steered_layers()) {
    VS_ASSIGN_OR_RETURN(
        steered, services::LayersFromProto("steered_layers", &spec.steered_layers(), options));
  }
  for (const int layer : steered) {
    if (absl::c_binary_search(layers, layer)) continue;
    return InvalidField("steered_layers",
                        absl::StrCat("has layer ", layer, ", which is none of `layers`"));
  }
  *spec.mutable_layers()->mutable_list()->mutable_layers() = {layers.begin(), layers.end()};
  *spec.mutable_steered_layers()->mutable_list()->mutable_layers() = {steered.begin(),
                                                                      steered.end()};
  return absl::OkStatus();
}

// Neurons are ranked in the blocks that can have written what is read, at the latest layer that is
// steered or an earlier one.
absl::Status CheckRemoved(const engine::ServedModel& model, const Spec& spec) {
  if (spec.neurons().removed().empty()) return absl::OkStatus();
  const int first = spec.steered_layers().list().layers(0);
  const auto blocks =
      absl::c_count_if(spec.layers().list().layers(), [&](int layer) { return layer <= first; });
  const int64_t most = blocks * model.architecture.intermediate;
  const int last = spec.neurons().removed_size() - 1;
  if (spec.neurons().removed(last) <= most) return absl::OkStatus();
  return OutOfRange(absl::StrCat("neurons.removed[", last, "]"), spec.neurons().removed(last), 1,
                    static_cast<double>(most));
}

}  // namespace

absl::StatusOr<Spec> WithStudyDefaults(const Spec& given, const engine::ServedModel& model) {
  Spec spec = given;
  FillNumbers(spec);
  VS_RETURN_IF_ERROR(CheckNumbers(spec));
  VS_RETURN_IF_ERROR(CheckKeptApart(spec));
  VS_RETURN_IF_ERROR(CheckParts(spec));
  if (!spec.has_measures()) spec.mutable_measures()->set_perplexity(true);
  if (!spec.has_steered_sampling()) *spec.mutable_steered_sampling() = spec.sampling();
  if (spec.has_development_choices() && !spec.has_test_choices()) {
    *spec.mutable_test_choices() = spec.development_choices();
  }
  VS_RETURN_IF_ERROR(CheckCircumplex(spec));
  if (!spec.has_circumplex()) FillCircumplex(spec);
  FillGuard(spec);
  VS_RETURN_IF_ERROR(FillLayers(model, spec));
  VS_RETURN_IF_ERROR(CheckRemoved(model, spec));
  return spec;
}

}  // namespace valuescope::kinds
