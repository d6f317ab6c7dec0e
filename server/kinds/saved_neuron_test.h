// A test of neurons as requests ask for it, as it is saved with a job, where everything that a
// request names or leaves out is resolved, and as the plan that is carried out.
#ifndef VALUESCOPE_KINDS_SAVED_NEURON_TEST_H_
#define VALUESCOPE_KINDS_SAVED_NEURON_TEST_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "kinds/saved_work.pb.h"
#include "studies/neuron_test_plan.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {

// INVALID_ARGUMENT naming a field, as far as neither neurons nor vectors nor responses are needed
// to tell.
absl::Status CheckNeuronTestOptions(const v1::TestNeuronsRequest& request);

// What a request chooses, its defaults filled in, but for layers, ranking, sizes, target, vectors
// and shards.
SavedNeuronTest ChoicesOf(const v1::TestNeuronsRequest& request);

// The record's rankings, at least one: the only one without a label, or those with labels.
std::vector<SavedRanking> RankingsOf(const SavedNeuronTest& record);
void PutRankings(std::vector<SavedRanking> rankings, SavedNeuronTest& record);

// DATA_LOSS for a record that no request can have given.
absl::Status CheckComplete(const SavedNeuronTest& record);

// The record's.
struct NamedVectors {
  std::optional<studies::StoredVector> target, reference;
};

// But for whose it is. INVALID_ARGUMENT naming "tokens", the target's tokens, or "reference" where
// that lacks the row of a layer.
absl::StatusOr<studies::NeuronTestPlan> PlanOf(const SavedNeuronTest& record,
                                               const NamedVectors& vectors,
                                               const engine::ServedModel& model);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SAVED_NEURON_TEST_H_
