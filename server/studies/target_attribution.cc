#include "studies/gradient_attribution.h"

#include <numeric>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "studies/response_means.h"

namespace valuescope::studies {
namespace {

engine::GradientRequest RequestOf(const LabelledResponse& response, const GradientPlan& plan) {
  return {.prompt = response.prompt,
          .response = plan.continuation.empty() ? response.response : plan.continuation,
          .layers = plan.layers,
          .tokens = plan.tokens,
          .target = plan.target,
          .path = plan.path};
}

class GradientAttribution : public AttributionMethod {
 public:
  explicit GradientAttribution(GradientPlan plan) : plan_(std::move(plan)) {}

  absl::string_view Name() const override {
    return plan_.path ? kIntegratedGradientsMethod : kAttributionPatchingMethod;
  }
  // Of expressing responses: a dL / da of every neuron, then with the mean baseline dL / da, with a
  // path the effect of every block. Of others, with that baseline alone: a, then zeros.
  int64_t WidthOfSums(int64_t intermediate) const override {
    const int64_t layers = num_layers();
    return layers * intermediate * (plan_.mean_baseline ? 2 : 1) + (plan_.path ? layers : 0);
  }

  absl::Status AddChunk(engine::Engine& engine, std::span<const LabelledResponse> chunk,
                        const AttributionCaller& caller, const Cancellation& cancellation,
                        ActivationSums& sums, int64_t& cached_tokens) const override {
    std::vector<engine::GradientRequest> requests;
    std::vector<LabelledResponse> others;
    for (const LabelledResponse& response : chunk) {
      if (response.expresses) {
        requests.push_back(RequestOf(response, plan_));
      } else if (plan_.mean_baseline) {
        others.push_back(response);
      }
    }
    auto gradients = engine.GradientsOf(requests, cancellation);
    if (!gradients.ok()) return InField("responses", gradients.status());
    for (const engine::NeuronGradients& own : *gradients) {
      VS_RETURN_IF_ERROR(sums.Add(/*expresses=*/true, RowOf(own)));
    }
    return AddOthers(engine, others, caller, cancellation, sums, cached_tokens);
  }

  absl::StatusOr<std::vector<NeuronColumns>> Score(const engine::Engine& engine,
                                                   const ActivationSums& sums,
                                                   const Cancellation&) const override {
    if (sums.count(true) == 0 || (plan_.mean_baseline && sums.count(false) == 0)) {
      return InvalidField("responses", "must have a response of each label that the method needs",
                          "EMPTY_LABEL");
    }
    const std::vector<double> means = sums.Means(/*expresses=*/true);
    const std::vector<double> base = sums.Means(/*expresses=*/false);
    const auto width = static_cast<size_t>(engine.architecture().intermediate);
    const size_t neurons = plan_.layers.size() * width;
    std::vector<NeuronColumns> columns;
    for (size_t block = 0; block < plan_.layers.size(); ++block) {
      NeuronColumns& column = columns.emplace_back();
      column.layer = plan_.layers[block];
      for (size_t i = block * width; i < (block + 1) * width; ++i) {
        const double baseline = plan_.mean_baseline ? base[i] * means[neurons + i] : 0;
        column.scores.push_back(means[i] - baseline);
      }
      if (!plan_.path) continue;
      column.completeness_gap =
          means[neurons + block] - std::accumulate(column.scores.begin(), column.scores.end(), 0.0);
    }
    return columns;
  }

 private:
  int64_t num_layers() const { return static_cast<int64_t>(plan_.layers.size()); }

  std::vector<float> RowOf(const engine::NeuronGradients& own) const {
    std::vector<float> row = own.attributions;
    if (plan_.mean_baseline) row.insert(row.end(), own.gradients.begin(), own.gradients.end());
    row.insert(row.end(), own.effects.begin(), own.effects.end());
    return row;
  }

  absl::Status AddOthers(engine::Engine& engine, std::span<const LabelledResponse> others,
                         const AttributionCaller& caller, const Cancellation& cancellation,
                         ActivationSums& sums, int64_t& cached_tokens) const {
    if (others.empty()) return absl::OkStatus();
    const ResponseMeansPlan means_plan{.tenant = caller.tenant,
                                       .site = model::Site::kMlpNeurons,
                                       .layers = plan_.layers,
                                       .interventions = nullptr,
                                       .background = caller.background};
    auto means = ResponseMeans(engine, others, means_plan, cancellation);
    if (!means.ok()) return InField("responses", means.status());
    for (std::vector<float>& row : means->rows) {
      row.resize(2 * row.size());
      VS_RETURN_IF_ERROR(sums.Add(/*expresses=*/false, row));
    }
    cached_tokens += means->cached_tokens;
    return absl::OkStatus();
  }

  const GradientPlan plan_;
};

}  // namespace

std::unique_ptr<AttributionMethod> GradientAttributionOf(GradientPlan plan) {
  return std::make_unique<GradientAttribution>(std::move(plan));
}

absl::Status CheckGradients(const engine::Engine& engine,
                            std::span<const LabelledResponse> responses, const GradientPlan& plan,
                            const Cancellation& cancellation) {
  // But for the ids, which are tokens of the model by now, all depends on the lengths.
  std::set<std::pair<size_t, size_t>> checked;
  for (size_t i = 0; i < responses.size(); ++i) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    const LabelledResponse& response = responses[i];
    if (!response.expresses) continue;
    if (!checked.emplace(response.prompt.size(), response.response.size()).second) continue;
    const absl::Status status = engine.CheckGradients(RequestOf(response, plan));
    if (status.ok()) continue;
    const std::string field = DetailsOf(status).field;
    if (field.rfind("prompt", 0) != 0 && field.rfind("response", 0) != 0) return status;
    return InField(absl::StrCat("responses[", i, "]"), status);
  }
  return absl::OkStatus();
}

}  // namespace valuescope::studies
