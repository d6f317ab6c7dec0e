#include "analysis/principal_direction.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "analysis/largest_eigenvector.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

// Of all responses, and of each half that is to have a vector.
int64_t FewestPairs(bool centered) { return centered ? 2 : 1; }

// Differences of pairs, [pairs, width] row-major.
struct PairDifferences {
  int64_t width = 1;
  std::vector<double> numbers;

  int64_t count() const { return static_cast<int64_t>(numbers.size()) / width; }
  std::span<const double> of(int64_t pair) const {
    return std::span<const double>(numbers).subspan(pair * width, width);
  }
  std::span<double> of(int64_t pair) {
    return std::span<double>(numbers).subspan(pair * width, width);
  }
};

// Of the pairs in `half`, or of all without one.
absl::StatusOr<PairDifferences> DifferencesOf(Responses responses, const Grouping& grouping,
                                              int64_t layer, int64_t width,
                                              std::optional<int> half) {
  std::vector<int64_t> pair_of_query(grouping.num_queries, -1);
  int64_t count = 0;
  for (size_t r = 0; r < responses.size(); ++r) {
    const int64_t query = grouping.query[r];
    if (!grouping.HasBoth(query) || (half && grouping.half[r] != *half)) continue;
    if (pair_of_query[query] < 0) pair_of_query[query] = count++;
  }
  PairDifferences out = {.width = width, .numbers = std::vector<double>(count * width, 0.0)};
  std::vector<double> row(width);
  for (size_t r = 0; r < responses.size(); ++r) {
    const int64_t query = grouping.query[r];
    if (pair_of_query[query] < 0) continue;
    const int label = LabelIndex(responses[r]);
    VS_RETURN_IF_ERROR(ReadRow(responses[r], layer, row));
    const double share = grouping.weight[r] / grouping.query_weights[query][label];
    AddScaled(row, label == 1 ? share : -share, out.of(pair_of_query[query]));
  }
  return out;
}

std::vector<double> MeanOf(const PairDifferences& differences) {
  std::vector<double> mean(differences.width, 0.0);
  const double share = 1.0 / static_cast<double>(differences.count());
  for (int64_t p = 0; p < differences.count(); ++p) AddScaled(differences.of(p), share, mean);
  return mean;
}

// <d_p, x>, [pairs].
std::vector<double> Along(const PairDifferences& differences, std::span<const double> x) {
  return MatrixProduct(differences.numbers, x);
}

// sum_p s_p d_p, [width].
std::vector<double> Combined(const PairDifferences& differences, std::span<const double> s) {
  std::vector<double> out(differences.width, 0.0);
  for (int64_t p = 0; p < differences.count(); ++p) AddScaled(differences.of(p), s[p], out);
  return out;
}

struct Component {
  std::vector<double> vector;  // [width], unit; zeros where the differences are zero
  double explained = 0;        // share of the summed squares
  bool settled = true;
};

// Along the smaller side: the inner products of pairs, or the products of coordinates.
absl::StatusOr<Component> ComponentOf(PairDifferences differences, bool centered,
                                      const Cancellation& cancellation) {
  const std::vector<double> mean = MeanOf(differences);
  double before = 0, squares = 0;
  for (int64_t p = 0; p < differences.count(); ++p) {
    before += InnerProduct(differences.of(p), differences.of(p));
    if (centered) AddScaled(mean, -1, differences.of(p));
    squares += InnerProduct(differences.of(p), differences.of(p));
  }
  Component out = {.vector = std::vector<double>(differences.width, 0.0)};
  // Equal differences less their mean are rounding.
  constexpr double kRounding = 1e-28;
  if (squares <= kRounding * before) return out;
  const bool by_pairs = differences.count() <= differences.width;
  const auto multiply = [&](std::span<const double> x) {
    return by_pairs ? Along(differences, Combined(differences, x))
                    : Combined(differences, Along(differences, x));
  };
  VS_ASSIGN_OR_RETURN(
      Eigenpair largest,
      LargestEigenpair(std::min(differences.count(), differences.width), multiply, cancellation));
  out.vector = by_pairs ? Combined(differences, largest.vector) : std::move(largest.vector);
  const double norm = Norm(out.vector) * (InnerProduct(out.vector, mean) < 0 ? -1 : 1);
  for (double& element : out.vector) element /= norm;
  out.explained = std::min(largest.value / squares, 1.0);
  out.settled = largest.settled;
  return out;
}

