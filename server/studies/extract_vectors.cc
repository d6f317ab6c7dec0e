#include "studies/extract_vectors.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/difference_in_means.h"
#include "analysis/inner_product.h"
#include "analysis/linear_probe.h"
#include "analysis/principal_direction.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "studies/confidence_interval.h"

namespace valuescope::studies {
namespace {

void Set(const std::optional<analysis::ConfidenceInterval>& interval,
         v1::Interval* (v1::VectorStatistics::*mutable_field)(), v1::VectorStatistics& statistics) {
  if (!interval) return;
  *(statistics.*mutable_field)() = IntervalToProto(*interval);
}

v1::StatisticAbsence ToProto(analysis::Absence why) {
  switch (why) {
    case analysis::Absence::kOneResponse:
      return v1::STATISTIC_ABSENCE_ONE_RESPONSE;
    case analysis::Absence::kOneQuery:
      return v1::STATISTIC_ABSENCE_ONE_QUERY;
    case analysis::Absence::kZeroVector:
      return v1::STATISTIC_ABSENCE_ZERO_VECTOR;
    case analysis::Absence::kOppositeHalves:
      return v1::STATISTIC_ABSENCE_OPPOSITE_HALVES;
    case analysis::Absence::kZeroActivations:
      return v1::STATISTIC_ABSENCE_ZERO_ACTIVATIONS;
    case analysis::Absence::kMethod:
      return v1::STATISTIC_ABSENCE_METHOD;
    case analysis::Absence::kFewPairs:
      return v1::STATISTIC_ABSENCE_FEW_PAIRS;
    case analysis::Absence::kTooLarge:
      return v1::STATISTIC_ABSENCE_TOO_LARGE;
  }
  return v1::STATISTIC_ABSENCE_UNSPECIFIED;
}

// What is absent and a field of the contract, in order of the fields.
void SetMissing(const std::vector<analysis::AbsentStatistic>& absent,
                v1::VectorStatistics& statistics) {
  const auto& type = *v1::VectorStatistics::descriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    for (const analysis::AbsentStatistic& one : absent) {
      if (type.field(i)->name() != one.name) continue;
      v1::MissingStatistic& missing = *statistics.add_missing();
      missing.set_field(type.field(i)->name());
      missing.set_absence(ToProto(one.why));
    }
  }
}

bool IsPca(v1::ExtractionMethod method) {
  return method == v1::EXTRACTION_METHOD_PCA || method == v1::EXTRACTION_METHOD_PCA_CENTERED;
}

v1::VectorStatistics StatisticsOf(v1::ExtractionMethod method, int layer,
                                  const analysis::ValueVectors& all,
                                  const analysis::LayerVector& row) {
  v1::VectorStatistics statistics;
  statistics.set_layer(layer);
  statistics.set_num_expressing(all.num_expressing);
  statistics.set_num_non_expressing(all.num_non_expressing);
  statistics.set_norm(row.norm);
  if (row.relative_norm) statistics.set_relative_norm(*row.relative_norm);
  if (row.split_half_cosine) statistics.set_split_half_cosine(*row.split_half_cosine);
  if (row.reliability) statistics.set_reliability(*row.reliability);
  Set(row.norm_interval, &v1::VectorStatistics::mutable_norm_interval, statistics);
  if (row.auroc) statistics.set_auroc(*row.auroc);
  if (row.debiased_squared_norm) statistics.set_debiased_squared_norm(*row.debiased_squared_norm);
  if (row.clustered_squared_norm) {
    statistics.set_clustered_squared_norm(*row.clustered_squared_norm);
  }
  Set(row.squared_norm_interval, &v1::VectorStatistics::mutable_squared_norm_interval, statistics);
  if (row.squared_norm_interval) {
    statistics.set_within_noise(row.squared_norm_interval->lower <= 0);
  }
  if (IsPca(method)) statistics.set_num_pairs(all.num_pairs);
  if (row.explained_variance) statistics.set_explained_variance(*row.explained_variance);
  if (row.intercept) statistics.set_intercept(*row.intercept);
  SetMissing(row.absent, statistics);
  return statistics;
}

absl::string_view SentenceOf(analysis::Absence why) {
  switch (why) {
    case analysis::Absence::kOneResponse:
      return "a label has one response, which has no covariance";
    case analysis::Absence::kOneQuery:
      return "all responses of a label answer one query: halves and intervals over queries do not "
             "exist";
    case analysis::Absence::kZeroVector:
      return "the vector, or that of a half, is zero and has no direction";
    case analysis::Absence::kOppositeHalves:
      return "the vectors of the halves are opposite and have no reliability";
    case analysis::Absence::kZeroActivations:
      return "all activations are zero, the norm is relative to nothing";
    case analysis::Absence::kMethod:
      return "the number has no meaning for the method";
    case analysis::Absence::kFewPairs:
      return "a half has too few pairs";
    case analysis::Absence::kTooLarge:
      return "the means of all responses would be too large to keep, the vector is made of sums "
             "alone: areas under curves and what is clustered by query are left out";
  }
  return "";
}

// Whether the length of the vector is one of activations.
bool HasLength(v1::ExtractionMethod method) {
  return !IsPca(method) && method != v1::EXTRACTION_METHOD_LINEAR_PROBE;
}

absl::string_view UnsettledOf(v1::ExtractionMethod method) {
  return IsPca(method) ? "the first components are nearly equal, the vector is one of many"
                       : "the probe's gradient stays above 1e-10 of the first";
}

std::vector<std::string> WarningsOf(v1::ExtractionMethod method,
                                    const analysis::ValueVectors& vectors) {
  std::vector<std::string> warnings;
  if (IsNoisy(vectors.num_expressing, vectors.num_non_expressing)) {
    warnings.push_back(absl::StrCat("only ", vectors.num_expressing, " expressing and ",
                                    vectors.num_non_expressing,
                                    " non-expressing responses: the vector is noisy"));
  }
  std::map<analysis::Absence, int64_t> rows;  // that lack something
  int64_t within_noise = 0, unsettled = 0;
  for (const analysis::LayerVector& row : vectors.layers) {
    std::set<analysis::Absence> reasons;
    for (const analysis::AbsentStatistic& one : row.absent) {
      // Of the method, not of the data.
      if (one.why != analysis::Absence::kMethod) reasons.insert(one.why);
    }
    for (const analysis::Absence why : reasons) ++rows[why];
    unsettled += !row.settled;
    within_noise += row.squared_norm_interval && row.squared_norm_interval->lower <= 0;
  }
  const size_t all = vectors.layers.size();
  if (IsPca(method) && vectors.num_pairs < vectors.num_queries) {
    warnings.push_back(absl::StrCat(vectors.num_queries - vectors.num_pairs, " of ",
                                    vectors.num_queries,
                                    " queries lack responses of one label: they are left out"));
  }
  if (unsettled > 0) {
    warnings.push_back(absl::StrCat(unsettled, " of ", all, " rows: ", UnsettledOf(method)));
  }
  for (const auto& [why, count] : rows) {
    warnings.push_back(absl::StrCat(count, " of ", all, " rows: ", SentenceOf(why)));
  }
  if (within_noise > 0) {
    warnings.push_back(absl::StrCat(within_noise, " of ", all,
                                    " rows: noise alone would give such a vector (within_noise)"));
  }
  if (HasLength(method) && !vectors.relative_norm_over_tokens) {
    warnings.push_back(
        "relative_norm divides by the mean norm of response means, somewhat smaller than that of "
        "tokens");
  }
  return warnings;
}

ExtractedVector Told(const analysis::ValueVectors& vectors, std::span<const int> layers,
                     v1::ExtractionMethod method) {
  ExtractedVector result;
  for (size_t i = 0; i < vectors.layers.size(); ++i) {
    const analysis::LayerVector& row = vectors.layers[i];
    result.rows.insert(result.rows.end(), row.vector.begin(), row.vector.end());
    result.statistics.push_back(StatisticsOf(method, layers.empty() ? 0 : layers[i], vectors, row));
  }
  result.warnings = WarningsOf(method, vectors);
  return result;
}

absl::StatusOr<analysis::ValueVectors> VectorsOf(analysis::Responses responses, int64_t rows,
                                                 int64_t width, const ExtractionOptions& options,
                                                 const Cancellation& cancellation) {
  const bool weigh_by_tokens = options.pooling == v1::POOLING_TOKEN_MEAN;
  switch (options.method) {
    case v1::EXTRACTION_METHOD_PCA:
    case v1::EXTRACTION_METHOD_PCA_CENTERED:
      return analysis::ComputePrincipalDirections(
          responses, rows, width,
          {.centered = options.method == v1::EXTRACTION_METHOD_PCA_CENTERED,
           .weigh_by_tokens = weigh_by_tokens,
           .intervals = options.intervals},
          cancellation);
    case v1::EXTRACTION_METHOD_LINEAR_PROBE:
      return analysis::ComputeLinearProbes(
          responses, rows, width,
          {.inverse_regularization = options.inverse_regularization,
           .intervals = options.intervals},
          cancellation);
    default:
      return analysis::ComputeDifferenceInMeans(
          responses, rows, width,
          {.weigh_by_tokens = weigh_by_tokens, .intervals = options.intervals}, cancellation);
  }
}

const LabelledResponse& ResponseAt(const ResponseSet& set, const ResponseSelection& selection,
                                   size_t index) {
  return set.responses[static_cast<size_t>(selection.places[index])];
}

// Without activations yet.
std::vector<analysis::LabelledActivations> LabelsOf(const ResponseSet& set,
                                                    const ResponseSelection& selection) {
  std::vector<analysis::LabelledActivations> labels;
  labels.reserve(selection.size());
  for (size_t i = 0; i < selection.size(); ++i) {
    labels.push_back({.expresses = selection.expresses[i],
                      .query_id = ResponseAt(set, selection, i).query_id,
                      .mean_activations = std::span<const float>()});
  }
  return labels;
}

int64_t TokensPooled(const LabelledResponse& response, engine::TokenKind tokens) {
  return tokens == engine::TokenKind::kResponse ? static_cast<int64_t>(response.response.size())
                                                : 1;
}

// The same with how many tokens were pooled.
std::vector<analysis::LabelledActivations> CountedLabelsOf(const ResponseSet& set,
                                                           const ResponseSelection& selection,
                                                           v1::Pooling pooling) {
  std::vector<analysis::LabelledActivations> labels = LabelsOf(set, selection);
  for (size_t i = 0; i < labels.size(); ++i) {
    labels[i].num_tokens = TokensPooled(ResponseAt(set, selection, i), TokensOf(pooling));
  }
  return labels;
}

// The engine complains of a response by its place among these; checks of the input have found
// anything a user could cause.
absl::StatusOr<Means> MeansOf(engine::Engine& engine, std::span<const LabelledResponse> responses,
                              const ResponseMeansPlan& plan, const Cancellation& cancellation) {
  absl::StatusOr<Means> means = ResponseMeans(engine, responses, plan, cancellation);
  if (!means.ok()) return InField("responses", means.status());
  return means;
}

// Sums of |x| over the tokens that were pooled, [selected, rows]; empty where they are not known.
absl::StatusOr<std::vector<double>> NormSumsOf(const ResponseSet& set,
                                               const ResponseSelection& selection,
                                               const KeptMeans& means, engine::TokenKind tokens) {
  std::vector<double> sums;
  const bool all_tokens = tokens == engine::TokenKind::kResponse;
  if (all_tokens && !means.shape().token_norms) return sums;
  sums.reserve(selection.size() * static_cast<size_t>(means.shape().rows));
  std::vector<float> row(static_cast<size_t>(means.shape().width));
  for (size_t i = 0; i < selection.size(); ++i) {
    const int64_t place = selection.places[i];
    for (const float mean : means.token_norms(place)) {
      sums.push_back(static_cast<double>(mean) *
                     static_cast<double>(TokensPooled(ResponseAt(set, selection, i), tokens)));
    }
    // One token's norm is that of its row.
    for (int64_t r = 0; !all_tokens && r < means.shape().rows; ++r) {
      VS_RETURN_IF_ERROR(means.Read(place, r, /*begin=*/0, row));
      sums.push_back(analysis::Norm(row));
    }
  }
  return sums;
}

}  // namespace

