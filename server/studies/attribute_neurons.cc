#include "studies/attribute_neurons.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/neuron_attribution.h"
#include "base/check.h"
#include "base/error.h"
#include "base/number_bytes.h"
#include "base/status_macros.h"
#include "jobs/work.h"
#include "studies/response_means.h"

namespace valuescope::studies {
namespace {

constexpr char kMagic[] = "VSACTSUM";  // eight characters
constexpr size_t kMagicSize = 8;
constexpr int64_t kSumsVersion = 1;

model::Site SiteOf(NeuronMeasure measure, const model::Architecture& architecture) {
  switch (measure) {
    case NeuronMeasure::kWritten:
      return architecture.post_norms ? model::Site::kMlpWritten : model::Site::kMlpNeurons;
    case NeuronMeasure::kProductIsOn:
      return model::Site::kMlpNeurons;
    case NeuronMeasure::kGateIsOn:
      return model::Site::kMlpGate;
  }
  VS_CHECK(false);
}

// Without scores: the two means of each layer's neurons.
absl::StatusOr<std::vector<NeuronColumns>> MeansOf(const ActivationSums& sums,
                                                   std::span<const int> layers) {
  if (sums.count(true) == 0 || sums.count(false) == 0) {
    return InvalidField("responses", "must have a response of each label", "EMPTY_LABEL");
  }
  const std::vector<double> expressing = sums.Means(/*expresses=*/true);
  const std::vector<double> others = sums.Means(/*expresses=*/false);
  const size_t width = expressing.size() / layers.size();
  std::vector<NeuronColumns> columns;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto part = [&](const std::vector<double>& all) {
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(i * width);
      return std::vector<double>(first, first + static_cast<std::ptrdiff_t>(width));
    };
    columns.push_back({.layer = layers[i],
                       .scores = {},
                       .classes = {},
                       .angles = {},
                       .mean_expressing = part(expressing),
                       .mean_non_expressing = part(others)});
  }
  return columns;
}

}  // namespace

ActivationSums::ActivationSums(int64_t width) {
  for (std::vector<double>& sums : sums_) sums.assign(static_cast<size_t>(width), 0.0);
}

