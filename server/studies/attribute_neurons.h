// What the forward pass alone says of MLP neurons over labelled responses. How much more often they
// are active where the value is expressed, P(active | exp) - P(active | unexp), and their direct
// contribution to a value vector v:
//   (mean_exp a_i - mean_unexp a_i) <w_i, v> / |v|^2,
// the means those of response means over response tokens. Where a norm behind the MLP divides what
// it writes (Gemma 2), a_i is r_t a_i with the token's own factor r_t, and w_i has the norm's gain,
// so that the neurons still add up to what the block writes. v is the row of the neuron's own
// block, or that of one source layer. Only what a block adds to the residual stream at or before
// the place where v is read is part of v, so of a source layer (read behind its block) the blocks 0
// to that layer have contributions and later ones have none. The data set is cut into shards and
// each shard into chunks of fixed composition; sums are float64, added in the order of the
// responses within a shard and of the shards at the end, so that work which was interrupted and
// resumed gives the same bits.
#ifndef VALUESCOPE_STUDIES_ATTRIBUTE_NEURONS_H_
#define VALUESCOPE_STUDIES_ATTRIBUTE_NEURONS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "studies/labelled_responses.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_vector.h"

namespace valuescope::studies {

// Sums of response means by label.
class ActivationSums {
 public:
  // Of no responses. `width` is layers x intermediate.
  explicit ActivationSums(int64_t width = 0);

  // INVALID_ARGUMENT, and no change: another length, an element that is not finite.
  absl::Status Add(bool expresses, std::span<const float> means);  // [width]
  absl::Status Merge(const ActivationSums& other);

  int64_t count(bool expresses) const { return counts_[expresses ? 1 : 0]; }
  // [width]; zeros for a label without responses.
  std::vector<double> Means(bool expresses) const;

  // Magic, version, width, counts, sums; little-endian. Equal sums give equal bytes.
  std::string Serialize() const;
  // DATA_LOSS for bytes of another width, truncated, or holding impossible numbers.
  static absl::StatusOr<ActivationSums> Parse(absl::string_view bytes, int64_t width);

 private:
  std::array<int64_t, 2> counts_ = {};            // [non-expressing, expressing]
  std::array<std::vector<double>, 2> sums_ = {};  // [width] each
};

// What of a neuron is averaged over a response's tokens.
enum class NeuronMeasure : uint8_t {
  kWritten,      // a_i, or r_t a_i
  kProductIsOn,  // whether a_i > 0
  kGateIsOn,     // whether act(gate) > 0
};

struct AttributionPlan {
  std::string tenant;
  std::vector<int> layers;  // ascending
  NeuronMeasure measure = NeuronMeasure::kWritten;
  bool background = false;
};

// Adds the responses, few enough to be in memory together, to `sums`, and to `cached_tokens`, if it
// is given, the prompt tokens that were found in the cache instead of run.
absl::Status AddChunk(engine::Engine& engine, std::span<const LabelledResponse> chunk,
                      const AttributionPlan& plan, const Cancellation& cancellation,
                      ActivationSums& sums, int64_t* cached_tokens = nullptr);

// Columns with scores and means, one entry a layer. Block l takes `vector`'s row of layer l, or of
// `source_layer`. INVALID_ARGUMENT naming "responses" (reason EMPTY_LABEL) or "vector" (a zero
// row), and that of CheckRows. CANCELLED between two layers.
absl::StatusOr<std::vector<NeuronColumns>> ScoreNeurons(
    const engine::Engine& engine, const ActivationSums& sums, const StoredVector& vector,
    std::span<const int> layers, std::optional<int> source_layer, const Cancellation& cancellation);

// Columns of P(active | exp) - P(active | unexp) and its two parts, one entry a layer, from sums of
// kProductIsOn or kGateIsOn. INVALID_ARGUMENT naming "responses" (reason EMPTY_LABEL).
absl::StatusOr<std::vector<NeuronColumns>> ScoreActivationProbabilities(
    const ActivationSums& sums, std::span<const int> layers);

// `layers` ascend. INVALID_ARGUMENT naming "vector" or "source_layer" where a row that the layers
// need is missing, and "layers" (reason OUT_OF_RANGE) where one lies behind the source layer.
absl::Status CheckRows(const StoredVector& vector, std::span<const int> layers,
                       std::optional<int> source_layer);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_ATTRIBUTE_NEURONS_H_
