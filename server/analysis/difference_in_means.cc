#include "analysis/difference_in_means.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "analysis/moments.h"
#include "analysis/statistics.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

using Responses = std::span<const LabelledActivations>;

// Clusters that the intervals' widths are estimated from: more say hardly more.
constexpr int64_t kMostClusters = 256;
// Coordinates whose queries are summed at a time: of whole rows the sums would take several times
// the room of the activations themselves.
constexpr int64_t kCoordinateSlab = 1024;

int LabelIndex(const LabelledActivations& response) { return response.expresses ? 1 : 0; }

bool KnowsTokenNorms(const LabelledActivations& response) {
  return response.num_tokens > 0 && !response.token_norm_sums.empty();
}

absl::Status CheckOptions(const DifferenceInMeansOptions& options) {
  if (options.interval_level >= 0.9 && options.interval_level < 1) return absl::OkStatus();
  return InvalidField("options.interval_level", "must be at least 0.9 and below 1", "OUT_OF_RANGE");
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
  std::vector<int64_t> query;  // [num_responses] in order of first appearance
  std::vector<int> half;       // [num_responses] 0 or 1
  // [num_queries] responses of each label
  std::vector<std::array<int64_t, 2>> query_sizes;
  std::array<int64_t, 2> label_sizes = {0, 0};
  std::array<int64_t, 2> label_queries = {0, 0};  // that have a response of the label
  // [num_queries] place of each query where those that only express come first and those that only
  // do not come last: neighbours of a label, so that several of them are in several clusters.
  std::vector<int64_t> place;

  // Whether responses of either label answer more than one query.
  bool independent() const { return label_queries[0] > 1 && label_queries[1] > 1; }
};

// Half of each query: those that have both labels alternate, those that have one alone do within
// it. The latter begin where one of the former would be next, so that a single one finds its
// counterparts in the other half.
std::vector<int> HalvesOf(const Grouping& grouping) {
  int64_t with_both = 0;
  for (const auto& sizes : grouping.query_sizes) with_both += sizes[0] > 0 && sizes[1] > 0;
  int64_t next_with_both = 0;
  std::array<int64_t, 2> next_alone = {with_both, with_both};
  std::vector<int> halves;
  for (const auto& sizes : grouping.query_sizes) {
    const bool both = sizes[0] > 0 && sizes[1] > 0;
    int64_t& next = both ? next_with_both : next_alone[sizes[1] > 0];
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

Grouping Group(Responses responses) {
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
    }
    const int label = LabelIndex(response);
    out.query.push_back(query);
    out.label_queries[label] += out.query_sizes[query][label] == 0;
    ++out.query_sizes[query][label];
    ++out.label_sizes[label];
  }
  out.place = PlacesOf(out);
  const std::vector<int> halves = HalvesOf(out);
  for (const int64_t query : out.query) out.half.push_back(halves[query]);
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

std::vector<double> Difference(std::span<const double> a, std::span<const double> b) {
  std::vector<double> out(a.size());
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] - b[i];
  return out;
}

absl::Status Cancelled() { return absl::CancelledError("the statistics were cancelled"); }

// The queries, taken together where there are more than `most`.
class Clusters {
 public:
  Clusters(const Grouping& grouping, int64_t most)
      : grouping_(grouping), size_(std::min(grouping.num_queries, most)) {
    shares_.assign(size_, {0, 0});
    for (int64_t q = 0; q < grouping.num_queries; ++q) {
      for (const int label : {0, 1}) {
        shares_[Of(q)][label] += static_cast<double>(grouping.query_sizes[q][label]) /
                                 static_cast<double>(grouping.label_sizes[label]);
      }
    }
  }

  int64_t size() const { return size_; }

  // What responses of `label` give to e_c, [size, slab.size]. `mean` is the label's, [width].
  std::vector<double> Vectors(Responses responses, int label, std::span<const double> mean,
                              const Slab& slab) const {
    std::vector<double> out(size_ * slab.size, 0.0);
    for (size_t r = 0; r < responses.size(); ++r) {
      if (LabelIndex(responses[r]) != label) continue;
      const int64_t cluster = Of(grouping_.query[r]);
      const double scale = (label == 1 ? 1 : -1) / std::sqrt(1 - shares_[cluster][label]) /
                           static_cast<double>(grouping_.label_sizes[label]);
      double* sum = out.data() + cluster * slab.size;
      const double* center = mean.data() + slab.begin;
      std::visit(
          [&](const auto activations) {
            const auto* source = activations.data() + slab.layer * slab.width + slab.begin;
            for (int64_t i = 0; i < slab.size; ++i) sum[i] += scale * (source[i] - center[i]);
          },
          responses[r].mean_activations);
    }
    return out;
  }