absl::Status ActivationSums::Add(bool expresses, std::span<const float> means) {
  std::vector<double>& sums = sums_[expresses ? 1 : 0];
  if (means.size() != sums.size()) {
    return InvalidField("activations", absl::StrCat("must have ", sums.size(), " elements"));
  }
  for (const float mean : means) {
    if (!std::isfinite(mean)) {
      return InvalidField("activations", "hold an element that is not finite", "NOT_FINITE");
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += means[i];
  ++counts_[expresses ? 1 : 0];
  return absl::OkStatus();
}

absl::Status ActivationSums::Merge(const ActivationSums& other) {
  if (other.sums_[0].size() != sums_[0].size()) {
    return InvalidField("activations", "sums of different widths cannot be merged");
  }
  for (size_t label = 0; label < sums_.size(); ++label) {
    counts_[label] += other.counts_[label];
    for (size_t i = 0; i < sums_[label].size(); ++i) sums_[label][i] += other.sums_[label][i];
  }
  return absl::OkStatus();
}

std::vector<double> ActivationSums::Means(bool expresses) const {
  std::vector<double> means = sums_[expresses ? 1 : 0];
  const int64_t n = count(expresses);
  if (n > 0) {
    for (double& mean : means) mean /= static_cast<double>(n);
  }
  return means;
}

std::string ActivationSums::Serialize() const {
  const int64_t head[] = {kSumsVersion, static_cast<int64_t>(sums_[0].size()), counts_[0],
                          counts_[1]};
  return absl::StrCat(absl::string_view(kMagic, kMagicSize), BytesOfNumbers(head),
                      BytesOfNumbers(sums_[0]), BytesOfNumbers(sums_[1]));
}

absl::StatusOr<ActivationSums> ActivationSums::Parse(absl::string_view bytes, int64_t width) {
  int64_t head[4];
  ActivationSums result(width);
  const size_t row = result.sums_[0].size() * sizeof(double);
  if (bytes.size() != kMagicSize + sizeof(head) + 2 * row) return jobs::PartialDamaged();
  if (bytes.substr(0, kMagicSize) != absl::string_view(kMagic, kMagicSize))
    return jobs::PartialDamaged();
  bytes.remove_prefix(kMagicSize);
  TakeNumbers(bytes, head);
  if (head[0] != kSumsVersion || head[1] != width || head[2] < 0 || head[3] < 0)
    return jobs::PartialDamaged();
  result.counts_ = {head[2], head[3]};
  for (std::vector<double>& sums : result.sums_) {
    TakeNumbers(bytes, sums);
    for (const double sum : sums) {
      if (!std::isfinite(sum)) return jobs::PartialDamaged();
    }
  }
  return result;
}

absl::Status AddChunk(engine::Engine& engine, std::span<const LabelledResponse> chunk,
                      const AttributionPlan& plan, const Cancellation& cancellation,
                      ActivationSums& sums, int64_t* cached_tokens) {
  ResponseMeansPlan means_plan = {.tenant = plan.tenant,
                                  .site = SiteOf(plan.measure, engine.architecture()),
                                  .layers = plan.layers,
                                  .interventions = nullptr,
                                  .background = plan.background};
  if (plan.measure != NeuronMeasure::kWritten) {
    means_plan.reduction = engine::Reduction::kMeanPositive;
  }
  auto means = ResponseMeans(engine, chunk, means_plan, cancellation);
  if (!means.ok()) return InField("responses", means.status());
  for (size_t i = 0; i < chunk.size(); ++i) {
    VS_RETURN_IF_ERROR(sums.Add(chunk[i].expresses, means->rows[i]));
  }
  if (cached_tokens != nullptr) *cached_tokens += means->cached_tokens;
  return absl::OkStatus();
}

absl::Status CheckRows(const StoredVector& vector, std::span<const int> layers,
                       std::optional<int> source_layer) {
  if (source_layer) {
    if (!vector.RowOfLayer(*source_layer)) {
      return InvalidField("source_layer",
                          absl::StrCat("is ", *source_layer, ", the vector has no row for it"));
    }
    if (layers.empty() || layers.back() <= *source_layer) return absl::OkStatus();
    return InvalidField(
        "layers",
        absl::StrCat("names layer ", layers.back(), ", allowed are 0 to ", *source_layer,
                     ": the row of `source_layer` is read behind block ", *source_layer,
                     ", and later blocks cannot have written it"),
        "OUT_OF_RANGE");
  }
  for (const int layer : layers) {
    if (!vector.RowOfLayer(layer)) {
      return InvalidField("vector", absl::StrCat("has no row for layer ", layer));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<NeuronColumns>> ScoreNeurons(const engine::Engine& engine,
                                                        const ActivationSums& sums,
                                                        const StoredVector& vector,
                                                        std::span<const int> layers,
                                                        std::optional<int> source_layer,
                                                        const Cancellation& cancellation) {
  VS_ASSIGN_OR_RETURN(std::vector<NeuronColumns> columns, MeansOf(sums, layers));
  VS_RETURN_IF_ERROR(CheckRows(vector, layers, source_layer));
  const model::Architecture& architecture = engine.architecture();
  for (NeuronColumns& column : columns) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    // [hidden, intermediate]
    VS_ASSIGN_OR_RETURN(const HostTensor weights, engine.WriteDirections(column.layer));
    auto contribution = analysis::ComputeDirectContribution(
        {.expressing = column.mean_expressing, .non_expressing = column.mean_non_expressing},
        {.columns = weights.As<float>(),
         .hidden = architecture.hidden,
         .intermediate = architecture.intermediate},
        vector.row(*vector.RowOfLayer(source_layer.value_or(column.layer))));
    if (!contribution.ok()) {
      return InvalidField(
          "vector", absl::StrCat("layer ", column.layer, ": ", contribution.status().message()));
    }
    column.scores = std::move(contribution->scores);
  }
  return columns;
}

absl::StatusOr<std::vector<NeuronColumns>> ScoreActivationProbabilities(
    const ActivationSums& sums, std::span<const int> layers) {
  VS_ASSIGN_OR_RETURN(std::vector<NeuronColumns> columns, MeansOf(sums, layers));
  for (NeuronColumns& column : columns) {
    for (size_t i = 0; i < column.mean_expressing.size(); ++i) {
      column.scores.push_back(column.mean_expressing[i] - column.mean_non_expressing[i]);
    }
  }
  return columns;
}

}  // namespace valuescope::studies
