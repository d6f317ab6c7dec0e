#include "studies/attribution_method.h"

#include <utility>

namespace valuescope::studies {
namespace {

// One number a neuron, of the forward pass alone.
class ForwardMethod : public AttributionMethod {
 public:
  int64_t WidthOfSums(int64_t intermediate) const override {
    return static_cast<int64_t>(layers_.size()) * intermediate;
  }
  absl::Status AddChunk(engine::Engine& engine, std::span<const LabelledResponse> chunk,
                        const AttributionCaller& caller, const Cancellation& cancellation,
                        ActivationSums& sums, int64_t& cached_tokens) const override {
    const AttributionPlan plan{.tenant = caller.tenant,
                               .layers = layers_,
                               .measure = measure_,
                               .background = caller.background};
    return studies::AddChunk(engine, chunk, plan, cancellation, sums, &cached_tokens);
  }

 protected:
  ForwardMethod(std::vector<int> layers, NeuronMeasure measure)
      : layers_(std::move(layers)), measure_(measure) {}

  const std::vector<int> layers_;

 private:
  const NeuronMeasure measure_;
};

class DirectContribution : public ForwardMethod {
 public:
  DirectContribution(std::vector<int> layers, StoredVector vector, std::optional<int> source_layer)
      : ForwardMethod(std::move(layers), NeuronMeasure::kWritten),
        vector_(std::move(vector)),
        source_layer_(source_layer) {}

  absl::string_view Name() const override { return kDirectContributionMethod; }
  absl::StatusOr<std::vector<NeuronColumns>> Score(
      const engine::Engine& engine, const ActivationSums& sums,
      const Cancellation& cancellation) const override {
    return ScoreNeurons(engine, sums, vector_, layers_, source_layer_, cancellation);
  }

 private:
  const StoredVector vector_;
  const std::optional<int> source_layer_;
};

class ActivationProbability : public ForwardMethod {
 public:
  ActivationProbability(std::vector<int> layers, NeuronMeasure measure)
      : ForwardMethod(std::move(layers), measure) {}

  absl::string_view Name() const override { return kActivationProbabilityMethod; }
  absl::StatusOr<std::vector<NeuronColumns>> Score(const engine::Engine&,
                                                   const ActivationSums& sums,
                                                   const Cancellation&) const override {
    return ScoreActivationProbabilities(sums, layers_);
  }
};

}  // namespace

std::unique_ptr<AttributionMethod> DirectContributionOf(std::vector<int> layers,
                                                        StoredVector vector,
                                                        std::optional<int> source_layer) {
  return std::make_unique<DirectContribution>(std::move(layers), std::move(vector), source_layer);
}

std::unique_ptr<AttributionMethod> ActivationProbabilityOf(std::vector<int> layers,
                                                           v1::ActivationDefinition definition) {
  const NeuronMeasure measure = definition == v1::ACTIVATION_DEFINITION_GATE
                                    ? NeuronMeasure::kGateIsOn
                                    : NeuronMeasure::kProductIsOn;
  return std::make_unique<ActivationProbability>(std::move(layers), measure);
}

}  // namespace valuescope::studies
