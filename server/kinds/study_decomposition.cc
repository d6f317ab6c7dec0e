#include "kinds/study_decomposition.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "kinds/study_over_values.h"
#include "kinds/study_parts.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::kinds {
namespace {

// --- Decomposition -------------------------------------------------------------------------------

// Where the two vectors lie in the plane of the axes, from the singular value decomposition: the
// columns are rotated by phi (the closed form that analysis/decomposition.h states).
v1::StudyPlane PlaneOf(const v1::LayerDecomposition& layer) {
  const double a = layer.intrinsic_norm(), b = layer.prompted_norm();
  const double c = a * b * layer.cosine();
  const double phi = std::atan2(2 * c, a * a - b * b) / 2;
  const double s1 = std::sqrt(std::pow(a * std::cos(phi), 2) + std::pow(b * std::sin(phi), 2) +
                              2 * c * std::cos(phi) * std::sin(phi));
  v1::StudyPlane plane;
  plane.set_layer(layer.layer());
  // <v_i, u1> and <v_p, u1>, oriented so that their sum is not negative.
  double shared_a = (a * a * std::cos(phi) + c * std::sin(phi)) / s1;
  double shared_b = (c * std::cos(phi) + b * b * std::sin(phi)) / s1;
  if (shared_a + shared_b < 0) {
    shared_a = -shared_a;
    shared_b = -shared_b;
  }
  // What is left lies along u_diff, on opposite sides; the intrinsic one's is the positive one
  // where <u_diff, v_int - v_prompt> > 0.
  const double rest_a = std::sqrt(std::max(0.0, a * a - shared_a * shared_a));
  const double rest_b = std::sqrt(std::max(0.0, b * b - shared_b * shared_b));
  const double sign_b = c - shared_a * shared_b < 0 ? -1 : 1;
  const double orientation = rest_a - sign_b * rest_b < 0 ? -1 : 1;
  plane.set_intrinsic_shared(shared_a);
  plane.set_prompted_shared(shared_b);
  plane.set_intrinsic_difference(orientation * rest_a);
  plane.set_prompted_difference(orientation * sign_b * rest_b);
  return plane;
}

v1::StudyDecomposition ToldOf(const v1::PairDecomposition& pair) {
  v1::StudyDecomposition told;
  told.set_shared(pair.shared().name());
  told.set_difference(pair.difference().name());
  told.set_intrinsic_orthogonal(pair.intrinsic_orthogonal().name());
  told.set_prompted_orthogonal(pair.prompted_orthogonal().name());
  *told.mutable_layers() = pair.layers();
  *told.mutable_warnings() = pair.warnings();
  for (const v1::LayerDecomposition& layer : pair.layers()) {
    if (layer.difference_defined()) *told.add_planes() = PlaneOf(layer);
  }
  return told;
}

v1::DecomposeVectorsRequest PairsOf(const std::vector<v1::StudiedValue*>& values) {
  v1::DecomposeVectorsRequest request;
  for (const v1::StudiedValue* value : values) {
    v1::VectorPair& pair = *request.add_pairs();
    pair.set_value(value->value());
    pair.set_intrinsic(VectorOf(*value, v1::STUDY_CONDITION_INTRINSIC));
    pair.set_prompted(VectorOf(*value, v1::STUDY_CONDITION_PROMPTED));
  }
  return request;
}

absl::Status Decompose(const StudyGathering& of, SavedStudyState& state) {
  const std::vector<v1::StudiedValue*> values = LiveValues(state);
  v1::DecomposeVectorsRequest request = PairsOf(values);
  // The circumplex needs its values: a study that lost some goes on without.
  const bool with_circumplex =
      of.spec.has_circumplex() && static_cast<int>(values.size()) == of.spec.values_size();
  if (with_circumplex) *request.mutable_circumplex() = of.spec.circumplex();
  v1::DecomposeVectorsResponse response;
  VS_RETURN_IF_ERROR(of.tools.vectors->DecomposeVectors(of.context, request, &response));
  v1::ValueStudyResult& result = *state.mutable_result();
  for (size_t v = 0; v < values.size(); ++v) {
    *values[v]->mutable_decomposition() = ToldOf(response.decompositions(static_cast<int>(v)));
  }
  *result.mutable_mean_deltas() = response.mean_deltas();
  result.set_mean_delta(response.mean_delta().name());
  *result.mutable_circumplexes() = response.circumplexes();
  result.mutable_warnings()->MergeFrom(response.warnings());
  if (of.spec.has_circumplex() && !with_circumplex) {
    result.add_warnings("the circumplex is left out: a value that it needs has no vectors");
  }
  return AddOverValues(of, request, response, result);
}

// --- Cosines over the values ---------------------------------------------------------------------

absl::StatusOr<v1::CompareVectorsResponse> Compare(const StudyGathering& of,
                                                   const std::vector<std::string>& vectors) {
  v1::CompareVectorsRequest request;
  request.mutable_vectors()->Assign(vectors.begin(), vectors.end());
  v1::CompareVectorsResponse response;
  VS_RETURN_IF_ERROR(of.tools.vectors->CompareVectors(of.context, request, &response));
  return response;
}

absl::Status CompareConditions(const StudyGathering& of, SavedStudyState& state) {
  for (v1::StudiedValue* const value : LiveValues(state)) {
    VS_ASSIGN_OR_RETURN(const v1::CompareVectorsResponse compared,
                        Compare(of, {VectorOf(*value, v1::STUDY_CONDITION_INTRINSIC),
                                     VectorOf(*value, v1::STUDY_CONDITION_PROMPTED)}));
    *value->mutable_decomposition()->mutable_cosines() = compared.cosines();
  }
  return absl::OkStatus();
}

absl::Status CompareValues(const StudyGathering& of, SavedStudyState& state) {
  const std::vector<v1::StudiedValue*> values = LiveValues(state);
  if (values.size() < 2) return absl::OkStatus();
  const size_t pairs = values.size() * (values.size() - 1) / 2;
  for (const v1::StudyCondition condition : kStudyConditions) {
    std::vector<std::string> vectors;
    for (const v1::StudiedValue* const value : values) {
      vectors.push_back(VectorOf(*value, condition));
    }
    VS_ASSIGN_OR_RETURN(const v1::CompareVectorsResponse compared, Compare(of, vectors));
    // Layer by layer of each pair. By place, since two values may have the same vector.
    auto cosine = compared.cosines().begin();
    const size_t layers = static_cast<size_t>(compared.cosines_size()) / pairs;
    for (size_t a = 0; a < values.size(); ++a) {
      for (size_t b = a + 1; b < values.size(); ++b) {
        for (size_t l = 0; l < layers; ++l, ++cosine) {
          v1::StudyCrossCosine& cross = *state.mutable_result()->add_cross_cosines();
          cross.set_first(values[a]->value());
          cross.set_second(values[b]->value());
          cross.set_condition(condition);
          cross.set_layer(cosine->layer());
          if (cosine->has_cosine()) cross.set_cosine(cosine->cosine());
          if (cosine->has_disattenuated_cosine()) {
            cross.set_disattenuated_cosine(cosine->disattenuated_cosine());
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DecomposeValues(const StudyGathering& of, SavedStudyState& state) {
  VS_RETURN_IF_ERROR(Decompose(of, state));
  VS_RETURN_IF_ERROR(CompareConditions(of, state));
  return CompareValues(of, state);
}

}  // namespace valuescope::kinds
