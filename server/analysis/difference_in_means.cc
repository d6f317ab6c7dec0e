#include "analysis/difference_in_means.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "analysis/moments.h"
#include "analysis/statistics.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

using Responses = std::span<const LabelledActivations>;

constexpr int kMaxResamples = 10000;
// Resamples drawn together, and coordinates summed together, so that the sums stay in cache.
constexpr int kResampleBatch = 16;
constexpr int64_t kCoordinateBlock = 64;
// Coordinates whose cells are summed at a time: of whole rows the sums would take twice the room of
// the activations themselves.
constexpr int64_t kCoordinateSlab = 16 * kCoordinateBlock;

int LabelIndex(const LabelledActivations& response) { return response.expresses ? 1 : 0; }

bool KnowsTokenNorms(const LabelledActivations& response) {
  return response.num_tokens > 0 && !response.token_norm_sums.empty();
}

absl::Status CheckOptions(const DifferenceInMeansOptions& options) {
  if (options.bootstrap_resamples < 0 || options.bootstrap_resamples > kMaxResamples) {
    return OutOfRange("options.bootstrap_resamples", options.bootstrap_resamples, 0, kMaxResamples);
  }
  if (!(options.interval_level > 0 && options.interval_level < 1)) {
    return InvalidField("options.interval_level", "must be above 0 and below 1", "OUT_OF_RANGE");
  }
  return absl::OkStatus();
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

absl::Status CheckResponse(const LabelledActivations& response, int64_t num_layers, int64_t width) {
  VS_RETURN_IF_ERROR(CheckTokenNorms(response, num_layers));
  return std::visit(
      [&](const auto activations) -> absl::Status {
        if (activations.size() != static_cast<size_t>(num_layers * width)) {
          return InvalidField("mean_activations",
                              absl::StrCat("has ", activations.size(), " elements, must have ",
                                           num_layers, " x ", width));
        }
        if (!AllFinite(activations)) {
          return InvalidField("mean_activations", "must be finite", "NOT_FINITE");
        }
        return absl::OkStatus();
      },
      response.mean_activations);
}

absl::Status CheckInput(Responses responses, int64_t num_layers, int64_t width) {
  if (num_layers < 1 || width < 1 || num_layers > std::numeric_limits<int64_t>::max() / width) {
    return InvalidField("responses", "must have at least one layer and one coordinate");
  }
  std::array<bool, 2> has_label = {false, false};
  for (size_t r = 0; r < responses.size(); ++r) {
    if (absl::Status status = CheckResponse(responses[r], num_layers, width); !status.ok()) {
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

// How the responses divide, the same for all layers.
struct Grouping {
  int64_t num_queries = 0;
  std::vector<int> half;  // [num_responses] 0 or 1
  // A cell is the responses of one query and one label; resampling queries needs only their sums.
  std::vector<int64_t> cell;        // [num_responses] index of the response's cell
  std::vector<int64_t> cell_query;  // [num_cells]
  std::vector<int> cell_label;      // [num_cells]
  std::vector<int64_t> cell_size;   // [num_cells] number of responses
};

Grouping Group(Responses responses) {
  Grouping out;
  std::unordered_map<std::string, int64_t> query_of_id;
  std::vector<int64_t> query(responses.size());
  for (size_t r = 0; r < responses.size(); ++r) {
    query[r] = out.num_queries;
    if (!responses[r].query_id.empty()) {
      query[r] = query_of_id.try_emplace(responses[r].query_id, out.num_queries).first->second;
    }
    if (query[r] == out.num_queries) ++out.num_queries;
  }

  const bool one_response_a_query = out.num_queries == static_cast<int64_t>(responses.size());
  std::array<int64_t, 2> seen = {0, 0};  // by label
  std::vector<std::array<int64_t, 2>> cell_of(out.num_queries, {-1, -1});
  for (size_t r = 0; r < responses.size(); ++r) {
    const int label = LabelIndex(responses[r]);
    out.half.push_back(static_cast<int>((one_response_a_query ? seen[label]++ : query[r]) % 2));
    int64_t& cell = cell_of[query[r]][label];
    if (cell < 0) {
      cell = static_cast<int64_t>(out.cell_size.size());
      out.cell_query.push_back(query[r]);
      out.cell_label.push_back(label);
      out.cell_size.push_back(0);
    }
    ++out.cell_size[cell];
    out.cell.push_back(cell);
  }
  return out;
}

// a(r) of one layer, [width], in float64.
void ReadRow(const LabelledActivations& response, int64_t layer, std::vector<double>& row) {
  std::visit(
      [&](const auto activations) {
        const auto source = activations.subspan(layer * row.size(), row.size());
        std::copy(source.begin(), source.end(), row.begin());
      },
      response.mean_activations);
}

// Coordinates begin .. begin + size - 1 of one layer.
struct Slab {
  int64_t layer = 0;
  int64_t width = 0;  // of the layer
  int64_t begin = 0;
  int64_t size = 0;
};

// Sum of a(r) over the responses of each cell: [num_cells, slab.size], in float64.
std::vector<double> CellSums(Responses responses, const Grouping& grouping, const Slab& slab) {
  std::vector<double> sums(grouping.cell_size.size() * slab.size, 0.0);
  for (size_t r = 0; r < responses.size(); ++r) {
    double* sum = sums.data() + grouping.cell[r] * slab.size;
    std::visit(
        [&](const auto activations) {
          const auto* source = activations.data() + slab.layer * slab.width + slab.begin;
          for (int64_t i = 0; i < slab.size; ++i) sum[i] += source[i];
        },
        responses[r].mean_activations);
  }
  return sums;
}

std::vector<double> Difference(std::span<const double> a, std::span<const double> b) {
  std::vector<double> out(a.size());
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] - b[i];
  return out;
}

// Draws queries with replacement, again where a label is missing. The same seed gives the same
// draws for every layer, and every slab of it.
class QueryResampler {
 public:
  QueryResampler(const Grouping& grouping, uint64_t seed) : grouping_(grouping), random_(seed) {}

  // Signed weight of each cell's sum in a resampled difference in means: [num_cells].
  std::vector<double> DrawCellWeights() {
    std::array<int64_t, 2> label_sizes = {0, 0};
    std::vector<int64_t> multiplicity;
    while (label_sizes[0] == 0 || label_sizes[1] == 0) {
      multiplicity.assign(grouping_.num_queries, 0);
      for (int64_t i = 0; i < grouping_.num_queries; ++i) ++multiplicity[DrawQuery()];
      label_sizes = {0, 0};
      for (size_t c = 0; c < grouping_.cell_size.size(); ++c) {
        label_sizes[grouping_.cell_label[c]] +=
            multiplicity[grouping_.cell_query[c]] * grouping_.cell_size[c];
      }
    }
    std::vector<double> weights(grouping_.cell_size.size());
    for (size_t c = 0; c < weights.size(); ++c) {
      const int label = grouping_.cell_label[c];
      const double magnitude = static_cast<double>(multiplicity[grouping_.cell_query[c]]) /
                               static_cast<double>(label_sizes[label]);
      weights[c] = label == 1 ? magnitude : -magnitude;
    }
    return weights;
  }

 private:
  // Rejection instead of std::uniform_int_distribution, whose draws differ between libraries.
  int64_t DrawQuery() {
    const uint64_t n = static_cast<uint64_t>(grouping_.num_queries);
    const uint64_t limit = std::numeric_limits<uint64_t>::max() / n * n;
    uint64_t draw = random_();
    while (draw >= limit) draw = random_();
    return static_cast<int64_t>(draw % n);
  }

  const Grouping& grouping_;
  std::mt19937_64 random_;
};

absl::Status Cancelled() { return absl::CancelledError("the statistics were cancelled"); }

// Adds what a slab contributes to the squared norm of each resampled difference in means:
// `squared_norms` is [resamples].
absl::Status AddSquaredNorms(const Grouping& grouping, const std::vector<double>& cell_sums,
                             int64_t width, uint64_t seed, const Cancellation& cancellation,
                             std::span<double> squared_norms) {
  QueryResampler resampler(grouping, seed);
  for (; !squared_norms.empty(); squared_norms = squared_norms.subspan(
                                     std::min<size_t>(kResampleBatch, squared_norms.size()))) {
    if (cancellation.cancelled()) return Cancelled();
    const int batch = static_cast<int>(std::min<size_t>(kResampleBatch, squared_norms.size()));
    std::vector<std::vector<double>> weights;  // [batch][num_cells]
    for (int b = 0; b < batch; ++b) weights.push_back(resampler.DrawCellWeights());
    for (int64_t begin = 0; begin < width; begin += kCoordinateBlock) {
      const int64_t size = std::min(kCoordinateBlock, width - begin);
      double sums[kResampleBatch][kCoordinateBlock] = {};
      for (size_t c = 0; c < grouping.cell_size.size(); ++c) {
        const double* row = cell_sums.data() + static_cast<int64_t>(c) * width + begin;
        for (int b = 0; b < batch; ++b) {
          const double weight = weights[b][c];
          if (weight == 0) continue;
          for (int64_t i = 0; i < size; ++i) sums[b][i] += weight * row[i];
        }
      }
      for (int b = 0; b < batch; ++b) {
        for (int64_t i = 0; i < size; ++i) squared_norms[b] += sums[b][i] * sums[b][i];
      }
    }
  }
  return absl::OkStatus();
}

// |difference in means| of each resample.
absl::StatusOr<std::vector<double>> BootstrapNorms(Responses responses, const Grouping& grouping,
                                                   int64_t layer, int64_t width,
                                                   const DifferenceInMeansOptions& options,
                                                   const Cancellation& cancellation) {
  std::vector<double> norms(options.bootstrap_resamples, 0.0);
  for (int64_t begin = 0; begin < width; begin += kCoordinateSlab) {
    const Slab slab = {.layer = layer,
                       .width = width,
                       .begin = begin,
                       .size = std::min(kCoordinateSlab, width - begin)};
    VS_RETURN_IF_ERROR(AddSquaredNorms(grouping, CellSums(responses, grouping, slab), slab.size,
                                       options.seed, cancellation, norms));
  }
  for (double& norm : norms) norm = std::sqrt(norm);
  return norms;
}

// Sums over the responses of one layer, one pass.
struct LayerSums {
  std::array<std::array<VectorMoments, 2>, 2> moments;  // [half][label]
  double response_norms = 0;                            // sum of |a(r)|
};

absl::StatusOr<LayerSums> SumLayer(Responses responses, const Grouping& grouping, int64_t layer,
                                   int64_t width) {
  LayerSums out;
  for (auto& half : out.moments) half.fill(VectorMoments(width));
  std::vector<double> row(width);
  for (size_t r = 0; r < responses.size(); ++r) {
    ReadRow(responses[r], layer, row);
    VectorMoments& moments = out.moments[grouping.half[r]][LabelIndex(responses[r])];
    VS_RETURN_IF_ERROR(moments.Add(std::span<const double>(row)));
    out.response_norms += Norm(row);
  }
  return out;
}

// The vectors of the two halves; absent unless both halves have both labels.
std::optional<std::array<std::vector<double>, 2>> HalfVectors(const LayerSums& sums) {
  for (const auto& half : sums.moments) {
    if (half[0].count() == 0 || half[1].count() == 0) return std::nullopt;
  }
  return std::array<std::vector<double>, 2>{
      Difference(sums.moments[0][1].mean(), sums.moments[0][0].mean()),
      Difference(sums.moments[1][1].mean(), sums.moments[1][0].mean())};
}

double HeldOutAuroc(Responses responses, const Grouping& grouping, int64_t layer,
                    const std::array<std::vector<double>, 2>& half_vectors) {
  std::array<std::array<std::vector<double>, 2>, 2> scores;  // [half][label]
  std::vector<double> row(half_vectors[0].size());
  for (size_t r = 0; r < responses.size(); ++r) {
    ReadRow(responses[r], layer, row);
    const int half = grouping.half[r];
    scores[half][LabelIndex(responses[r])].push_back(InnerProduct(row, half_vectors[1 - half]));
  }
  return (*AreaUnderRoc(scores[0][1], scores[0][0]) + *AreaUnderRoc(scores[1][1], scores[1][0])) /
         2;
}

double MeanNorm(Responses responses, int64_t layer, bool over_tokens, double response_norms) {
  if (!over_tokens) return response_norms / static_cast<double>(responses.size());
  double sum = 0;
  double num_tokens = 0;
  for (const LabelledActivations& response : responses) {
    sum += response.token_norm_sums[layer];
    num_tokens += static_cast<double>(response.num_tokens);
  }
  return sum / num_tokens;
}

void SetDebiasedSquaredNorm(const VectorMoments& expressing, const VectorMoments& non_expressing,
                            LayerDifference& out) {
  out.expressing_covariance_trace = expressing.CovarianceTrace();
  out.non_expressing_covariance_trace = non_expressing.CovarianceTrace();
  if (!out.expressing_covariance_trace || !out.non_expressing_covariance_trace) return;
  out.debiased_squared_norm =
      out.norm * out.norm -
      *out.expressing_covariance_trace / static_cast<double>(expressing.count()) -
      *out.non_expressing_covariance_trace / static_cast<double>(non_expressing.count());
}

void SetHeldOutStatistics(Responses responses, const Grouping& grouping, int64_t layer,
                          const LayerSums& sums, LayerDifference& out) {
  const auto halves = HalfVectors(sums);
  if (!halves) return;
  out.auroc = HeldOutAuroc(responses, grouping, layer, *halves);
  const double norms = Norm((*halves)[0]) * Norm((*halves)[1]);
  if (norms == 0) return;
  out.split_half_cosine = InnerProduct((*halves)[0], (*halves)[1]) / norms;
  out.reliability = SpearmanBrown(*out.split_half_cosine);
}

absl::StatusOr<LayerDifference> ComputeLayer(Responses responses, const Grouping& grouping,
                                             int64_t layer, int64_t width, bool over_tokens,
                                             const DifferenceInMeansOptions& options,
                                             const Cancellation& cancellation) {
  VS_ASSIGN_OR_RETURN(const LayerSums sums, SumLayer(responses, grouping, layer, width));
  std::array<VectorMoments, 2> moments = sums.moments[0];  // [label]
  for (int label : {0, 1}) VS_RETURN_IF_ERROR(moments[label].Merge(sums.moments[1][label]));

  LayerDifference out;
  const std::vector<double> vector = Difference(moments[1].mean(), moments[0].mean());
  out.vector.assign(vector.begin(), vector.end());
  out.norm = Norm(vector);
  if (const double mean_norm = MeanNorm(responses, layer, over_tokens, sums.response_norms);
      mean_norm > 0) {
    out.relative_norm = out.norm / mean_norm;
  }
  SetDebiasedSquaredNorm(moments[1], moments[0], out);
  SetHeldOutStatistics(responses, grouping, layer, sums, out);
  if (options.bootstrap_resamples > 0 && grouping.num_queries > 1) {
    VS_ASSIGN_OR_RETURN(const std::vector<double> norms,
                        BootstrapNorms(responses, grouping, layer, width, options, cancellation));
    out.norm_interval = {.lower = *Quantile(norms, (1 - options.interval_level) / 2),
                         .upper = *Quantile(norms, (1 + options.interval_level) / 2),
                         .level = options.interval_level};
  }
  return out;
}

}  // namespace

absl::StatusOr<DifferenceInMeans> ComputeDifferenceInMeans(
    std::span<const LabelledActivations> responses, int64_t num_layers, int64_t width,
    const DifferenceInMeansOptions& options, const Cancellation& cancellation) {
  VS_RETURN_IF_ERROR(CheckOptions(options));
  VS_RETURN_IF_ERROR(CheckInput(responses, num_layers, width));
  const Grouping grouping = Group(responses);
  DifferenceInMeans out;
  out.num_queries = grouping.num_queries;
  out.relative_norm_over_tokens = std::all_of(responses.begin(), responses.end(), KnowsTokenNorms);
  for (const LabelledActivations& response : responses) {
    ++(response.expresses ? out.num_expressing : out.num_non_expressing);
  }
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    if (cancellation.cancelled()) return Cancelled();
    VS_ASSIGN_OR_RETURN(LayerDifference difference,
                        ComputeLayer(responses, grouping, layer, width,
                                     out.relative_norm_over_tokens, options, cancellation));
    out.layers.push_back(std::move(difference));
  }
  return out;
}

}  // namespace valuescope::analysis