std::vector<SummedMeans::Place> PlacesOf(const ResponseSet& set, const ResponseSelection& selection,
                                         v1::Pooling pooling) {
  const std::vector<analysis::LabelledActivations> labels =
      CountedLabelsOf(set, selection, pooling);
  const analysis::Grouping grouping =
      analysis::GroupingOf(labels, pooling == v1::POOLING_TOKEN_MEAN);
  std::vector<SummedMeans::Place> places;
  places.reserve(selection.size());
  for (size_t i = 0; i < selection.size(); ++i) {
    places.push_back({.response = selection.places[i],
                      .half = grouping.half[i],
                      .label = selection.expresses[i] ? 1 : 0,
                      .weight = grouping.weight[i],
                      .tokens = static_cast<double>(labels[i].num_tokens)});
  }
  return places;
}

absl::Status AddMeans(engine::Engine& engine, std::span<const LabelledResponse> responses,
                      const ResponseMeansPlan& plan, const Cancellation& cancellation,
                      KeptMeans& means, int64_t& cached_tokens) {
  VS_ASSIGN_OR_RETURN(const Means added, MeansOf(engine, responses, plan, cancellation));
  for (const std::vector<float>& mean : added.rows) means.Add(mean);
  cached_tokens += added.cached_tokens;
  return absl::OkStatus();
}

