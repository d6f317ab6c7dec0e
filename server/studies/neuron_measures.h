// What a test of neurons finds out before it changes any: each neuron's mean activation, the mean
// of its magnitude, and the norm of what it writes; and how this and the measured targets are
// stored.
#ifndef VALUESCOPE_STUDIES_NEURON_MEASURES_H_
#define VALUESCOPE_STUDIES_NEURON_MEASURES_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "analysis/matched_neurons.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "studies/labelled_responses.h"
#include "studies/neuron_test_plan.h"

namespace valuescope::studies {

// Sums over responses of means over tokens. Each list is [layers, intermediate], or empty where
// nothing of its kind was asked for.
struct NeuronMeasures {
  int64_t num_reference = 0;        // responses
  int64_t num_likeness = 0;         // responses
  std::vector<double> activations;  // of the reference: a
  std::vector<double> magnitudes;   // of the responses that the target is measured on: |a|
  std::vector<float> norms;         // |w|, behind a norm |D w|; set by MeasureNorms
};

// What a shard came to: of looks, or of passes.
struct NeuronTestSums {
  NeuronMeasures measures;
  std::vector<double> values;  // M of passes, in order

  // Magic, version, lengths, numbers; little-endian. Equal sums give equal bytes.
  std::string Serialize() const;
  // DATA_LOSS for bytes that Serialize cannot have written of `neurons` in all layers.
  static absl::StatusOr<NeuronTestSums> Parse(absl::string_view bytes, int64_t neurons);
};

// On whose behalf, and over what, a test runs.
struct NeuronTestRun {
  engine::Engine& engine;
  std::span<const LabelledResponse> responses;
  const NeuronTestPlan& plan;
  const NeuronTestPasses& passes;
  const Cancellation& cancellation;
  int64_t& cached_tokens;  // of prompts, found in the cache instead of run; added to
};

// The request that looks at a response, of passes.looked_at().
engine::Request LookAt(const LabelledResponse& response, const NeuronTestPlan& plan,
                       const NeuronTestPasses& passes);

// Looks at responses first .. end - 1 of passes.looked_at(). INVALID_ARGUMENT (reason NOT_FINITE)
// for activations that are no numbers.
absl::Status AddLooks(const NeuronTestRun& run, int64_t first, int64_t end,
                      NeuronMeasures& measures);

// CANCELLED between two layers.
absl::Status MeasureNorms(const NeuronTestRun& run, NeuronMeasures& measures);

// The neurons of all layers by norm and mean magnitude, which both were measured of at least one
// response; a block is the place of its layer. Errors of analysis::NeuronMatching::Of.
absl::StatusOr<analysis::NeuronMatching> MatchingOf(const NeuronMeasures& measures,
                                                    int64_t intermediate);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_NEURON_MEASURES_H_
