#include "analysis/extraction.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "analysis/statistics.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

bool KnowsTokenNorms(const LabelledActivations& response) {
  return response.num_tokens > 0 && !response.token_norm_sums.empty();
}

absl::Status CheckTokenNorms(const LabelledActivations& response, int64_t num_layers) {
  if (response.num_tokens < 0) return InvalidField("num_tokens", "must not be negative");
  if (response.token_norm_sums.empty()) return absl::OkStatus();
  if (response.num_tokens == 0) return InvalidField("num_tokens", "must be known for token norms");
  if (response.token_norm_sums.size() != static_cast<size_t>(num_layers)) {
    return InvalidField("token_norm_sums", absl::StrCat("has ", response.token_norm_sums.size(),
                                                        " elements, must have ", num_layers));
  }
  if (!AllFinite(response.token_norm_sums)) {
    return InvalidField("token_norm_sums", "must be finite", "NOT_FINITE");
  }
  return absl::OkStatus();
}

absl::Status NotFinite() {
  return InvalidField("mean_activations", "must be finite", "NOT_FINITE");
}

template <typename T>
absl::Status CheckActivations(std::span<const T> activations, int64_t num_layers, int64_t width) {
  if (activations.size() != static_cast<size_t>(num_layers * width)) {
    return InvalidField("mean_activations",
                        absl::StrCat("has ", activations.size(), " elements, must have ",
                                     num_layers, " x ", width));
  }
  return AllFinite(activations) ? absl::OkStatus() : NotFinite();
}

absl::Status CheckActivations(const StoredActivations& activations, int64_t num_layers,
                              int64_t width) {
  std::vector<float> row(width);
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    VS_RETURN_IF_ERROR(activations.reader->Read(activations.response, layer, /*begin=*/0, row));
    if (!AllFinite(row)) return NotFinite();
  }
  return absl::OkStatus();
}

// `out` of the coordinates that begin at `begin` of a layer.
template <typename T>
absl::Status Widen(std::span<const T> activations, int64_t layer, int64_t width, int64_t begin,
                   std::span<double> out) {
  const auto source = activations.subspan(layer * width + begin, out.size());
  std::copy(source.begin(), source.end(), out.begin());
  return absl::OkStatus();
}

absl::Status Widen(const StoredActivations& activations, int64_t layer, int64_t /*width*/,
                   int64_t begin, std::span<double> out) {
  std::vector<float> part(out.size());
  VS_RETURN_IF_ERROR(activations.reader->Read(activations.response, layer, begin, part));
  std::copy(part.begin(), part.end(), out.begin());
  return absl::OkStatus();
}

absl::Status CheckResponse(const LabelledActivations& response, int64_t num_layers, int64_t width,
                           bool weigh_by_tokens) {
  VS_RETURN_IF_ERROR(CheckTokenNorms(response, num_layers));
  if (weigh_by_tokens && response.num_tokens == 0) {
    return InvalidField("num_tokens", "must be known to weigh responses by it");
  }
  return std::visit(
      [&](const auto& activations) { return CheckActivations(activations, num_layers, width); },
      response.mean_activations);
}

// Half of each query: those that have both labels alternate, those that have one alone do within
// it. The latter begin where one of the former would be next, so that a single one finds its
// counterparts in the other half.
std::vector<int> HalvesOf(const Grouping& grouping) {
  int64_t with_both = 0;
  for (int64_t q = 0; q < grouping.num_queries; ++q) with_both += grouping.HasBoth(q);
  int64_t next_with_both = 0;
  std::array<int64_t, 2> next_alone = {with_both, with_both};
  std::vector<int> halves;
  for (int64_t q = 0; q < grouping.num_queries; ++q) {
    int64_t& next =
        grouping.HasBoth(q) ? next_with_both : next_alone[grouping.query_sizes[q][1] > 0];
    halves.push_back(static_cast<int>(next++ % 2));
  }
  return halves;
}

std::vector<int64_t> PlacesOf(const Grouping& grouping) {
  std::vector<int64_t> order(grouping.num_queries);
  std::iota(order.begin(), order.end(), 0);
  const auto rank = [&](int64_t query) {
    const auto& sizes = grouping.query_sizes[query];
    return (sizes[0] > 0) - (sizes[1] > 0);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return rank(a) < rank(b); });
  std::vector<int64_t> places(order.size());
  for (size_t i = 0; i < order.size(); ++i) places[order[i]] = static_cast<int64_t>(i);
  return places;
}

absl::StatusOr<double> HeldOutAuroc(Responses responses, const Grouping& grouping, int64_t layer,
                                    const HalfVectors& half_vectors) {
  std::array<std::array<std::vector<double>, 2>, 2> scores;  // [half][label]
  std::vector<double> row(half_vectors[0].size());
  for (size_t r = 0; r < responses.size(); ++r) {
    VS_RETURN_IF_ERROR(ReadRow(responses[r], layer, row));
    const int half = grouping.half[r];
    scores[half][LabelIndex(responses[r])].push_back(InnerProduct(row, half_vectors[1 - half]));
  }
  return (*AreaUnderRoc(scores[0][1], scores[0][0]) + *AreaUnderRoc(scores[1][1], scores[1][0])) /
         2;
}

}  // namespace

