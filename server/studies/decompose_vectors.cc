#include "studies/decompose_vectors.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/statistics.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::studies {
namespace {

absl::Status CheckPair(const DecompositionPair& pair, const StoredVector& first, size_t index,
                       const std::vector<int>& layers) {
  const std::string field = absl::StrCat("pairs[", index, "]");
  for (const StoredVector* vector : {pair.intrinsic, pair.prompted}) {
    if (vector->record.model_digest() != first.record.model_digest()) {
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
                             absl::StrCat(field, " has a vector of another model"));
    }
    if (vector->site() != first.site() || vector->width() != first.width()) {
      return InvalidField(field, "has a vector of another site or width", "WRONG_SITE");
    }
    for (const int layer : layers) {
      if (!vector->RowOfLayer(layer)) {
        return InvalidField(field, absl::StrCat("has a vector without a row for layer ", layer));
      }
    }
  }
  return absl::OkStatus();
}

std::optional<double> ReliabilityOf(const StoredVector& vector, int layer) {
  for (const v1::VectorStatistics& row : vector.record.statistics()) {
    if (row.layer() == layer && row.has_reliability()) return row.reliability();
  }
  return std::nullopt;
}

analysis::VectorPair RowsOf(const DecompositionPair& pair, int layer) {
  return {.intrinsic = pair.intrinsic->row(*pair.intrinsic->RowOfLayer(layer)),
          .prompted = pair.prompted->row(*pair.prompted->RowOfLayer(layer))};
}

// Appends a row, or zeros for one that does not exist.
void AppendRow(std::vector<float>& rows, const std::vector<float>& row, int64_t width) {
  if (row.empty()) {
    rows.insert(rows.end(), static_cast<size_t>(width), 0.0f);
  } else {
    rows.insert(rows.end(), row.begin(), row.end());
  }
}

// A refusal under `strict` is the caller's choice of input, so it names the field.
absl::Status InPair(size_t index, int layer, const absl::Status& status) {
  const ErrorDetails details = DetailsOf(status);
  return InvalidField(absl::StrCat("pairs[", index, "]"),
                      absl::StrCat("layer ", layer, ": ", status.message()),
                      details.reason.empty() ? "INVALID_FIELD" : details.reason);
}

absl::StatusOr<PairResult> DecomposePair(const DecompositionPair& pair, size_t index,
                                         const DecompositionPlan& plan,
                                         const Cancellation& cancellation) {
  PairResult result;
  result.value = pair.value;
  const int64_t width = pair.intrinsic->width();
  for (const int layer : plan.layers) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    auto parts = analysis::Decompose(
        RowsOf(pair, layer), {.normalize_columns = plan.normalize_columns,
                              .strict = plan.strict,
                              .intrinsic_reliability = ReliabilityOf(*pair.intrinsic, layer),
                              .prompted_reliability = ReliabilityOf(*pair.prompted, layer)});
    if (!parts.ok()) return InPair(index, layer, parts.status());
    for (const auto warning : parts->warnings) {
      result.warnings.push_back(
          absl::StrCat("layer ", layer, ": ",
                       warning == analysis::DecompositionWarning::kCollinear
                           ? "the vectors are collinear, u_diff does not exist"
                           : "the vectors do not point the same way, \"shared\" has no meaning"));
    }
    AppendRow(result.shared, parts->shared, width);
    AppendRow(result.difference, parts->difference, width);
    AppendRow(result.intrinsic_orthogonal, parts->intrinsic_orthogonal, width);
    AppendRow(result.prompted_orthogonal, parts->prompted_orthogonal, width);
    result.layers.push_back(*std::move(parts));
  }
  return result;
}

// Layers at which the deltas of `pairs` say less than they seem to.
void WarnOfDelta(const std::vector<DecompositionPair>& pairs, int layer,
                 const analysis::MeanDelta& delta, bool unit_deltas,
                 std::vector<std::string>& warnings) {
  for (const size_t s : delta.zero_deltas) {
    warnings.push_back(absl::StrCat(
        "layer ", layer, ": the delta of ", pairs[s].value,
        " is 0, its two vectors are equal: it has no cosines",
        unit_deltas ? " and is left out of the mean of unit deltas" : " and counts in the mean"));
  }
  if (delta.direction.empty()) {
    warnings.push_back(
        absl::StrCat("layer ", layer, ": the deltas ",
                     delta.zero_deltas.size() == pairs.size() ? "are all 0" : "cancel one another",
                     ", their mean has no direction and explains nothing"));
  }
  if (!delta.mean_pairwise_cosine && delta.zero_deltas.size() < pairs.size()) {
    warnings.push_back(absl::StrCat("layer ", layer,
                                    ": one delta alone has a direction, there is no mean pairwise "
                                    "cosine"));
  }
}

