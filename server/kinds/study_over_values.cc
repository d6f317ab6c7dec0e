#include "kinds/study_over_values.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "analysis/circumplex.h"
#include "analysis/statistics.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/study_paper.h"
#include "studies/confidence_interval.h"

namespace valuescope::kinds {
namespace {

// A circumplex whose points have no plane has no number.
using ByLayer = std::vector<std::optional<double>>;  // [layers]

struct OverValues {
  ByLayer explained_variance, mean_pairwise_cosine, r_squared;
};

OverValues NumbersOf(const v1::DecomposeVectorsResponse& response) {
  OverValues numbers;
  auto circumplex = response.circumplexes().begin();  // some of the layers, ascending
  for (const v1::MeanDelta& delta : response.mean_deltas()) {
    numbers.explained_variance.emplace_back(delta.explained_variance());
    numbers.mean_pairwise_cosine.emplace_back(delta.mean_pairwise_cosine());
    std::optional<double>& r_squared = numbers.r_squared.emplace_back();
    if (circumplex == response.circumplexes().end() || circumplex->layer() != delta.layer()) {
      continue;
    }
    r_squared = circumplex->r_squared();
    ++circumplex;
  }
  return numbers;
}

absl::Status Decompose(const StudyGathering& of, const v1::DecomposeVectorsRequest& request,
                       v1::DecomposeVectorsResponse& response) {
  const int64_t held = of.context.held();
  response.Clear();
  const absl::Status status = of.tools.vectors->DecomposeVectors(of.context, request, &response);
  of.context.GiveBack(of.context.held() - held);
  return status;
}

absl::StatusOr<OverValues> NumbersWithout(int left_out, const StudyGathering& of,
                                          v1::DecomposeVectorsRequest request) {
  constexpr int kFewestNullSamples = 100;  // that may be drawn; none of them is looked at
  request.mutable_pairs()->DeleteSubrange(left_out, 1);
  request.set_store(false);
  if (request.pairs_size() < static_cast<int>(analysis::kLeastCircumplexValues)) {
    request.clear_circumplex();
  }
  if (request.has_circumplex()) {
    request.mutable_circumplex()->set_null_samples(kFewestNullSamples);
  }
  v1::DecomposeVectorsResponse response;
  absl::Status status = Decompose(of, request, response);
  // A domain that has lost its only value.
  if (absl::StartsWith(DetailsOf(status).field, "circumplex")) {
    request.clear_circumplex();
    status = Decompose(of, request, response);
  }
  VS_RETURN_IF_ERROR(status);
  return NumbersOf(response);
}

std::optional<double> MeanOf(const ByLayer& numbers) {
  double sum = 0;
  for (const std::optional<double>& one : numbers) {
    if (!one) return std::nullopt;
    sum += *one;
  }
  if (numbers.empty()) return std::nullopt;
  return sum / static_cast<double>(numbers.size());
}

// Numbers of all values, and without each.
struct Jackknifed {
  OverValues whole;
  std::vector<OverValues> without;

  // Of what `number` makes of them.
  template <typename Number>
  std::optional<analysis::ConfidenceInterval> IntervalOf(const Number& number) const {
    std::vector<std::optional<double>> left_out;
    for (const OverValues& one : without) left_out.push_back(number(one));
    return analysis::JackknifeInterval(number(whole), left_out);
  }
};

// At each layer.
void AddIntervals(const Jackknifed& numbers, const v1::DecomposeVectorsResponse& whole,
                  v1::ValueStudyResult& result) {
  for (int l = 0; l < whole.mean_deltas_size(); ++l) {
    const auto layer = static_cast<size_t>(l);
    v1::StudyValueIntervals& told = *result.add_value_intervals();
    told.set_layer(whole.mean_deltas(l).layer());
    const auto at = [&](ByLayer OverValues::*of) {
      return numbers.IntervalOf([&](const OverValues& one) { return (one.*of)[layer]; });
    };
    if (const auto interval = at(&OverValues::explained_variance)) {
      *told.mutable_explained_variance() = studies::IntervalToProto(*interval);
    }
    if (const auto interval = at(&OverValues::mean_pairwise_cosine)) {
      *told.mutable_mean_pairwise_cosine() = studies::IntervalToProto(*interval);
    }
    if (const auto interval = at(&OverValues::r_squared)) {
      *told.mutable_circumplex_r_squared() = studies::IntervalToProto(*interval);
    }
  }
}

}  // namespace

absl::Status AddOverValues(const StudyGathering& of, const v1::DecomposeVectorsRequest& request,
                           const v1::DecomposeVectorsResponse& whole,
                           v1::ValueStudyResult& result) {
  constexpr int kFewestValues = 3;
  Jackknifed numbers{.whole = NumbersOf(whole), .without = {}};
  if (request.pairs_size() >= kFewestValues) {
    for (int v = 0; v < request.pairs_size(); ++v) {
      VS_ASSIGN_OR_RETURN(numbers.without.emplace_back(), NumbersWithout(v, of, request));
    }
    AddIntervals(numbers, whole, result);
  }
  const auto of_means = [&](ByLayer OverValues::*of_layers) {
    return numbers.IntervalOf([&](const OverValues& one) { return MeanOf(one.*of_layers); });
  };
  AddPaperQuantitiesOverValues({.explained_variance = of_means(&OverValues::explained_variance),
                                .mean_pairwise_cosine = of_means(&OverValues::mean_pairwise_cosine),
                                .r_squared = of_means(&OverValues::r_squared)},
                               result);
  return absl::OkStatus();
}

}  // namespace valuescope::kinds
