#include "studies/extract_vectors.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "studies/response_means.h"

namespace valuescope::studies {
namespace {

// Responses that run together; their captures are in memory beside the means that are kept.
constexpr size_t kResponsesAtOnce = 64;

// All means, one after another, in the order of the responses. The engine complains of a
// response by its place in its chunk; checks of the input have found anything a user could cause.
absl::StatusOr<Means> AllMeans(engine::Engine& engine, const ResponseSet& set,
                               const ExtractionPlan& plan, const Cancellation& cancellation) {
  const ResponseMeansPlan means_plan = {.tenant = plan.tenant,
                                        .site = plan.site,
                                        .layers = plan.layers,
                                        .interventions = plan.interventions,
                                        .background = false};
  const std::span<const LabelledResponse> all = set.responses;
  Means means;
  for (size_t first = 0; first < all.size(); first += kResponsesAtOnce) {
    const size_t count = std::min(kResponsesAtOnce, all.size() - first);
    auto chunk = ResponseMeans(engine, all.subspan(first, count), means_plan, cancellation);
    if (!chunk.ok()) return InField("responses", chunk.status());
    for (std::vector<float>& mean : chunk->rows) means.rows.push_back(std::move(mean));
    means.cached_tokens += chunk->cached_tokens;
  }
  return means;
}

// Of the means that are kept and of a chunk's captures beside them.
int64_t BytesKept(size_t num_responses, int64_t elements) {
  const size_t at_once = std::min(num_responses, kResponsesAtOnce);
  return static_cast<int64_t>((num_responses + at_once) * sizeof(float)) * elements;
}

RowStatistics StatisticsOf(int layer, const analysis::DifferenceInMeans& all,
                           const analysis::LayerDifference& row) {
  return {.layer = layer,
          .num_expressing = all.num_expressing,
          .num_non_expressing = all.num_non_expressing,
          .norm = row.norm,
          .relative_norm = row.relative_norm,
          .split_half_cosine = row.split_half_cosine,
          .reliability = row.reliability,
          .norm_interval = row.norm_interval,
          .auroc = row.auroc,
          .debiased_squared_norm = row.debiased_squared_norm};
}

std::vector<std::string> WarningsOf(const ResponseSet& set,
                                    const analysis::DifferenceInMeans& difference) {
  std::vector<std::string> warnings;
  if (IsNoisy(set.num_expressing, set.num_non_expressing)) {
    warnings.push_back(absl::StrCat("only ", set.num_expressing, " expressing and ",
                                    set.num_non_expressing,
                                    " non-expressing responses: the vector is noisy"));
  }
  if (difference.num_queries < 2) {
    warnings.push_back("one query: halves and intervals over queries do not exist");
  }
  if (!difference.relative_norm_over_tokens) {
    warnings.push_back(
        "relative_norm divides by the mean norm of response means, somewhat smaller than that of "
        "tokens");
  }
  return warnings;
}

}  // namespace

absl::StatusOr<ExtractedVector> ExtractVector(engine::Engine& engine, const ResponseSet& set,
                                              const ExtractionPlan& plan,
                                              const Cancellation& cancellation) {
  VS_RETURN_IF_ERROR(CheckBothLabels("responses", set));
  const int64_t width = model::WidthOf(plan.site, engine.architecture());
  const int64_t rows = model::IsPerLayer(plan.site) ? static_cast<int64_t>(plan.layers.size()) : 1;
  VS_ASSIGN_OR_RETURN(const engine::KeptCaptures memory,
                      engine.KeepCaptures(BytesKept(set.responses.size(), rows * width)));
  VS_ASSIGN_OR_RETURN(const Means means, AllMeans(engine, set, plan, cancellation));
  std::vector<analysis::LabelledActivations> activations;
  for (size_t i = 0; i < means.rows.size(); ++i) {
    analysis::LabelledActivations entry;
    entry.expresses = set.responses[i].expresses;
    entry.query_id = set.responses[i].query_id;
    entry.mean_activations = std::span<const float>(means.rows[i]);
    activations.push_back(std::move(entry));
  }
  VS_ASSIGN_OR_RETURN(
      const analysis::DifferenceInMeans difference,
      analysis::ComputeDifferenceInMeans(activations, rows, width, plan.statistics, cancellation));
  ExtractedVector result;
  for (size_t i = 0; i < difference.layers.size(); ++i) {
    const analysis::LayerDifference& row = difference.layers[i];
    result.rows.insert(result.rows.end(), row.vector.begin(), row.vector.end());
    const int layer = plan.layers.empty() ? 0 : plan.layers[i];
    result.statistics.push_back(StatisticsOf(layer, difference, row));
  }
  result.num_tokens = set.num_tokens;
  result.num_cached_tokens = means.cached_tokens;
  result.warnings = WarningsOf(set, difference);
  return result;
}

}  // namespace valuescope::studies
