// Pairs of vectors, one value each, split by layer into what the intrinsic and the prompted
// direction share and what each has alone, and compared over values by their mean delta and on the
// circumplex (Han et al., arXiv 2509.24319). The mathematics is analysis/'s (decomposition.h,
// mean_delta.h, circumplex.h); here are rows, layers and reliabilities put together.
#ifndef VALUESCOPE_STUDIES_DECOMPOSE_VECTORS_H_
#define VALUESCOPE_STUDIES_DECOMPOSE_VECTORS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/circumplex.h"
#include "analysis/decomposition.h"
#include "analysis/mean_delta.h"
#include "base/cancellation.h"
#include "studies/stored_vector.h"

namespace valuescope::studies {

struct DecompositionPair {
  std::string value;
  const StoredVector* intrinsic = nullptr;
  const StoredVector* prompted = nullptr;
};

struct CircumplexPlan {
  std::vector<analysis::CircumplexPlace> places;  // of the pairs' values (CircumplexPlaces)
  int null_samples = 1000;
  uint64_t seed = 0;
};

struct DecompositionPlan {
  std::vector<int> layers;  // ascending; every vector has a row for each
  bool normalize_columns = false;
  bool strict = false;
  bool unit_deltas = false;
  std::optional<CircumplexPlan> circumplex;
};

// Rows of the derived vectors, one a layer; a row that does not exist is zero.
struct PairResult {
  std::string value;
  std::vector<analysis::Decomposition> layers;  // [layers]
  std::vector<float> shared;                    // [layers, width]
  std::vector<float> difference;                // [layers, width]; zero where undefined
  std::vector<float> intrinsic_orthogonal;      // [layers, width]
  std::vector<float> prompted_orthogonal;       // [layers, width]
  std::vector<std::string> warnings;
};

struct LayerCircumplex {
  int layer = 0;
  analysis::CircumplexFit fit;
  double null_p_value = 0;  // (1 + #{null >= observed}) / (1 + samples)
};

struct CircumplexResult {
  std::vector<analysis::CircumplexPlace> places;
  int64_t distinct_permutations = 0;
  double null_mean = 0;
  double null_95th_percentile = 0;
  std::vector<LayerCircumplex> layers;  // those whose points are not all one, ascending
};

struct DecompositionResult {
  std::vector<PairResult> pairs;
  std::vector<analysis::MeanDelta> mean_deltas;  // [layers]; empty for one pair
  std::vector<float> mean_delta;                 // [layers, width]; zero where there is none
  std::optional<CircumplexResult> circumplex;    // where asked for
  // Layers where a mean delta or a circumplex is missing or not what it seems.
  std::vector<std::string> warnings;
};

// INVALID_ARGUMENT: "pairs", vectors of different models, sites or widths, or a row that is
// missing or zero, with the layer; with `strict`, reason NO_SHARED_DIRECTION, where a warning of a
// pair would be given. CANCELLED, looked at between layers.
absl::StatusOr<DecompositionResult> DecomposePairs(const std::vector<DecompositionPair>& pairs,
                                                   const DecompositionPlan& plan,
                                                   const Cancellation& cancellation);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_DECOMPOSE_VECTORS_H_
