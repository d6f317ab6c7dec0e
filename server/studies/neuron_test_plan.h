// A test of what neurons cause: a target M is measured on every response while the first k neurons
// of a ranking are removed, kept alone or scaled, for several k, and while random sets like them
// are (analysis/matched_neurons.h). Several rankings share what is done to no neuron of theirs. A
// condition is what is done to the model; there are, in this order,
//   full              nothing is changed
//   empty             all neurons of the layers are ablated; not where neurons are scaled
//   of each ranking's each size k
//                     its first k, then the random sets
// A condition and a response are a pass. Passes are numbered so that responses have a condition
// together: kResponsesTogether responses after the other, of them condition by condition, of it
// response by response.
//
// Before the passes some responses are looked at: where a neuron's mean takes its place, those that
// the target is not measured on (all where there are no others), and where random sets are drawn,
// those that it is.
#ifndef VALUESCOPE_STUDIES_NEURON_TEST_PLAN_H_
#define VALUESCOPE_STUDIES_NEURON_TEST_PLAN_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "analysis/matched_neurons.h"
#include "engine/neuron_request.h"
#include "engine/request.h"
#include "studies/labelled_responses.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::studies {

inline constexpr int64_t kResponsesTogether = 16;

struct TestedRanking {
  std::string label;                            // empty of one that has none
  std::vector<analysis::PlacedNeuron> neurons;  // best first, distinct
};

// The first so many of a ranking.
struct TestedSize {
  size_t ranking = 0;  // index of the plan's
  int32_t size = 0;    // 1 .. as many as it has
};

struct NeuronTestPlan {
  std::string tenant;
  bool background = false;  // gives way to requests that people wait for
  std::vector<int> layers;  // ascending; a neuron's block is an index of these
  std::vector<TestedRanking> rankings;
  std::vector<TestedSize> sizes;  // ranking by ranking, of each ascending
  v1::NeuronTest test = v1::NEURON_TEST_REMOVE;
  float factor = 1;  // of SCALE
  // Of the others: an ablated neuron has its mean, which is `reference` or, where that is null, the
  // mean over the responses that are looked at for it; else 0.
  bool to_mean = false;
  engine::SharedFloats reference;     // [layers, intermediate]
  engine::TokenSelection tokens;      // where neurons are changed
  engine::NeuronTarget target;        // M; measured, not differentiated
  std::vector<int32_t> continuation;  // in the place of a response measured; empty: itself
  int64_t random_sets = 0;            // of each size
  uint64_t seed = 0;

  // The neurons that size `place` is of.
  std::span<const analysis::PlacedNeuron> First(size_t place) const {
    const TestedSize& tested = sizes[place];
    return std::span(rankings[tested.ranking].neurons).first(static_cast<size_t>(tested.size));
  }
};

class NeuronTestPasses {
 public:
  // Measured are the responses that express.
  NeuronTestPasses(const NeuronTestPlan& plan, std::span<const LabelledResponse> responses);

  // Indices of the responses, ascending.
  const std::vector<int64_t>& measured() const { return measured_; }
  const std::vector<int64_t>& looked_at() const { return looked_at_; }
  // Whether the mean of a response's activations, or of their magnitudes, is needed of it.
  bool IsReference(const LabelledResponse& response) const;
  bool IsLikeness(const LabelledResponse& response) const;

  bool has_empty() const { return has_empty_; }
  int64_t num_conditions() const { return num_conditions_; }
  int64_t num_passes() const;
  // Of all passes and looks.
  int64_t num_tokens() const { return num_tokens_; }

  // Conditions. Set 0 of a size is its ranking's own, the others are random.
  static constexpr int64_t kFull = 0, kEmpty = 1;
  struct SizeAndSet {
    size_t size = 0;  // index of the plan's sizes
    int64_t set = 0;
  };
  int64_t ConditionOf(const SizeAndSet& set) const;
  SizeAndSet SetOf(int64_t condition) const;  // neither full nor empty

  struct Pass {
    int64_t condition = 0;
    int64_t response = 0;  // index of measured()
  };
  Pass At(int64_t pass) const;
  // Of `values`, one for each pass, those of a condition: [measured].
  std::vector<double> OfCondition(std::span<const double> values, int64_t condition) const;

 private:
  // How many responses are together with measured response `first`, the first of them.
  int64_t TogetherFrom(int64_t first) const;

  bool has_empty_ = true;
  bool needs_likeness_ = false;
  bool needs_reference_ = false;
  bool has_others_ = false;  // responses that the target is not measured on
  int64_t sets_per_size_ = 1;
  int64_t num_conditions_ = 1;
  int64_t num_tokens_ = 0;
  std::vector<int64_t> measured_, looked_at_;
};

// The tokens that a response is run with behind its prompt.
const std::vector<int32_t>& ResponseTokens(const NeuronTestPlan& plan,
                                           const LabelledResponse& response);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_NEURON_TEST_PLAN_H_