absl::Status AddMeans(engine::Engine& engine, std::span<const LabelledResponse> responses,
                      int64_t first, std::span<const std::vector<SummedMeans::Place>> places,
                      const ResponseMeansPlan& plan, const Cancellation& cancellation,
                      std::span<SummedMeans> sums, int64_t& cached_tokens) {
  VS_ASSIGN_OR_RETURN(const Means added, MeansOf(engine, responses, plan, cancellation));
  const int64_t end = first + static_cast<int64_t>(added.rows.size());
  for (size_t v = 0; v < sums.size(); ++v) {
    auto place = std::partition_point(
        places[v].begin(), places[v].end(),
        [first](const SummedMeans::Place& one) { return one.response < first; });
    for (; place != places[v].end() && place->response < end; ++place) {
      const std::vector<float>& mean = added.rows[static_cast<size_t>(place->response - first)];
      VS_RETURN_IF_ERROR(InField("responses", sums[v].Add(*place, mean)));
    }
  }
  cached_tokens += added.cached_tokens;
  return absl::OkStatus();
}

engine::TokenKind TokensOf(v1::Pooling pooling) {
  switch (pooling) {
    case v1::POOLING_LAST_TOKEN:
      return engine::TokenKind::kLast;
    case v1::POOLING_LAST_PROMPT_TOKEN:
      return engine::TokenKind::kLastPrompt;
    default:
      return engine::TokenKind::kResponse;
  }
}