absl::Status SetHalves(Responses responses, const Grouping& grouping, int64_t layer, int64_t width,
                       bool centered, const Cancellation& cancellation, LayerVector& out) {
  HalfVectors halves;
  for (const int half : {0, 1}) {
    VS_ASSIGN_OR_RETURN(PairDifferences differences,
                        DifferencesOf(responses, grouping, layer, width, half));
    if (differences.count() < FewestPairs(centered)) {
      SetNoHeldOutStatistics(Absence::kFewPairs, out);
      return absl::OkStatus();
    }
    VS_ASSIGN_OR_RETURN(Component component,
                        ComponentOf(std::move(differences), centered, cancellation));
    halves[half] = std::move(component.vector);
  }
  return SetHeldOutStatistics(responses, grouping, layer, halves, out);
}

absl::StatusOr<LayerVector> ComputeLayer(Responses responses, const Grouping& grouping,
                                         int64_t layer, int64_t width,
                                         const PrincipalDirectionOptions& options,
                                         const Cancellation& cancellation) {
  VS_ASSIGN_OR_RETURN(PairDifferences differences,
                      DifferencesOf(responses, grouping, layer, width, /*half=*/std::nullopt));
  VS_ASSIGN_OR_RETURN(const Component component,
                      ComponentOf(std::move(differences), options.centered, cancellation));
  LayerVector out;
  out.vector.assign(component.vector.begin(), component.vector.end());
  out.norm = Norm(component.vector);
  out.settled = component.settled;
  if (out.norm > 0) {
    out.explained_variance = component.explained;
  } else {
    out.absent.push_back({"explained_variance", Absence::kZeroVector});
  }
  SetNoLengthStatistics(options.intervals, out);
  VS_RETURN_IF_ERROR(
      SetHalves(responses, grouping, layer, width, options.centered, cancellation, out));
  return out;
}

}  // namespace

absl::Status CheckPairs(Responses responses, bool centered) {
  const Grouping grouping = GroupingOf(responses, /*weigh_by_tokens=*/false);
  const int64_t pairs = CountsOf(responses, grouping).num_pairs;
  if (pairs >= FewestPairs(centered)) return absl::OkStatus();
  return InvalidField(
      "responses",
      absl::StrCat("must hold at least ", FewestPairs(centered), centered ? " queries" : " query",
                   " with responses of both labels, have ", pairs,
                   "; responses of one query share its query_id"),
      "TOO_FEW_PAIRS");
}

int64_t PrincipalDirectionsBytes(int64_t pairs, int64_t width) {
  const int64_t side = std::min(pairs, width);
  return static_cast<int64_t>(sizeof(double)) *
         (pairs * width + std::min(side, kMostLanczosVectors) * side);
}

absl::StatusOr<ValueVectors> ComputePrincipalDirections(Responses responses, int64_t num_layers,
                                                        int64_t width,
                                                        const PrincipalDirectionOptions& options,
                                                        const Cancellation& cancellation) {
  VS_RETURN_IF_ERROR(CheckResponses(responses, num_layers, width, options.weigh_by_tokens));
  VS_RETURN_IF_ERROR(CheckPairs(responses, options.centered));
  const Grouping grouping = GroupingOf(responses, options.weigh_by_tokens);
  return WithLayers(CountsOf(responses, grouping), num_layers, cancellation, [&](int64_t layer) {
    return ComputeLayer(responses, grouping, layer, width, options, cancellation);
  });
}

}  // namespace valuescope::analysis