  // Degrees of freedom of sum e_c e_c' by Satterthwaite, from the traces of what either label gives
  // to it.
  double Freedom(const std::array<double, 2>& traces) const {
    std::array<double, 2> squares = {0, 0};
    for (const auto& share : shares_) {
      for (const int label : {0, 1}) squares[label] += share[label] * share[label];
    }
    double sum = 0, sum_of_squares = 0;
    for (const auto& share : shares_) {
      double weight = 0;
      for (const int label : {0, 1}) {
        weight += traces[label] * share[label] * share[label] / squares[label];
      }
      sum += weight;
      sum_of_squares += weight * weight / (1 - std::max(share[0], share[1]));
    }
    return sum_of_squares > 0 ? sum * sum / sum_of_squares : 1;
  }

 private:
  int64_t Of(int64_t query) const { return grouping_.place[query] % size_; }

  const Grouping& grouping_;
  const int64_t size_;
  std::vector<std::array<double, 2>> shares_;  // [size][label] of the label's responses
};

// Of the vectors e_c of one layer.
struct ClusterSums {
  std::array<double, 2> label_traces = {0, 0};  // of either label's part
  double trace = 0;                             // sum |e_c|^2
  std::vector<double> gram;                     // [clusters, clusters] <e_c, e_d>
  std::vector<double> along;                    // [clusters] <e_c, v>
};

// Adds a slab's inner products to the lower triangle.
absl::Status AddProducts(const std::vector<double>& vectors, int64_t clusters, int64_t size,
                         const Cancellation& cancellation, std::vector<double>& gram) {
  const auto row = [&](int64_t c) {
    return std::span<const double>(vectors).subspan(c * size, size);
  };
  for (int64_t c = 0; c < clusters; ++c) {
    if (cancellation.cancelled()) return Cancelled();
    for (int64_t d = 0; d <= c; ++d) gram[c * clusters + d] += InnerProduct(row(c), row(d));
  }
  return absl::OkStatus();
}