absl::Status CompareDeltas(const std::vector<DecompositionPair>& pairs,
                           const DecompositionPlan& plan, const Cancellation& cancellation,
                           DecompositionResult& result) {
  for (const int layer : plan.layers) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    std::vector<analysis::VectorPair> rows;
    for (const DecompositionPair& pair : pairs) rows.push_back(RowsOf(pair, layer));
    VS_ASSIGN_OR_RETURN(analysis::MeanDelta delta,
                        analysis::ComputeMeanDelta(rows, {.unit_deltas = plan.unit_deltas}));
    WarnOfDelta(pairs, layer, delta, plan.unit_deltas, result.warnings);
    AppendRow(result.mean_delta, delta.direction, pairs[0].intrinsic->width());
    result.mean_deltas.push_back(std::move(delta));
  }
  return absl::OkStatus();
}

absl::StatusOr<CircumplexResult> FitCircumplexes(const DecompositionPlan& plan, int64_t width,
                                                 const Cancellation& cancellation,
                                                 DecompositionResult& decomposition) {
  VS_ASSIGN_OR_RETURN(
      const std::vector<double> null,
      analysis::SimulateCircumplexNull(
          plan.circumplex->places,
          {.width = width, .samples = plan.circumplex->null_samples, .seed = plan.circumplex->seed},
          cancellation));
  const analysis::CircumplexFitter fitter(plan.circumplex->places);
  CircumplexResult result;
  result.places = fitter.places();
  result.distinct_permutations = fitter.distinct_permutations();
  const auto samples = static_cast<double>(null.size());
  result.null_mean = std::accumulate(null.begin(), null.end(), 0.0) / samples;
  result.null_95th_percentile = *analysis::Quantile(null, 0.95);
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    std::vector<std::span<const float>> axes;
    for (const PairResult& pair : decomposition.pairs) {
      axes.push_back(std::span(pair.shared)
                         .subspan(l * static_cast<size_t>(width), static_cast<size_t>(width)));
    }
    auto fit = fitter.Fit(axes);
    const std::string layer = absl::StrCat("layer ", plan.layers[l], ": ");
    if (!fit) {
      decomposition.warnings.push_back(
          absl::StrCat(layer, "the points of the circumplex are all one, they have no plane"));
      continue;
    }
    if (!fit->plane_determined) {
      decomposition.warnings.push_back(
          absl::StrCat(layer,
                       "the second and the third principal component have one variance, "
                       "the plane of the circumplex is one of many"));
    }
    const auto as_good = static_cast<double>(
        null.end() - std::lower_bound(null.begin(), null.end(), fit->r_squared));
    result.layers.push_back({.layer = plan.layers[l],
                             .fit = *std::move(fit),
                             .null_p_value = (1 + as_good) / (1 + samples)});
  }
  return result;
}

}  // namespace

absl::StatusOr<DecompositionResult> DecomposePairs(const std::vector<DecompositionPair>& pairs,
                                                   const DecompositionPlan& plan,
                                                   const Cancellation& cancellation) {
  if (pairs.empty()) return InvalidField("pairs", "must have at least one pair");
  const StoredVector& first = *pairs[0].intrinsic;
  if (!model::IsPerLayer(first.site())) {
    return InvalidField("pairs", "must be vectors of a site that has layers", "WRONG_SITE");
  }
  if (plan.layers.empty()) return InvalidField("layers", "the vectors share no layer");
  DecompositionResult result;
  for (size_t i = 0; i < pairs.size(); ++i) {
    VS_RETURN_IF_ERROR(CheckPair(pairs[i], first, i, plan.layers));
    VS_ASSIGN_OR_RETURN(PairResult pair, DecomposePair(pairs[i], i, plan, cancellation));
    result.pairs.push_back(std::move(pair));
  }
  if (pairs.size() >= 2) VS_RETURN_IF_ERROR(CompareDeltas(pairs, plan, cancellation, result));
  if (plan.circumplex) {
    VS_ASSIGN_OR_RETURN(result.circumplex,
                        FitCircumplexes(plan, first.width(), cancellation, result));
  }
  return result;
}

}  // namespace valuescope::studies
