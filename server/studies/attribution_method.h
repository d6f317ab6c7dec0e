// The methods of attribution, which all go the same way: a response comes to some numbers a neuron,
// which are summed by label (ActivationSums), and the sums make the scores. So what is kept of a
// data set is as large as all neurons, however many responses it has.
#ifndef VALUESCOPE_STUDIES_ATTRIBUTION_METHOD_H_
#define VALUESCOPE_STUDIES_ATTRIBUTION_METHOD_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "studies/attribute_neurons.h"
#include "studies/labelled_responses.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::studies {

// On whose behalf a chunk runs.
struct AttributionCaller {
  std::string tenant;
  bool background = false;  // gives way to requests that people wait for
};

class AttributionMethod {
 public:
  virtual ~AttributionMethod() = default;

  // Of the contract's NeuronSet, and of the request's field.
  virtual absl::string_view Name() const = 0;
  // Of ActivationSums, for blocks of `intermediate` neurons.
  virtual int64_t WidthOfSums(int64_t intermediate) const = 0;

  // What AddChunk would make anew for each of several chunks such as this one if nobody kept it;
  // null where that is nothing.
  virtual absl::StatusOr<std::shared_ptr<const void>> Keep(engine::Engine&,
                                                           std::span<const LabelledResponse>,
                                                           const Cancellation&) const {
    return nullptr;
  }
  // Adds the responses, few enough to be in memory together, to `sums`, and the prompt tokens that
  // were found in the cache instead of run to `cached_tokens`.
  virtual absl::Status AddChunk(engine::Engine& engine, std::span<const LabelledResponse> chunk,
                                const AttributionCaller& caller, const Cancellation& cancellation,
                                ActivationSums& sums, int64_t& cached_tokens) const = 0;
  // One entry a layer, ascending. CANCELLED between two layers.
  virtual absl::StatusOr<std::vector<NeuronColumns>> Score(
      const engine::Engine& engine, const ActivationSums& sums,
      const Cancellation& cancellation) const = 0;
};

// `layers` ascend and satisfy CheckRows.
std::unique_ptr<AttributionMethod> DirectContributionOf(std::vector<int> layers,
                                                        StoredVector vector,
                                                        std::optional<int> source_layer);

// `layers` ascend.
std::unique_ptr<AttributionMethod> ActivationProbabilityOf(std::vector<int> layers,
                                                           v1::ActivationDefinition definition);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_ATTRIBUTION_METHOD_H_
