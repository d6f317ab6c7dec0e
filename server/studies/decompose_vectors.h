// Pairs of vectors, one value each, split by layer into what the intrinsic and the prompted
// direction share and what each has alone, and compared over values by their mean delta (Han et
// al., arXiv 2509.24319). The mathematics is analysis/decomposition.h's; here are rows, layers and
// reliabilities put together.
#ifndef VALUESCOPE_STUDIES_DECOMPOSE_VECTORS_H_
#define VALUESCOPE_STUDIES_DECOMPOSE_VECTORS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/decomposition.h"
#include "studies/stored_vector.h"

namespace valuescope::studies {

struct DecompositionPair {
  std::string value;
  const StoredVector* intrinsic = nullptr;
  const StoredVector* prompted = nullptr;
};

struct DecompositionPlan {
  std::vector<int> layers;  // ascending; every vector has a row for each
  bool normalize_columns = false;
  bool strict = false;
  bool unit_deltas = false;
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

struct DecompositionResult {
  std::vector<PairResult> pairs;
  std::vector<analysis::MeanDelta> mean_deltas;  // [layers]; empty for one pair
  std::vector<float> mean_delta;                 // [layers, width]; zero where there is none
  std::vector<std::string> warnings;             // layers without a mean delta
};

// INVALID_ARGUMENT: "pairs", vectors of different models, sites or widths, or a row that is
// missing or zero, or values whose two vectors are equal, with the layer; with `strict`, reason
// NO_SHARED_DIRECTION, where a warning of a pair would be given.
absl::StatusOr<DecompositionResult> DecomposePairs(const std::vector<DecompositionPair>& pairs,
                                                   const DecompositionPlan& plan);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_DECOMPOSE_VECTORS_H_
