#include "studies/measured_target.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <variant>
#include <vector>

#include "analysis/inner_product.h"
#include "base/error.h"
#include "base/host_tensor.h"
#include "base/status_macros.h"
#include "model/site.h"

namespace valuescope::studies {
namespace {

// The tokens whose logits are read, ascending, each once.
std::vector<int64_t> IdsOf(const engine::LogitDifferenceTarget& target) {
  std::vector<int64_t> ids(target.positive.begin(), target.positive.end());
  ids.insert(ids.end(), target.negative.begin(), target.negative.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

// The one row of the only tap.
absl::StatusOr<std::vector<float>> RowOf(const engine::Completion& completion, size_t width) {
  if (completion.captures.size() == 1) {
    VS_ASSIGN_OR_RETURN(std::vector<float> row, ToFloat32(completion.captures[0].tensor));
    if (row.size() == width) return row;
  }
  return ErrorWithReason(absl::StatusCode::kInternal, "CAPTURE_SHAPE",
                         "the engine returned a capture of another shape than asked for");
}

double MeanLogit(const std::vector<int32_t>& of, const std::vector<int64_t>& ids,
                 const std::vector<float>& logits) {
  double sum = 0;
  for (const int32_t id : of) {
    sum += logits[static_cast<size_t>(std::lower_bound(ids.begin(), ids.end(), id) - ids.begin())];
  }
  return of.empty() ? 0 : sum / static_cast<double>(of.size());
}

absl::StatusOr<double> ValueOf(const engine::ProjectionTarget& target,
                               const engine::Completion& completion) {
  const std::vector<float>& vector = *target.vector;
  VS_ASSIGN_OR_RETURN(const std::vector<float> row, RowOf(completion, vector.size()));
  return analysis::InnerProduct(vector, row);
}

absl::StatusOr<double> ValueOf(const engine::LogitDifferenceTarget& target,
                               const engine::Completion& completion) {
  const std::vector<int64_t> ids = IdsOf(target);
  VS_ASSIGN_OR_RETURN(const std::vector<float> logits, RowOf(completion, ids.size()));
  return MeanLogit(target.positive, ids, logits) - MeanLogit(target.negative, ids, logits);
}

absl::StatusOr<double> ValueOf(const engine::ResponseLogprobTarget&,
                               const engine::Completion& completion) {
  double sum = 0;
  for (const engine::TokenLogprob& token : completion.logprobs) sum += token.logprob;
  return sum;
}

}  // namespace

void AskForTarget(const engine::NeuronTarget& target, engine::Request& request) {
  engine::Tap tap{.reduction = engine::Reduction::kMean};
  if (const auto* projection = std::get_if<engine::ProjectionTarget>(&target)) {
    tap.site = model::Site::kResidualPost;
    tap.layers = {projection->layer};
    tap.tokens = projection->tokens;
  } else if (const auto* difference = std::get_if<engine::LogitDifferenceTarget>(&target)) {
    tap.site = model::Site::kLogits;
    tap.tokens = difference->tokens;
    tap.columns = {engine::NeuronIndices(IdsOf(*difference))};
  } else {
    request.score_response = true;
    return;
  }
  request.taps.push_back(std::move(tap));
}

absl::StatusOr<double> TargetIn(const engine::NeuronTarget& target,
                                const engine::Completion& completion) {
  VS_ASSIGN_OR_RETURN(
      const double value,
      std::visit([&](const auto& each) { return ValueOf(each, completion); }, target));
  if (std::isfinite(value)) return value;
  return TargetNotFinite();
}

absl::Status TargetNotFinite() {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "TARGET_NOT_FINITE",
                         "the target, or what neurons do to it, is not a finite number for one of "
                         "the responses");
}

}  // namespace valuescope::studies
