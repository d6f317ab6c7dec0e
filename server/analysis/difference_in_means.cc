#include "analysis/difference_in_means.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "analysis/inner_product.h"
#include "analysis/moments.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

// Clusters that the intervals' widths are estimated from: more say hardly more.
constexpr int64_t kMostClusters = 256;
// Coordinates whose queries are summed at a time: of whole rows the sums would take several times
// the room of the activations themselves.
constexpr int64_t kCoordinateSlab = 1024;

absl::Status CheckOptions(const DifferenceInMeansOptions& options) {
  if (options.interval_level >= 0.9 && options.interval_level < 1) return absl::OkStatus();
  return InvalidField("options.interval_level", "must be at least 0.9 and below 1", "OUT_OF_RANGE");
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

// The queries, taken together where there are more than `most`.
class Clusters {
 public:
  Clusters(const Grouping& grouping, int64_t most)
      : grouping_(grouping), size_(std::min(grouping.num_queries, most)) {
    shares_.assign(size_, {0, 0});
    for (int64_t q = 0; q < grouping.num_queries; ++q) {
      for (const int label : {0, 1}) {
        shares_[Of(q)][label] += grouping.query_weights[q][label] / grouping.label_weights[label];
      }
    }
  }

  int64_t size() const { return size_; }

  // What responses of `label` give to e_c, [size, slab.size]. `mean` is the label's, [width].
  absl::StatusOr<std::vector<double>> Vectors(Responses responses, int label,
                                              std::span<const double> mean,
                                              const Slab& slab) const {
    std::vector<double> out(size_ * slab.size, 0.0), part(slab.size);
    for (size_t r = 0; r < responses.size(); ++r) {
      if (LabelIndex(responses[r]) != label) continue;
      VS_RETURN_IF_ERROR(ReadPart(responses[r], slab.layer, slab.width, slab.begin, part));
      AddDeviation(static_cast<int64_t>(r), label, part, mean.subspan(slab.begin, slab.size),
                   std::span<double>(out).subspan(Of(grouping_.query[r]) * slab.size, slab.size));
    }
    return out;
  }

  // What response r gives to the e_c of its cluster. All [size] of some coordinates.
  void AddDeviation(int64_t r, int label, std::span<const double> activations,
                    std::span<const double> mean, std::span<double> sum) const {
    const double scale = (label == 1 ? 1 : -1) /
                         std::sqrt(1 - shares_[Of(grouping_.query[r])][label]) /
                         grouping_.label_weights[label] * grouping_.weight[r];
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += scale * (activations[i] - mean[i]);
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
  std::vector<std::array<double, 2>> shares_;  // [size][label] of the label's weight
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
    if (cancellation.cancelled()) return ExtractionCancelled();
    for (int64_t d = 0; d <= c; ++d) gram[c * clusters + d] += InnerProduct(row(c), row(d));
  }
  return absl::OkStatus();
}

// `means` are the labels', [width] each, and `vector` is their difference.
absl::StatusOr<ClusterSums> SumClusters(Responses responses, const Clusters& clusters,
                                        int64_t layer,
                                        const std::array<std::span<const double>, 2>& means,
                                        std::span<const double> vector,
                                        const Cancellation& cancellation) {
  const int64_t width = static_cast<int64_t>(vector.size()), count = clusters.size();
  ClusterSums out;
  out.gram.assign(count * count, 0.0);
  out.along.assign(count, 0.0);
  for (int64_t begin = 0; begin < width; begin += kCoordinateSlab) {
    if (cancellation.cancelled()) return ExtractionCancelled();
    const Slab slab = {.layer = layer,
                       .width = width,
                       .begin = begin,
                       .size = std::min(kCoordinateSlab, width - begin)};
    VS_ASSIGN_OR_RETURN(std::vector<double> vectors,
                        clusters.Vectors(responses, 0, means[0], slab));
    out.label_traces[0] += InnerProduct(vectors, vectors);
    VS_ASSIGN_OR_RETURN(const std::vector<double> expressing,
                        clusters.Vectors(responses, 1, means[1], slab));
    out.label_traces[1] += InnerProduct(expressing, expressing);
    for (size_t i = 0; i < vectors.size(); ++i) vectors[i] += expressing[i];
    out.trace += InnerProduct(vectors, vectors);
    for (int64_t c = 0; c < count; ++c) {
      out.along[c] +=
          InnerProduct(std::span<const double>(vectors).subspan(c * slab.size, slab.size),
                       vector.subspan(begin, slab.size));
    }
    VS_RETURN_IF_ERROR(AddProducts(vectors, count, slab.size, cancellation, out.gram));
  }
  for (int64_t c = 0; c < count; ++c) {
    for (int64_t d = 0; d < c; ++d) out.gram[d * count + c] = out.gram[c * count + d];
  }
  return out;
}

// sum |e_q|^2, each query a cluster. One query at a time, whose rows are read together: there may
// be thousands.
absl::StatusOr<double> QueryTrace(Responses responses, const Grouping& grouping, int64_t layer,
                                  const std::array<std::span<const double>, 2>& means,
                                  const Cancellation& cancellation) {
  const Clusters queries(grouping, grouping.num_queries);
  std::vector<int64_t> by_query(responses.size());
  std::iota(by_query.begin(), by_query.end(), 0);
  std::stable_sort(by_query.begin(), by_query.end(),
                   [&](int64_t a, int64_t b) { return grouping.query[a] < grouping.query[b]; });
  double trace = 0;
  std::vector<double> row(means[0].size()), sum(means[0].size(), 0.0);
  for (size_t i = 0; i < by_query.size(); ++i) {
    if (cancellation.cancelled()) return ExtractionCancelled();
    const int64_t r = by_query[i];
    const int label = LabelIndex(responses[r]);
    VS_RETURN_IF_ERROR(ReadRow(responses[r], layer, row));
    queries.AddDeviation(r, label, row, means[label], sum);
    if (i + 1 < by_query.size() && grouping.query[by_query[i + 1]] == grouping.query[r]) continue;
    trace += InnerProduct(sum, sum);
    std::fill(sum.begin(), sum.end(), 0.0);
  }
  return trace;
}

// One pass.
absl::StatusOr<LayerSums> SumLayer(Responses responses, const Grouping& grouping, int64_t layer,
                                   int64_t width, bool weigh_by_tokens) {
  LayerSums out(width, weigh_by_tokens);
  std::vector<double> row(width);
  for (size_t r = 0; r < responses.size(); ++r) {
    VS_RETURN_IF_ERROR(ReadRow(responses[r], layer, row));
    VS_RETURN_IF_ERROR(
        out.Add(row, grouping.half[r], LabelIndex(responses[r]), grouping.weight[r]));
    if (!responses[r].token_norm_sums.empty()) {
      out.token_norms += responses[r].token_norm_sums[layer];
    }
  }
  return out;
}

double MeanNorm(Responses responses, bool over_tokens, const LayerSums& sums) {
  if (!over_tokens) return sums.response_norms / static_cast<double>(responses.size());
  double num_tokens = 0;
  for (const LabelledActivations& response : responses) {
    num_tokens += static_cast<double>(response.num_tokens);
  }
  return sums.token_norms / num_tokens;
}

// What independent responses give to the squared norm of a mean that weighs them: of a ratio whose
// terms are the responses.
absl::StatusOr<std::array<double, 2>> RatioNoise(Responses responses, const Grouping& grouping,
                                                 int64_t layer,
                                                 const std::array<std::vector<double>, 2>& means) {
  std::array<double, 2> noise = {0, 0};
  std::vector<double> row(means[0].size());
  for (size_t r = 0; r < responses.size(); ++r) {
    const int label = LabelIndex(responses[r]);
    VS_RETURN_IF_ERROR(ReadRow(responses[r], layer, row));
    const std::vector<double> deviation = Difference(row, means[label]);
    const double share = grouping.weight[r] / grouping.label_weights[label];
    noise[label] += share * share / (1 - share) * InnerProduct(deviation, deviation);
  }
  return noise;
}

// Traces of the labels' covariances, and whether both are there.
bool SetCovarianceTraces(const std::array<LabelSums, 2>& sums, LayerVector& out) {
  out.expressing_covariance_trace = sums[1].moments.CovarianceTrace();
  out.non_expressing_covariance_trace = sums[0].moments.CovarianceTrace();
  if (!out.expressing_covariance_trace) {
    out.absent.push_back({"expressing_covariance_trace", Absence::kOneResponse});
  }
  if (!out.non_expressing_covariance_trace) {
    out.absent.push_back({"non_expressing_covariance_trace", Absence::kOneResponse});
  }
  if (out.expressing_covariance_trace && out.non_expressing_covariance_trace) return true;
  out.absent.push_back({"debiased_squared_norm", Absence::kOneResponse});
  return false;
}

// What independent responses, each counting once, give to the squared norms of their means.
std::array<double, 2> NoiseOf(const std::array<LabelSums, 2>& sums, const LayerVector& out) {
  return {*out.non_expressing_covariance_trace / static_cast<double>(sums[0].moments.count()),
          *out.expressing_covariance_trace / static_cast<double>(sums[1].moments.count())};
}

absl::Status SetDebiasedSquaredNorm(Responses responses, const Grouping& grouping, int64_t layer,
                                    const std::array<LabelSums, 2>& sums, bool weigh_by_tokens,
                                    LayerVector& out) {
  if (!SetCovarianceTraces(sums, out)) return absl::OkStatus();
  std::array<double, 2> noise = NoiseOf(sums, out);
  if (weigh_by_tokens) {
    VS_ASSIGN_OR_RETURN(noise,
                        RatioNoise(responses, grouping, layer, {sums[0].Mean(), sums[1].Mean()}));
  }
  out.debiased_squared_norm = out.norm * out.norm - noise[1] - noise[0];
  return absl::OkStatus();
}

// `means` are the labels', `vector` is their difference.
absl::Status SetClusteredStatistics(Responses responses, const Grouping& grouping, int64_t layer,
                                    const std::array<std::span<const double>, 2>& means,
                                    std::span<const double> vector,
                                    const DifferenceInMeansOptions& options,
                                    const Cancellation& cancellation, LayerVector& out) {
  if (!grouping.independent()) {
    out.absent.push_back({"clustered_squared_norm", Absence::kOneQuery});
    if (!options.intervals) return absl::OkStatus();
    out.absent.push_back({"squared_norm_interval", Absence::kOneQuery});
    out.absent.push_back({"norm_interval", Absence::kOneQuery});
    return absl::OkStatus();
  }
  const auto squared_norm_less = [&](double noise) { return out.norm * out.norm - noise; };
  if (!options.intervals || grouping.num_queries > kMostClusters) {
    VS_ASSIGN_OR_RETURN(const double noise,
                        QueryTrace(responses, grouping, layer, means, cancellation));
    out.clustered_squared_norm = squared_norm_less(noise);
  }
  if (!options.intervals) return absl::OkStatus();
  const Clusters clusters(grouping, kMostClusters);
  VS_ASSIGN_OR_RETURN(const ClusterSums sums,
                      SumClusters(responses, clusters, layer, means, vector, cancellation));
  if (!out.clustered_squared_norm) out.clustered_squared_norm = squared_norm_less(sums.trace);
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

// Vector, norm and relative norm.
LayerVector VectorOf(std::span<const double> vector, double mean_norm) {
  LayerVector out;
  out.vector.assign(vector.begin(), vector.end());
  out.norm = Norm(vector);
  if (mean_norm > 0) {
    out.relative_norm = out.norm / mean_norm;
  } else {
    out.absent.push_back({"relative_norm", Absence::kZeroActivations});
  }
  return out;
}

HalfVectors HalvesOf(const LayerSums& sums) {
  return {Difference(sums.of[0][1].Mean(), sums.of[0][0].Mean()),
          Difference(sums.of[1][1].Mean(), sums.of[1][0].Mean())};
}

absl::StatusOr<LayerVector> ComputeLayer(Responses responses, const Grouping& grouping,
                                         int64_t layer, int64_t width, bool over_tokens,
                                         const DifferenceInMeansOptions& options,
                                         const Cancellation& cancellation) {
  VS_ASSIGN_OR_RETURN(const LayerSums sums,
                      SumLayer(responses, grouping, layer, width, options.weigh_by_tokens));
  std::array<LabelSums, 2> of_label;
  for (const int label : {0, 1}) {
    VS_ASSIGN_OR_RETURN(of_label[label], sums.OfLabel(label));
  }
  const std::array<std::vector<double>, 2> means = {of_label[0].Mean(), of_label[1].Mean()};
  const std::vector<double> vector = Difference(means[1], means[0]);
  LayerVector out = VectorOf(vector, MeanNorm(responses, over_tokens, sums));
  VS_RETURN_IF_ERROR(
      SetDebiasedSquaredNorm(responses, grouping, layer, of_label, options.weigh_by_tokens, out));
  if (grouping.independent()) {
    VS_RETURN_IF_ERROR(SetHeldOutStatistics(responses, grouping, layer, HalvesOf(sums), out));
  } else {
    SetNoHeldOutStatistics(Absence::kOneQuery, out);
  }
  VS_RETURN_IF_ERROR(SetClusteredStatistics(responses, grouping, layer, {means[0], means[1]},
                                            vector, options, cancellation, out));
  return out;
}

absl::StatusOr<LayerVector> LayerOfSums(Responses responses, const Grouping& grouping,
                                        const LayerSums& sums,
                                        const DifferenceInMeansOptions& options) {
  std::array<LabelSums, 2> of_label;
  for (const int label : {0, 1}) {
    VS_ASSIGN_OR_RETURN(of_label[label], sums.OfLabel(label));
  }
  const std::vector<double> vector = Difference(of_label[1].Mean(), of_label[0].Mean());
  LayerVector out = VectorOf(vector, MeanNorm(responses, sums.token_norms > 0, sums));
  const bool has_noise = SetCovarianceTraces(of_label, out);
  if (has_noise && options.weigh_by_tokens) {
    out.absent.push_back({"debiased_squared_norm", Absence::kTooLarge});
  } else if (has_noise) {
    const std::array<double, 2> noise = NoiseOf(of_label, out);
    out.debiased_squared_norm = out.norm * out.norm - noise[1] - noise[0];
  }
  const Absence why = grouping.independent() ? Absence::kTooLarge : Absence::kOneQuery;
  if (grouping.independent()) {
    SetHalfAgreement(HalvesOf(sums), out);
    out.absent.push_back({"auroc", why});
  } else {
    SetNoHeldOutStatistics(why, out);
  }
  out.absent.push_back({"clustered_squared_norm", why});
  if (!options.intervals) return out;
  out.absent.push_back({"squared_norm_interval", why});
  out.absent.push_back({"norm_interval", why});
  return out;
}

}  // namespace

int64_t DifferenceInMeansBytes(int64_t queries, int64_t width) {
  // Eight sums of a layer and some copies of a row; of three slabs, and their products.
  constexpr int64_t kRows = 24, kSlabs = 3, kProducts = 2;
  const int64_t clusters = std::min(queries, kMostClusters);
  return static_cast<int64_t>(sizeof(double)) *
         (kRows * width + kSlabs * clusters * std::min(width, kCoordinateSlab) +
          kProducts * clusters * clusters);
}

absl::StatusOr<ValueVectors> ComputeDifferenceInMeans(Responses responses, int64_t num_layers,
                                                      int64_t width,
                                                      const DifferenceInMeansOptions& options,
                                                      const Cancellation& cancellation) {
  VS_RETURN_IF_ERROR(CheckOptions(options));
  VS_RETURN_IF_ERROR(CheckResponses(responses, num_layers, width, options.weigh_by_tokens));
  const Grouping grouping = GroupingOf(responses, options.weigh_by_tokens);
  const ValueVectors counts = CountsOf(responses, grouping);
  return WithLayers(counts, num_layers, cancellation, [&](int64_t layer) {
    return ComputeLayer(responses, grouping, layer, width, counts.relative_norm_over_tokens,
                        options, cancellation);
  });
}

absl::StatusOr<ValueVectors> DifferenceInMeansOfSums(Responses responses,
                                                     std::span<const LayerSums> layers,
                                                     const DifferenceInMeansOptions& options) {
  VS_RETURN_IF_ERROR(CheckOptions(options));
  const Grouping grouping = GroupingOf(responses, options.weigh_by_tokens);
  ValueVectors out = CountsOf(responses, grouping);
  for (const LayerSums& sums : layers) {
    VS_ASSIGN_OR_RETURN(LayerVector vector, LayerOfSums(responses, grouping, sums, options));
    out.layers.push_back(std::move(vector));
    out.relative_norm_over_tokens = out.relative_norm_over_tokens || sums.token_norms > 0;
  }
  return out;
}

}  // namespace valuescope::analysis