int LabelIndex(const LabelledActivations& response) { return response.expresses ? 1 : 0; }

absl::Status CheckResponses(Responses responses, int64_t num_layers, int64_t width,
                            bool weigh_by_tokens) {
  if (num_layers < 1 || width < 1 || num_layers > std::numeric_limits<int64_t>::max() / width) {
    return InvalidField("responses", "must have at least one layer and one coordinate");
  }
  std::array<bool, 2> has_label = {false, false};
  for (size_t r = 0; r < responses.size(); ++r) {
    if (absl::Status status = CheckResponse(responses[r], num_layers, width, weigh_by_tokens);
        !status.ok()) {
      return InField(absl::StrCat("responses[", r, "]"), status);
    }
    has_label[LabelIndex(responses[r])] = true;
  }
  if (!has_label[0] || !has_label[1]) {
    return InvalidField("responses",
                        absl::StrCat("must hold at least one response that ",
                                     has_label[1] ? "does not express" : "expresses", " the value"),
                        "EMPTY_LABEL");
  }
  return absl::OkStatus();
}

Grouping GroupingOf(Responses responses, bool weigh_by_tokens) {
  Grouping out;
  std::unordered_map<std::string, int64_t> query_of_id;
  for (const LabelledActivations& response : responses) {
    int64_t query = out.num_queries;
    if (!response.query_id.empty()) {
      query = query_of_id.try_emplace(response.query_id, query).first->second;
    }
    if (query == out.num_queries) {
      ++out.num_queries;
      out.query_sizes.push_back({0, 0});
      out.query_weights.push_back({0, 0});
    }
    const int label = LabelIndex(response);
    out.query.push_back(query);
    out.label_queries[label] += out.query_sizes[query][label] == 0;
    ++out.query_sizes[query][label];
    ++out.label_sizes[label];
    const double weight = weigh_by_tokens ? static_cast<double>(response.num_tokens) : 1.0;
    out.weight.push_back(weight);
    out.query_weights[query][label] += weight;
    out.label_weights[label] += weight;
  }
  out.place = PlacesOf(out);
  const std::vector<int> halves = HalvesOf(out);
  for (const int64_t query : out.query) out.half.push_back(halves[query]);
  return out;
}

ValueVectors CountsOf(Responses responses, const Grouping& grouping) {
  ValueVectors out;
  out.num_queries = grouping.num_queries;
  for (int64_t q = 0; q < grouping.num_queries; ++q) out.num_pairs += grouping.HasBoth(q);
  out.relative_norm_over_tokens = std::all_of(responses.begin(), responses.end(), KnowsTokenNorms);
  out.num_expressing = grouping.label_sizes[1];
  out.num_non_expressing = grouping.label_sizes[0];
  return out;
}

absl::Status ReadPart(const LabelledActivations& response, int64_t layer, int64_t width,
                      int64_t begin, std::span<double> out) {
  return std::visit(
      [&](const auto& activations) { return Widen(activations, layer, width, begin, out); },
      response.mean_activations);
}

void SetHalfAgreement(const HalfVectors& halves, LayerVector& out) {
  const double norms = Norm(halves[0]) * Norm(halves[1]);
  if (norms == 0) {
    for (const auto* name : {"split_half_cosine", "reliability"}) {
      out.absent.push_back({name, Absence::kZeroVector});
    }
    return;
  }
  out.split_half_cosine = InnerProduct(halves[0], halves[1]) / norms;
  out.reliability = SpearmanBrown(*out.split_half_cosine);
  if (!out.reliability) out.absent.push_back({"reliability", Absence::kOppositeHalves});
}

absl::Status SetHeldOutStatistics(Responses responses, const Grouping& grouping, int64_t layer,
                                  const HalfVectors& halves, LayerVector& out) {
  VS_ASSIGN_OR_RETURN(out.auroc, HeldOutAuroc(responses, grouping, layer, halves));
  SetHalfAgreement(halves, out);
  return absl::OkStatus();
}

void SetNoHeldOutStatistics(Absence why, LayerVector& out) {
  for (const auto* name : {"split_half_cosine", "reliability", "auroc"}) {
    out.absent.push_back({name, why});
  }
}

void SetNoLengthStatistics(bool intervals, LayerVector& out) {
  for (const auto* name : {"relative_norm", "debiased_squared_norm", "clustered_squared_norm"}) {
    out.absent.push_back({name, Absence::kMethod});
  }
  if (!intervals) return;
  for (const auto* name : {"squared_norm_interval", "norm_interval"}) {
    out.absent.push_back({name, Absence::kMethod});
  }
}

absl::Status ExtractionCancelled() { return absl::CancelledError("the statistics were cancelled"); }

absl::StatusOr<ValueVectors> WithLayers(
    ValueVectors out, int64_t num_layers, const Cancellation& cancellation,
    const std::function<absl::StatusOr<LayerVector>(int64_t layer)>& compute) {
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    if (cancellation.cancelled()) return ExtractionCancelled();
    VS_ASSIGN_OR_RETURN(LayerVector vector, compute(layer));
    out.layers.push_back(std::move(vector));
  }
  return out;
}

}  // namespace valuescope::analysis
