// Value vectors as differences in means (Han et al., arXiv 2509.24319): at each layer, the mean
// over expressing responses of a(r) minus the mean over non-expressing ones, where a(r) is the mean
// activation over the tokens of response r. Raw, not normalised. With each vector come the numbers
// that tell how far to trust it.
//
// Intervals rest on the variance between queries (extraction.h), a jackknife that is scaled so that
// it has no bias where responses are independent (Bell and McCaffrey): with each query's responses
// less the mean of their label, added up by label l,
//   e_q = sum_l +- (1 - n_ql / n_l)^(-1/2) (sum of them) / n_l
// e_q e_q' sum to the covariance of v. With one response a query its trace is tr(S1) / n1 +
// tr(S0) / n0.
//
// Weighed by tokens, a label's mean is a ratio: the sum over all tokens by their number, which
// varies with the responses. The same e_q, with tokens in place of responses (each response less
// the ratio, times its tokens; n_ql and n_l counts of tokens), are the ratio's linearisation with
// queries as clusters: without bias where a response's variance falls as its tokens grow, else to
// first order. AUROC and halves are of responses and queries, as ever.
#ifndef VALUESCOPE_ANALYSIS_DIFFERENCE_IN_MEANS_H_
#define VALUESCOPE_ANALYSIS_DIFFERENCE_IN_MEANS_H_

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "analysis/extraction.h"
#include "analysis/layer_sums.h"
#include "base/cancellation.h"

namespace valuescope::analysis {

struct DifferenceInMeansOptions {
  // Means over tokens instead of responses: long ones weigh more. Every num_tokens must be known.
  bool weigh_by_tokens = false;
  // Leaves the intervals out. They cost about m^2 / 2 x num_layers x width multiplications, m the
  // number of queries, at most 256: more of them are taken together in the intervals' widths.
  bool intervals = true;
  // Coverage of the intervals, 0.9 .. 1 and below 1.
  double interval_level = 0.95;
};

// INVALID_ARGUMENT, naming `responses[i]...` or `options...`: what CheckResponses refuses, options
// out of range. num_layers and width >= 1. CANCELLED soon after `cancellation` is raised: it is
// looked at between layers and several times within each. Deterministic: the same input gives the
// same bits. Reads the activations several times, and takes DifferenceInMeansBytes beside them.
absl::StatusOr<ValueVectors> ComputeDifferenceInMeans(Responses responses, int64_t num_layers,
                                                      int64_t width,
                                                      const DifferenceInMeansOptions& options = {},
                                                      const Cancellation& cancellation = {});

// The same from sums of the responses, `layers`, where those themselves are not kept: the labels of
// `responses` have no activations. What takes another look at each is absent: AUROC, the clustered
// squared norm and the intervals, and with `weigh_by_tokens` the debiased squared norm. Both labels
// have responses, and the sums' halves are GroupingOf's. INVALID_ARGUMENT for options out of range.
absl::StatusOr<ValueVectors> DifferenceInMeansOfSums(Responses responses,
                                                     std::span<const LayerSums> layers,
                                                     const DifferenceInMeansOptions& options);

// Memory that ComputeDifferenceInMeans takes at most, bytes, but for some numbers a response.
int64_t DifferenceInMeansBytes(int64_t queries, int64_t width);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_DIFFERENCE_IN_MEANS_H_