// `means` are the labels', [width] each, and `vector` is their difference. Without `products` the
// traces alone.
absl::StatusOr<ClusterSums> SumClusters(Responses responses, const Clusters& clusters,
                                        int64_t layer,
                                        const std::array<std::span<const double>, 2>& means,
                                        std::span<const double> vector, bool products,
                                        const Cancellation& cancellation) {
  const int64_t width = static_cast<int64_t>(vector.size()), count = clusters.size();
  ClusterSums out;
  if (products) {
    out.gram.assign(count * count, 0.0);
    out.along.assign(count, 0.0);
  }
  for (int64_t begin = 0; begin < width; begin += kCoordinateSlab) {
    if (cancellation.cancelled()) return Cancelled();
    const Slab slab = {.layer = layer,
                       .width = width,
                       .begin = begin,
                       .size = std::min(kCoordinateSlab, width - begin)};
    std::vector<double> vectors = clusters.Vectors(responses, 0, means[0], slab);
    out.label_traces[0] += InnerProduct(vectors, vectors);
    const std::vector<double> expressing = clusters.Vectors(responses, 1, means[1], slab);
    out.label_traces[1] += InnerProduct(expressing, expressing);
    for (size_t i = 0; i < vectors.size(); ++i) vectors[i] += expressing[i];
    out.trace += InnerProduct(vectors, vectors);
    if (!products) continue;
    for (int64_t c = 0; c < count; ++c) {
      out.along[c] +=
          InnerProduct(std::span<const double>(vectors).subspan(c * slab.size, slab.size),
                       vector.subspan(begin, slab.size));
    }
    VS_RETURN_IF_ERROR(AddProducts(vectors, count, slab.size, cancellation, out.gram));
  }
  if (!products) return out;
  for (int64_t c = 0; c < count; ++c) {
    for (int64_t d = 0; d < c; ++d) out.gram[d * count + c] = out.gram[c * count + d];
  }
  return out;
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

// The vectors of the two halves, which have both labels.
std::array<std::vector<double>, 2> HalfVectors(const LayerSums& sums) {
  return {Difference(sums.moments[0][1].mean(), sums.moments[0][0].mean()),
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
  if (!out.expressing_covariance_trace) {
    out.absent.push_back({"expressing_covariance_trace", Absence::kOneResponse});
  }
  if (!out.non_expressing_covariance_trace) {
    out.absent.push_back({"non_expressing_covariance_trace", Absence::kOneResponse});
  }
  if (!out.expressing_covariance_trace || !out.non_expressing_covariance_trace) {
    out.absent.push_back({"debiased_squared_norm", Absence::kOneResponse});
    return;
  }
  out.debiased_squared_norm =
      out.norm * out.norm -
      *out.expressing_covariance_trace / static_cast<double>(expressing.count()) -
      *out.non_expressing_covariance_trace / static_cast<double>(non_expressing.count());
}

void SetHeldOutStatistics(Responses responses, const Grouping& grouping, int64_t layer,
                          const LayerSums& sums, LayerDifference& out) {
  if (!grouping.independent()) {
    for (const auto* name : {"split_half_cosine", "reliability", "auroc"}) {
      out.absent.push_back({name, Absence::kOneQuery});
    }
    return;
  }
  const std::array<std::vector<double>, 2> halves = HalfVectors(sums);
  out.auroc = HeldOutAuroc(responses, grouping, layer, halves);
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

// `means` are the labels', `vector` is their difference.
absl::Status SetClusteredStatistics(Responses responses, const Grouping& grouping, int64_t layer,
                                    const std::array<std::span<const double>, 2>& means,
                                    std::span<const double> vector,
                                    const DifferenceInMeansOptions& options,
                                    const Cancellation& cancellation, LayerDifference& out) {
  if (!grouping.independent()) {
    out.absent.push_back({"clustered_squared_norm", Absence::kOneQuery});
    if (!options.intervals) return absl::OkStatus();
    out.absent.push_back({"squared_norm_interval", Absence::kOneQuery});
    out.absent.push_back({"norm_interval", Absence::kOneQuery});
    return absl::OkStatus();
  }
  const Clusters clusters(grouping, options.intervals ? kMostClusters : grouping.num_queries);
  VS_ASSIGN_OR_RETURN(const ClusterSums sums, SumClusters(responses, clusters, layer, means, vector,
                                                          options.intervals, cancellation));
  double noise = sums.trace;
  if (clusters.size() < grouping.num_queries) {
    VS_ASSIGN_OR_RETURN(const ClusterSums queries,
                        SumClusters(responses, Clusters(grouping, grouping.num_queries), layer,
                                    means, vector, /*products=*/false, cancellation));
    noise = queries.trace;
  }
  out.clustered_squared_norm = out.norm * out.norm - noise;
  if (!options.intervals) return absl::OkStatus();
  const std::vector<double> turned = MatrixProduct(sums.gram, sums.along);
  out.squared_norm_interval = SquaredNormInterval(
      {.estimate = *out.clustered_squared_norm,
       .observed = out.norm * out.norm,
       .once = InnerProduct(sums.along, sums.along),
       .twice = InnerProduct(sums.along, turned)},
      EstimateCovariance(sums.gram, clusters.size(), static_cast<int64_t>(vector.size()),
                         clusters.Freedom(sums.label_traces)),
      options.interval_level);
  out.norm_interval = {.lower = std::sqrt(std::max(out.squared_norm_interval->lower, 0.0)),
                       .upper = std::sqrt(std::max(out.squared_norm_interval->upper, 0.0)),
                       .level = options.interval_level};
  return absl::OkStatus();
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
  } else {
    out.absent.push_back({"relative_norm", Absence::kZeroActivations});
  }
  SetDebiasedSquaredNorm(moments[1], moments[0], out);
  SetHeldOutStatistics(responses, grouping, layer, sums, out);
  VS_RETURN_IF_ERROR(SetClusteredStatistics(responses, grouping, layer,
                                            {moments[0].mean(), moments[1].mean()}, vector, options,
                                            cancellation, out));
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
  out.num_expressing = grouping.label_sizes[1];
  out.num_non_expressing = grouping.label_sizes[0];
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
