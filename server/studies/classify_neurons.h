// Geometric classification of MLP neurons from weights alone (Han et al., arXiv 2509.24319): each
// block's write directions against the axes of the same layer.
#ifndef VALUESCOPE_STUDIES_CLASSIFY_NEURONS_H_
#define VALUESCOPE_STUDIES_CLASSIFY_NEURONS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/neuron_geometry.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_vector.h"

namespace valuescope::studies {

// How the axes follow from the two vectors.
enum class AxesSource : uint8_t {
  kConditionVectors,  // intrinsic and prompted: their SVD gives the axes
  kAxes,              // u_shared and u_diff themselves
};

struct ClassificationPlan {
  AxesSource source = AxesSource::kConditionVectors;
  bool normalize_columns = false;  // only with condition vectors
  bool strict = false;             // refuses layers without axes instead of leaving them out
  std::vector<int> layers;         // ascending; both vectors have a row for each
  analysis::NeuronGeometryOptions geometry;
};

struct Classification {
  std::vector<NeuronColumns> columns;      // layers that have axes
  std::vector<v1::NeuronSetLayer> layers;  // the same, summarised
  std::vector<std::string> warnings;       // layers left out, and why
};

// `first` is the intrinsic vector or u_shared, `second` the prompted one or u_diff.
// A layer has no axes where the condition vectors share no direction, and where rows are zero or
// collinear. INVALID_ARGUMENT: a row that is missing; reason NO_SHARED_DIRECTION, naming the layer,
// with `strict` for a layer without axes, and else where no layer is left.
absl::StatusOr<Classification> ClassifyNeurons(const engine::Engine& engine,
                                               const StoredVector& first,
                                               const StoredVector& second,
                                               const ClassificationPlan& plan,
                                               const Cancellation& cancellation);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_CLASSIFY_NEURONS_H_
