#include "studies/target_attribution.h"

#include <cmath>
#include <cstddef>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "studies/measured_target.h"
#include "studies/response_means.h"

namespace valuescope::studies {
namespace {

engine::NeuronRequest RequestOf(const LabelledResponse& response, const TargetPlan& plan) {
  return {.prompt = response.prompt,
          .response = plan.continuation.empty() ? response.response : plan.continuation,
          .layers = plan.layers,
          .tokens = plan.tokens,
          .target = plan.target,
          .question = plan.question};
}

// Of gradients along one; null for the others.
const engine::PathNodes* PathOf(const TargetPlan& plan) {
  const auto* gradients = std::get_if<engine::GradientQuestion>(&plan.question);
  return gradients != nullptr && gradients->path ? &*gradients->path : nullptr;
}

class TargetAttribution : public AttributionMethod {
 public:
  explicit TargetAttribution(TargetPlan plan)
      : plan_(std::move(plan)), has_path_(PathOf(plan_) != nullptr) {}

  absl::string_view Name() const override {
    if (std::holds_alternative<engine::AblationQuestion>(plan_.question)) {
      return kCausalAblationMethod;
    }
    if (std::holds_alternative<engine::LogprobQuestion>(plan_.question)) {
      return kLogProbabilityIncreaseMethod;
    }
    return has_path_ ? kIntegratedGradientsMethod : kAttributionPatchingMethod;
  }
  // Of expressing responses: the score of every neuron, then with the mean baseline dL / da, with a
  // path the effect of every block and how far the scores of its neurons miss it. Of others, with
  // that baseline alone: a, then zeros.
  int64_t WidthOfSums(int64_t intermediate) const override {
    const int64_t layers = num_layers();
    return layers * intermediate * (plan_.mean_baseline ? 2 : 1) + (has_path_ ? 2 * layers : 0);
  }

  absl::StatusOr<std::shared_ptr<const void>> Keep(
      engine::Engine& engine, std::span<const LabelledResponse> chunk,
      const Cancellation& cancellation) const override {
    // Any response that is looked at needs what all of them do.
    for (const LabelledResponse& response : chunk) {
      if (!response.expresses) continue;
      return engine.KeepNeuronWeights(RequestOf(response, plan_), cancellation);
    }
    return nullptr;
  }

  absl::Status AddChunk(engine::Engine& engine, std::span<const LabelledResponse> chunk,
                        const AttributionCaller& caller, const Cancellation& cancellation,
                        ActivationSums& sums, int64_t& cached_tokens) const override {
    std::vector<engine::NeuronRequest> requests;
    std::vector<LabelledResponse> others;
    for (const LabelledResponse& response : chunk) {
      if (response.expresses) {
        requests.push_back(RequestOf(response, plan_));
        requests.back().tenant = caller.tenant;
        requests.back().background = caller.background;
      } else if (plan_.mean_baseline) {
        others.push_back(response);
      }
    }
    auto scores = engine.NeuronScoresOf(requests, cancellation);
    if (!scores.ok()) return InField("responses", scores.status());
    for (const engine::NeuronScores& own : *scores) {
      const std::vector<float> row = RowOf(own);
      if (!analysis::AllFinite(std::span<const float>(row))) return TargetNotFinite();
      VS_RETURN_IF_ERROR(sums.Add(/*expresses=*/true, row));
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
      if (!has_path_) continue;
      column.completeness_gap =
          means[neurons + block] - std::accumulate(column.scores.begin(), column.scores.end(), 0.0);
      column.mean_absolute_gap = means[neurons + plan_.layers.size() + block];
    }
    return columns;
  }

 private:
  int64_t num_layers() const { return static_cast<int64_t>(plan_.layers.size()); }

  std::vector<float> RowOf(const engine::NeuronScores& own) const {
    std::vector<float> row = own.scores;
    if (plan_.mean_baseline) row.insert(row.end(), own.gradients.begin(), own.gradients.end());
    row.insert(row.end(), own.effects.begin(), own.effects.end());
    const size_t width = own.effects.empty() ? 0 : own.scores.size() / own.effects.size();
    for (size_t block = 0; block < own.effects.size(); ++block) {
      const auto begin = own.scores.begin() + static_cast<std::ptrdiff_t>(block * width);
      const double sum = std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(width), 0.0);
      row.push_back(static_cast<float>(std::abs(own.effects[block] - sum)));
    }
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

  const TargetPlan plan_;
  const bool has_path_;
};

// Of the plan's layer at `block`.
int64_t NeuronsAsked(const TargetPlan& plan, size_t block, int64_t intermediate) {
  const auto* ablation = std::get_if<engine::AblationQuestion>(&plan.question);
  if (ablation == nullptr || ablation->neurons.empty()) return intermediate;
  return static_cast<int64_t>(ablation->neurons[block].values().size());
}

}  // namespace

std::unique_ptr<AttributionMethod> TargetAttributionOf(TargetPlan plan) {
  return std::make_unique<TargetAttribution>(std::move(plan));
}

absl::Status CheckTargetPlan(const engine::Engine& engine,
                             std::span<const LabelledResponse> responses, const TargetPlan& plan,
                             const Cancellation& cancellation) {
  // But for the ids, which are tokens of the model by now, all depends on the lengths.
  std::set<std::pair<size_t, size_t>> checked;
  for (size_t i = 0; i < responses.size(); ++i) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    const LabelledResponse& response = responses[i];
    if (!response.expresses) continue;
    if (!checked.emplace(response.prompt.size(), response.response.size()).second) continue;
    const absl::Status status = engine.CheckNeurons(RequestOf(response, plan));
    if (status.ok()) continue;
    const std::string field = DetailsOf(status).field;
    if (field.rfind("prompt", 0) != 0 && field.rfind("response", 0) != 0) return status;
    return InField(absl::StrCat("responses[", i, "]"), status);
  }
  return absl::OkStatus();
}

TargetCost CostOf(const TargetPlan& plan, const model::Architecture& architecture, double tokens) {
  TargetCost cost;
  if (std::holds_alternative<engine::GradientQuestion>(plan.question)) {
    if (const engine::PathNodes* path = PathOf(plan)) {
      cost.passes =
          static_cast<int64_t>(plan.layers.size()) * (path->steps > 0 ? path->steps : path->most);
    }
    cost.forwards = 3 * static_cast<double>(cost.passes);
    return cost;
  }
  // A neuron runs what is behind its block, or is unembedded once.
  const auto blocks = static_cast<double>(architecture.num_layers);
  const double unembedding = static_cast<double>(architecture.vocabulary * architecture.hidden) /
                             static_cast<double>(model::NumParameters(architecture));
  const bool ablates = std::holds_alternative<engine::AblationQuestion>(plan.question);
  cost.passes = 0;
  for (size_t block = 0; block < plan.layers.size(); ++block) {
    const int64_t neurons = NeuronsAsked(plan, block, architecture.intermediate);
    const double of_each = ablates ? (blocks - plan.layers[block]) / blocks : unembedding / tokens;
    cost.passes += neurons;
    cost.forwards += of_each * static_cast<double>(neurons);
  }
  return cost;
}

}  // namespace valuescope::studies
