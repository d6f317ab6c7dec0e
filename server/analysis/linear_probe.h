// Value vectors as the weights of a linear probe: of a logistic regression that tells expressing
// responses from others by a(r). With y_r = 1 for expressing responses and -1 for others, w and b
// minimise
//   |w|^2 / 2 + C sum_r log(1 + exp(-y_r (<w, a(r)> + b)))
// The intercept b is not penalised and the weights are not normalised.
//
// Solved by Newton's method with a line search. Where there are more coordinates than responses,
// the search is over these: at the optimum w = sum_r alpha_r a(r) with alpha_r = C (t_r - p_r), t_r
// 1 or 0 and p_r the probability that the probe gives, so that a step needs the inner products of
// responses alone, and a system I + S K S (K those products, S the roots of C p (1 - p)) that is
// never ill-conditioned because of directions that the data lack.
#ifndef VALUESCOPE_ANALYSIS_LINEAR_PROBE_H_
#define VALUESCOPE_ANALYSIS_LINEAR_PROBE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "analysis/extraction.h"
#include "base/cancellation.h"

namespace valuescope::analysis {

// A step costs the cube of the number of responses or coordinates, whichever are fewer.
inline constexpr int64_t kMostProbeResponses = 2048;
inline constexpr double kLeastInverseRegularization = 1e-6;
inline constexpr double kMostInverseRegularization = 1e6;

struct LinearProbeOptions {
  double inverse_regularization = 1;  // C
  // Whether intervals were asked for, whose absence is then told; there are none.
  bool intervals = true;
};

// INVALID_ARGUMENT naming "responses", reason TOO_MANY_RESPONSES: more than kMostProbeResponses.
absl::Status CheckProbeSize(Responses responses);

// norm is |w|; the halves are probed apart. A vector is settled where the gradient with respect to
// w and b is at most 1e-10 of that at w = 0 and the best b. Responses that are all alike give w =
// 0.
//
// INVALID_ARGUMENT, naming `responses[i]...` or `options...`: what CheckResponses refuses, more
// than kMostProbeResponses (reason TOO_MANY_RESPONSES), C out of range. num_layers and width >= 1.
// CANCELLED soon after `cancellation` is raised. Deterministic. Takes twice the room of one layer's
// activations in float32, and 16 bytes for every pair of responses, or of coordinates.
absl::StatusOr<ValueVectors> ComputeLinearProbes(Responses responses, int64_t num_layers,
                                                 int64_t width, const LinearProbeOptions& options,
                                                 const Cancellation& cancellation = {});

// Memory that takes at most, bytes, but for some numbers a response and some rows.
int64_t LinearProbesBytes(int64_t responses, int64_t width);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_LINEAR_PROBE_H_
