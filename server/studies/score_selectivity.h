// Neurons that are active for some values and not for others, from sets of activation probability
// of one value each. The mathematics is analysis/activation_selectivity.h's; here it becomes the
// columns of a set, and the columns the contract's answer.
#ifndef VALUESCOPE_STUDIES_SCORE_SELECTIVITY_H_
#define VALUESCOPE_STUDIES_SCORE_SELECTIVITY_H_

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "analysis/activation_selectivity.h"
#include "studies/stored_neuron_set.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::studies {

// That a set's mean_expressing are P(active | value) which can stand beside those of `first`:
// INVALID_ARGUMENT naming `field`, reason WRONG_METHOD, WRONG_DEFINITION or WRONG_LAYERS;
// FAILED_PRECONDITION, reason WRONG_MODEL; DATA_LOSS for a record that does not tell.
absl::Status CheckProbabilities(absl::string_view field, const v1::NeuronSet& set,
                                const v1::NeuronSet& first);

struct Selectivity {
  std::vector<NeuronColumns> columns;  // scores, members and values
  double activity_threshold = 0;
};

// `probabilities` of each value are those of the neurons of `layers`, one layer after another.
// Errors of analysis::ScoreSelectivity.
absl::StatusOr<Selectivity> ScoreSelectivity(
    std::span<const std::vector<double>> probabilities,
    const google::protobuf::RepeatedPtrField<v1::NeuronSetLayer>& layers,
    const analysis::SelectivityOptions& options);

// Fills in what the response says beside the set: the first `top_k` members with their values, and
// how many members each of `num_values` values has.
void DescribeSelectivity(const Selectivity& selectivity, int num_values, int64_t top_k,
                         v1::ScoreSelectivityResponse& response);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_SCORE_SELECTIVITY_H_
