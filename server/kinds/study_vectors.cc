#include "kinds/study_vectors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "analysis/random_direction.h"
#include "analysis/statistics.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/generated_responses.h"
#include "kinds/many_vectors_outcome.h"
#include "kinds/study_decomposition.h"
#include "kinds/study_parts.h"
#include "store/store.h"
#include "studies/confidence_interval.h"
#include "valuescope/v1/neurons.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::kinds {
namespace {

using Direction = v1::StudyDirection;

constexpr v1::NeuronClass kClasses[] = {v1::NEURON_CLASS_SHARED, v1::NEURON_CLASS_INTRINSIC,
                                        v1::NEURON_CLASS_PROMPTED, v1::NEURON_CLASS_UNCLASSIFIED};

// --- Extracted vectors ---------------------------------------------------------------------------

// Those of the extraction, by value and condition.
using ExtractedVectors = std::map<std::pair<std::string, std::string>, v1::ValueVectorResult>;

absl::StatusOr<ExtractedVectors> ReadVectors(const StudyGathering& of) {
  VS_ASSIGN_OR_RETURN(const store::Resource summary, of.parts.Artifact(kExtraction, "summary"));
  v1::ExtractVectorsResponse made;
  VS_RETURN_IF_ERROR(
      ReplayManyVectors(summary, *of.tools.sources.store, *of.tools.sources.blobs, made));
  ExtractedVectors vectors;
  for (v1::ValueVectorResult& one : *made.mutable_vectors()) {
    std::pair<std::string, std::string> key = {one.value(), one.conditions(0)};
    vectors.emplace(std::move(key), std::move(one));
  }
  return vectors;
}

// A value of which a vector could not be made ends here.
void AddVectors(const ExtractedVectors& vectors, v1::StudiedValue& value) {
  for (const v1::StudyCondition condition : kStudyConditions) {
    const auto found = vectors.find({value.value(), NameOf(condition)});
    VS_CHECK(found != vectors.end());
    const v1::ValueVectorResult& made = found->second;
    if (!made.absence().empty()) {
      value.set_failure(absl::StrCat("of ", NameOf(condition), " responses ",
                                     absl::StrJoin(made.warnings(), "; ")));
      value.clear_vectors();
      return;
    }
    v1::StudyVector& told = *value.add_vectors();
    told.set_condition(condition);
    told.set_vector(made.vector().name());
    *told.mutable_statistics() = made.statistics();
    *told.mutable_warnings() = made.warnings();
  }
}

// --- Classes of neurons --------------------------------------------------------------------------

std::vector<v1::StudyClass> ClassesOf(const v1::NeuronSet& set) {
  std::vector<v1::StudyClass> classes;
  double kept = 0;
  for (const v1::NeuronSetLayer& layer : set.layers()) {
    kept += static_cast<double>(layer.num_members());
  }
  for (const v1::NeuronClass number : kClasses) {
    v1::StudyClass& told = classes.emplace_back();
    told.set_class_(number);
    double expected = 0;
    for (const v1::NeuronSetLayer& layer : set.layers()) {
      for (const v1::NeuronClassCount& count : layer.classes()) {
        if (count.class_() != number) continue;
        told.set_count(told.count() + count.count());
        expected += count.expected_count();
      }
    }
    told.set_expected_count(expected);
    if (kept <= 0) continue;
    told.set_share(static_cast<double>(told.count()) / kept);
    *told.mutable_share_interval() =
        studies::IntervalToProto(analysis::WilsonInterval(static_cast<double>(told.count()), kept));
  }
  return classes;
}

absl::Status Classify(const StudyGathering& of, SavedStudyState& state) {
  for (v1::StudiedValue* const value : LiveValues(state)) {
    v1::ClassifyNeuronsRequest request = ClassificationOf(*value);
    request.set_model(of.spec.model());
    request.set_top_percent(of.spec.neurons().top_percents(0));
    request.set_max_angle(of.spec.neurons().max_angles(0));
    request.set_top_k(kTopNeurons);
    request.set_display_name(value->value());
    v1::ClassifyNeuronsResponse response;
    const absl::Status status = of.tools.neurons->ClassifyNeurons(of.context, request, &response);
    // Vectors that share nothing have no axes in any layer.
    if (DetailsOf(status).reason == "NO_SHARED_DIRECTION") {
      value->add_warnings(absl::StrCat("neurons are not classified: ", status.message()));
      continue;
    }
    VS_RETURN_IF_ERROR(status);
    v1::StudyClassification& told = *value->mutable_classification();
    told.set_neuron_set(response.neuron_set().name());
    *told.mutable_layers() = response.neuron_set().layers();
    *told.mutable_top() = response.neuron_set().top();
    *told.mutable_warnings() = response.warnings();
    for (v1::StudyClass& one : ClassesOf(response.neuron_set())) *told.add_classes() = one;
  }
  return absl::OkStatus();
}

// --- Directions of one norm ----------------------------------------------------------------------

// n_l of each layer studied.
void MeasureNorms(const StudyGathering& of, SavedStudyState& state) {
  const auto& steered = of.spec.steered_layers().list().layers();
  const std::vector<v1::StudiedValue*> values = LiveValues(state);
  for (int i = 0; i < of.spec.layers().list().layers_size(); ++i) {
    v1::StudyLayer& layer = *state.mutable_result()->add_layers();
    layer.set_layer(of.spec.layers().list().layers(i));
    layer.set_steered(std::find(steered.begin(), steered.end(), layer.layer()) != steered.end());
    double sum = 0;
    for (const v1::StudiedValue* value : values) {
      for (const v1::StudyVector& vector : value->vectors()) sum += vector.statistics(i).norm();
    }
    layer.set_norm(sum / (2 * static_cast<double>(values.size())));
  }
}

// Rows of some layers, FLOAT32.
struct Rows {
  std::vector<int> layers;
  std::vector<double> norms;  // that each is to have
  int64_t width = 0;
};

Rows SteeredRows(const StudyGathering& of, const SavedStudyState& state) {
  Rows rows{.layers = {}, .norms = {}, .width = of.model.architecture.hidden};
  for (const v1::StudyLayer& layer : state.result().layers()) {
    if (!layer.steered()) continue;
    rows.layers.push_back(layer.layer());
    rows.norms.push_back(layer.norm());
  }
  return rows;
}

// Stores rows [layers, width]; its name.
absl::StatusOr<std::string> Store(const StudyGathering& of, const Rows& rows,
                                  const std::vector<float>& data, const std::string& name) {
  v1::CreateVectorRequest request;
  v1::Vector& vector = *request.mutable_vector();
  vector.set_model(of.spec.model());
  vector.set_site(v1::SITE_RESIDUAL_POST);
  vector.mutable_layers()->Assign(rows.layers.begin(), rows.layers.end());
  vector.set_display_name(name);
  v1::Tensor& tensor = *vector.mutable_data();
  tensor.set_dtype(v1::DATA_TYPE_FLOAT32);
  tensor.add_shape(static_cast<int64_t>(rows.layers.size()));
  tensor.add_shape(rows.width);
  tensor.set_data(data.data(), data.size() * sizeof(float));
  v1::CreateVectorResponse response;
  VS_RETURN_IF_ERROR(of.tools.vectors->CreateVector(of.context, request, &response));
  return response.vector().name();
}

// The rows of a stored vector, each times `sign` and brought to the norm that it is to have; a zero
// row stays. Empty where all are.
absl::StatusOr<std::vector<float>> ScaledRows(const StudyGathering& of, const Rows& rows,
                                              const std::string& name, double sign) {
  v1::GetVectorRequest request;
  request.set_name(name);
  request.mutable_layers()->mutable_list()->mutable_layers()->Assign(rows.layers.begin(),
                                                                     rows.layers.end());
  v1::GetVectorResponse response;
  VS_RETURN_IF_ERROR(of.tools.vectors->GetVector(of.context, request, &response));
  const std::string& bytes = response.vector().data().data();
  std::vector<float> data(bytes.size() / sizeof(float));
  std::memcpy(data.data(), bytes.data(), data.size() * sizeof(float));
  const auto width = static_cast<size_t>(rows.width);
  bool any = false;
  for (size_t row = 0; row < rows.layers.size(); ++row) {
    double squares = 0;
    for (size_t i = 0; i < width; ++i) {
      squares += std::pow(static_cast<double>(data[row * width + i]), 2);
    }
    if (squares <= 0) continue;
    any = true;
    const double factor = sign * rows.norms[row] / std::sqrt(squares);
    for (size_t i = 0; i < width; ++i) {
      float& element = data[row * width + i];
      element = static_cast<float>(factor * static_cast<double>(element));
    }
  }
  if (!any) data.clear();
  return data;
}

// The stored vector that a direction is, before it is brought to the norm, and on which side.
std::pair<std::string, double> SourceOf(const v1::ValueStudyResult& result,
                                        const v1::StudiedValue& value, Direction direction) {
  const v1::StudyDecomposition& parts = value.decomposition();
  switch (direction) {
    case v1::STUDY_DIRECTION_INTRINSIC:
      return {VectorOf(value, v1::STUDY_CONDITION_INTRINSIC), 1};
    case v1::STUDY_DIRECTION_PROMPTED:
      return {VectorOf(value, v1::STUDY_CONDITION_PROMPTED), 1};
    case v1::STUDY_DIRECTION_INTRINSIC_ORTHOGONAL:
      return {parts.intrinsic_orthogonal(), 1};
    case v1::STUDY_DIRECTION_PROMPTED_ORTHOGONAL:
      return {parts.prompted_orthogonal(), 1};
    case v1::STUDY_DIRECTION_SHARED:
      return {parts.shared(), 1};
    case v1::STUDY_DIRECTION_INTRINSIC_UNIQUE:
      return {parts.difference(), 1};
    case v1::STUDY_DIRECTION_PROMPTED_UNIQUE:
      return {parts.difference(), -1};
    default:
      return {result.mean_delta(), 1};
  }
}

absl::Status StoreDirections(const StudyGathering& of, SavedStudyState& state) {
  const Rows rows = SteeredRows(of, state);
  for (v1::StudiedValue* const value : LiveValues(state)) {
    for (const int number : of.spec.directions()) {
      const auto direction = static_cast<Direction>(number);
      const auto [source, sign] = SourceOf(state.result(), *value, direction);
      std::vector<float> data;
      if (!source.empty()) {
        VS_ASSIGN_OR_RETURN(data, ScaledRows(of, rows, source, sign));
      }
      if (data.empty()) {
        v1::StudyUntested& untested = *value->add_untested();
        untested.set_name(NameOf(direction));
        untested.set_reason("there is no such direction in any layer that is steered");
        continue;
      }
      v1::StudySubject& subject = *value->add_selections()->mutable_subject();
      subject.set_direction(direction);
      VS_ASSIGN_OR_RETURN(
          *subject.mutable_vector(),
          Store(of, rows, data, absl::StrCat(value->value(), " ", NameOf(direction))));
    }
  }
  return absl::OkStatus();
}

// Neurons of a class in the layers that are steered.
int64_t CountSteered(const StudyGathering& of, const v1::StudyClassification& classification,
                     v1::NeuronClass number) {
  const auto& steered = of.spec.steered_layers().list().layers();
  int64_t count = 0;
  for (const v1::NeuronSetLayer& layer : classification.layers()) {
    if (std::find(steered.begin(), steered.end(), layer.layer()) == steered.end()) continue;
    for (const v1::NeuronClassCount& of_class : layer.classes()) {
      if (of_class.class_() == number) count += of_class.count();
    }
  }
  return count;
}

// Those that are steered beside directions, where there are any.
void AddClasses(const StudyGathering& of, SavedStudyState& state) {
  if (of.spec.neurons().factors().empty()) return;
  for (v1::StudiedValue* const value : LiveValues(state)) {
    for (const int number : of.spec.neurons().classes()) {
      v1::StudySubject subject;
      subject.set_neurons(static_cast<v1::NeuronClass>(number));
      if (CountSteered(of, value->classification(), subject.neurons()) > 0) {
        *value->add_selections()->mutable_subject() = subject;
        continue;
      }
      v1::StudyUntested& untested = *value->add_untested();
      untested.set_name(NameOf(subject));
      untested.set_reason("no neuron of the layers that are steered is of the class");
    }
  }
}

// As steering sweeps draw those of their first vector.
absl::Status StoreRandomDirections(const StudyGathering& of, SavedStudyState& state) {
  const Rows rows = SteeredRows(of, state);
  for (int r = 0; r < of.spec.random_directions(); ++r) {
    std::vector<float> data;
    for (size_t row = 0; row < rows.layers.size(); ++row) {
      const std::vector<float> direction =
          analysis::RandomDirection(rows.width, rows.norms[row],
                                    SeedOf(SeedOf(SeedOf(of.spec.seed(), 0), r), rows.layers[row]));
      data.insert(data.end(), direction.begin(), direction.end());
    }
    VS_ASSIGN_OR_RETURN(*state.add_random_vectors(),
                        Store(of, rows, data, absl::StrCat("random ", r)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status GatherVectors(const StudyGathering& of, SavedStudyState& state) {
  VS_ASSIGN_OR_RETURN(const ExtractedVectors vectors, ReadVectors(of));
  for (v1::StudiedValue* const value : LiveValues(state)) AddVectors(vectors, *value);
  VS_RETURN_IF_ERROR(CheckAnyLives(state));
  VS_RETURN_IF_ERROR(DecomposeValues(of, state));
  VS_RETURN_IF_ERROR(Classify(of, state));
  MeasureNorms(of, state);
  VS_RETURN_IF_ERROR(StoreDirections(of, state));
  AddClasses(of, state);
  return StoreRandomDirections(of, state);
}

}  // namespace valuescope::kinds