absl::Status CheckMethod(v1::ExtractionMethod method, const ResponseSet& set,
                         const ResponseSelection& selection) {
  const std::vector<analysis::LabelledActivations> labels = LabelsOf(set, selection);
  if (IsPca(method)) {
    return analysis::CheckPairs(labels, method == v1::EXTRACTION_METHOD_PCA_CENTERED);
  }
  if (method == v1::EXTRACTION_METHOD_LINEAR_PROBE) return analysis::CheckProbeSize(labels);
  return absl::OkStatus();
}

int64_t WorkingBytes(int64_t responses, int64_t groups, int64_t width,
                     v1::ExtractionMethod method) {
  if (method == v1::EXTRACTION_METHOD_LINEAR_PROBE) {
    return analysis::LinearProbesBytes(responses, width);
  }
  return IsPca(method) ? analysis::PrincipalDirectionsBytes(groups, width)
                       : analysis::DifferenceInMeansBytes(groups, width);
}

int64_t WorkingBytes(const ResponseSet& set, const ResponseSelection& selection, int64_t width,
                     v1::ExtractionMethod method) {
  const std::vector<analysis::LabelledActivations> labels = LabelsOf(set, selection);
  const analysis::ValueVectors counts =
      analysis::CountsOf(labels, analysis::GroupingOf(labels, /*weigh_by_tokens=*/false));
  return WorkingBytes(static_cast<int64_t>(selection.size()),
                      IsPca(method) ? counts.num_pairs : counts.num_queries, width, method);
}

