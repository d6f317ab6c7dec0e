// The passes of a test of neurons (neuron_test_plan.h): what each condition does to the model, run
// through the engine, and what the measured targets come to.
#ifndef VALUESCOPE_STUDIES_TEST_NEURONS_H_
#define VALUESCOPE_STUDIES_TEST_NEURONS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "analysis/matched_neurons.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "studies/neuron_measures.h"
#include "studies/neuron_test_plan.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::studies {

// What the conditions of a plan do, once its neurons are measured.
class NeuronConditions {
 public:
  // `plan` and `passes` outlive it. INVALID_ARGUMENT (reason NOT_FINITE) for measures that are no
  // numbers.
  static absl::StatusOr<NeuronConditions> Of(const NeuronTestPlan& plan,
                                             const NeuronTestPasses& passes,
                                             const NeuronMeasures& measures, int64_t intermediate);

  // None where the condition changes nothing.
  std::vector<engine::Intervention> InterventionsOf(int64_t condition) const;

  // Of what size `size` is of, the most for which a random set has others than such as are like
  // them. CANCELLED between two sets.
  absl::StatusOr<int64_t> NumUnmatched(size_t size, const Cancellation& cancellation) const;

 private:
  using ByLayer = std::vector<std::vector<int64_t>>;

  analysis::MatchedSet RandomSet(const NeuronTestPasses::SizeAndSet& set) const;
  ByLayer NeuronsOf(const NeuronTestPasses::SizeAndSet& set) const;
  // All neurons of a layer but these, which ascend.
  engine::NeuronIndices AllBut(const std::vector<int64_t>& neurons) const;

  const NeuronTestPlan* plan_ = nullptr;
  const NeuronTestPasses* passes_ = nullptr;
  engine::NeuronIndices all_;                         // of a layer
  engine::SharedFloats reference_;                    // [layers, intermediate]; null: 0
  std::optional<analysis::NeuronMatching> matching_;  // where there are random sets
};

// What the engine would say of looks and passes if nothing else ran: INVALID_ARGUMENT naming a
// field of "responses[i]", or the request's "tokens..." or "target.tokens..."; RESOURCE_EXHAUSTED
// for what never fits.
absl::Status CheckNeuronTest(engine::Engine& engine, std::span<const LabelledResponse> responses,
                             const NeuronTestPlan& plan, const NeuronTestPasses& passes,
                             const Cancellation& cancellation);

// Runs passes first .. end - 1 and appends M of each. FAILED_PRECONDITION (reason
// TARGET_NOT_FINITE).
absl::Status AddPasses(const NeuronTestRun& run, const NeuronConditions& conditions, int64_t first,
                       int64_t end, std::vector<double>& values);

// Host memory that a test of `neurons` in all layers takes to its end, bytes.
int64_t NeuronTestBytes(const NeuronTestPasses& passes, int64_t neurons);

// Points, or rankings with theirs where those have labels, `full`, `empty`, `num_responses` and
// warnings, from M of all passes. CANCELLED between two draws.
absl::StatusOr<v1::TestNeuronsResponse> SummariseNeuronTest(const NeuronTestPlan& plan,
                                                            const NeuronTestPasses& passes,
                                                            const NeuronConditions& conditions,
                                                            std::span<const double> values,
                                                            const Cancellation& cancellation);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_TEST_NEURONS_H_
