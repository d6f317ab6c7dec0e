// Extraction of a value vector (Han et al., arXiv 2509.24319): every labelled response runs through
// the model once, its activations are averaged over the response's tokens on the device, and the
// vector of a layer is the mean over expressing responses minus the mean over non-expressing ones.
#ifndef VALUESCOPE_STUDIES_EXTRACT_VECTORS_H_
#define VALUESCOPE_STUDIES_EXTRACT_VECTORS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/difference_in_means.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "studies/labelled_responses.h"
#include "studies/stored_vector.h"

namespace valuescope::studies {

struct ExtractionPlan {
  std::string tenant;
  model::Site site = model::Site::kResidualPost;
  std::vector<int> layers;  // ascending; empty at sites without layers
  // Of all responses; null: none.
  std::shared_ptr<const engine::PreparedInterventions> interventions;
  analysis::DifferenceInMeansOptions statistics;
};

struct ExtractedVector {
  std::vector<float> rows;                // [rows, width]
  std::vector<RowStatistics> statistics;  // one a row
  int64_t num_tokens = 0;                 // of prompts and responses
  int64_t num_cached_tokens = 0;          // of them, found in the cache instead of run
  std::vector<std::string> warnings;
};

// INVALID_ARGUMENT naming "responses": a label without responses (reason EMPTY_LABEL), or what the
// engine refuses. CANCELLED once `cancellation` is raised. Deterministic where the engine is.
// Statistics look at every response again, so the means of all are kept, within the engine's memory
// for captures: RESOURCE_EXHAUSTED where they do not fit it, before anything runs.
absl::StatusOr<ExtractedVector> ExtractVector(engine::Engine& engine, const ResponseSet& set,
                                              const ExtractionPlan& plan,
                                              const Cancellation& cancellation);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_EXTRACT_VECTORS_H_