absl::StatusOr<ExtractedVector> ExtractVector(engine::Engine& engine, const ResponseSet& set,
                                              const ResponseSelection& selection,
                                              const KeptMeans& means, std::span<const int> layers,
                                              const ExtractionOptions& options,
                                              const Cancellation& cancellation) {
  VS_RETURN_IF_ERROR(
      CheckBothLabels("responses", selection.num_expressing, selection.num_non_expressing));
  VS_CHECK(means.count() == static_cast<int64_t>(set.responses.size()));
  const int64_t rows = means.shape().rows, width = means.shape().width;
  VS_ASSIGN_OR_RETURN(const engine::KeptCaptures memory,
                      engine.KeepCaptures(WorkingBytes(set, selection, width, options.method)));
  VS_ASSIGN_OR_RETURN(const std::vector<double> norm_sums,
                      NormSumsOf(set, selection, means, TokensOf(options.pooling)));
  std::vector<analysis::LabelledActivations> activations =
      CountedLabelsOf(set, selection, options.pooling);
  for (size_t i = 0; i < activations.size(); ++i) {
    activations[i].mean_activations =
        analysis::StoredActivations{.reader = &means, .response = selection.places[i]};
    if (norm_sums.empty()) continue;
    activations[i].token_norm_sums = std::span<const double>(norm_sums).subspan(
        i * static_cast<size_t>(rows), static_cast<size_t>(rows));
  }
  VS_ASSIGN_OR_RETURN(const analysis::ValueVectors vectors,
                      VectorsOf(activations, rows, width, options, cancellation));
  return Told(vectors, layers, options.method);
}

absl::StatusOr<ExtractedVector> ExtractVector(const ResponseSet& set,
                                              const ResponseSelection& selection,
                                              const SummedMeans& sums, std::span<const int> layers,
                                              const ExtractionOptions& options) {
  VS_RETURN_IF_ERROR(
      CheckBothLabels("responses", selection.num_expressing, selection.num_non_expressing));
  VS_CHECK(sums.count() == static_cast<int64_t>(selection.size()));
  VS_CHECK(options.method == v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS);
  const std::vector<analysis::LabelledActivations> labels =
      CountedLabelsOf(set, selection, options.pooling);
  VS_ASSIGN_OR_RETURN(const analysis::ValueVectors vectors,
                      analysis::DifferenceInMeansOfSums(
                          labels, sums.layers(),
                          {.weigh_by_tokens = options.pooling == v1::POOLING_TOKEN_MEAN,
                           .intervals = options.intervals}));
  return Told(vectors, layers, options.method);
}

}  // namespace valuescope::studies
