#include "studies/decompose_vectors.h"

#include <utility>

#include "absl/strings/str_cat.h"
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

// The same error of a field, saying at which layer.
absl::Status InLayer(int layer, const absl::Status& status) {
  const ErrorDetails details = DetailsOf(status);
  return InvalidField(details.field, absl::StrCat("layer ", layer, ": ", details.description),
                      details.reason);
}

absl::StatusOr<PairResult> DecomposePair(const DecompositionPair& pair, size_t index,
                                         const DecompositionPlan& plan) {
  PairResult result;
  result.value = pair.value;
  const int64_t width = pair.intrinsic->width();
  for (const int layer : plan.layers) {
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

}  // namespace

absl::StatusOr<DecompositionResult> DecomposePairs(const std::vector<DecompositionPair>& pairs,
                                                   const DecompositionPlan& plan) {
  if (pairs.empty()) return InvalidField("pairs", "must have at least one pair");
  const StoredVector& first = *pairs[0].intrinsic;
  if (!model::IsPerLayer(first.site())) {
    return InvalidField("pairs", "must be vectors of a site that has layers", "WRONG_SITE");
  }
  if (plan.layers.empty()) return InvalidField("layers", "the vectors share no layer");
  DecompositionResult result;
  for (size_t i = 0; i < pairs.size(); ++i) {
    VS_RETURN_IF_ERROR(CheckPair(pairs[i], first, i, plan.layers));
    VS_ASSIGN_OR_RETURN(PairResult pair, DecomposePair(pairs[i], i, plan));
    result.pairs.push_back(std::move(pair));
  }
  if (pairs.size() < 2) return result;
  for (const int layer : plan.layers) {
    std::vector<analysis::VectorPair> rows;
    for (const DecompositionPair& pair : pairs) rows.push_back(RowsOf(pair, layer));
    auto delta = analysis::ComputeMeanDelta(rows, {.unit_deltas = plan.unit_deltas});
    if (!delta.ok()) return InLayer(layer, delta.status());
    if (delta->direction.empty()) {
      result.warnings.push_back(absl::StrCat("layer ", layer,
                                             ": the deltas cancel one another, their mean has no "
                                             "direction and explains nothing"));
    }
    AppendRow(result.mean_delta, delta->direction, first.width());
    result.mean_deltas.push_back(*std::move(delta));
  }
  return result;
}

}  // namespace valuescope::studies
