// Value vectors as principal components of paired differences. A pair is a query with responses of
// both labels, d_q the mean of its expressing responses minus that of the others. The vector of a
// layer is the unit u that maximises sum_q <u, d_q>^2, oriented by <u, sum_q d_q> >= 0.
//
// Not centred, u is near the difference in means wherever the pairs agree. Centred, each d_q less
// their mean, what all pairs share is gone and u is the way in which pairs differ most: what some
// libraries call the PCA of differences, and seldom what is wanted.
#ifndef VALUESCOPE_ANALYSIS_PRINCIPAL_DIRECTION_H_
#define VALUESCOPE_ANALYSIS_PRINCIPAL_DIRECTION_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "analysis/extraction.h"
#include "base/cancellation.h"

namespace valuescope::analysis {

struct PrincipalDirectionOptions {
  bool centered = false;
  // Means within a query over tokens instead of responses. Every num_tokens must be known.
  bool weigh_by_tokens = false;
  // Whether intervals were asked for, whose absence is then told; there are none.
  bool intervals = true;
};

// INVALID_ARGUMENT naming "responses", reason TOO_FEW_PAIRS: fewer than two (centered) or one.
// Looks at labels and queries alone.
absl::Status CheckPairs(Responses responses, bool centered);

// Where the differences (centred: less their mean) are zero the vector is zero too, norm 0, without
// explained_variance (kZeroVector). Halves need as many pairs (kFewPairs). The vector is settled
// as LargestEigenpair says.
//
// INVALID_ARGUMENT, naming `responses[i]...`: what CheckResponses and CheckPairs refuse. num_layers
// and width >= 1. CANCELLED soon after `cancellation` is raised. Deterministic. Takes the room of
// the pairs' differences of one layer in float64, which is at most that of the layer's activations
// in float32, and 4 KiB for every pair or coordinate, whichever are fewer.
absl::StatusOr<ValueVectors> ComputePrincipalDirections(Responses responses, int64_t num_layers,
                                                        int64_t width,
                                                        const PrincipalDirectionOptions& options,
                                                        const Cancellation& cancellation = {});

// Memory that takes at most, bytes, but for some numbers a response and some rows.
int64_t PrincipalDirectionsBytes(int64_t pairs, int64_t width);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_PRINCIPAL_DIRECTION_H_
