// Labelled responses for tests of the ways to extract vectors from them.
#ifndef VALUESCOPE_TESTS_ANALYSIS_DATA_SET_H_
#define VALUESCOPE_TESTS_ANALYSIS_DATA_SET_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "analysis/difference_in_means.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {

// Labelled responses that own their activations.
struct DataSet {
  int64_t num_layers = 1;
  int64_t width = 4;
  std::vector<bool> labels;
  std::vector<std::string> queries;
  std::vector<std::vector<double>> activations;  // each [num_layers, width]
  std::vector<int64_t> tokens;                   // none: not known

  std::vector<LabelledActivations> Responses() const {
    std::vector<LabelledActivations> out;
    for (size_t r = 0; r < labels.size(); ++r) {
      out.push_back({.expresses = labels[r],
                     .query_id = queries[r],
                     .mean_activations = std::span<const double>(activations[r]),
                     .num_tokens = tokens.empty() ? 0 : tokens[r]});
    }
    return out;
  }

  ValueVectors Compute(const DifferenceInMeansOptions& options = {}) const {
    auto result = ComputeDifferenceInMeans(Responses(), num_layers, width, options);
    EXPECT_TRUE(result.ok()) << result.status();
    return *std::move(result);
  }

  void Append(bool label, const std::string& query, std::vector<double> activation) {
    labels.push_back(label);
    queries.push_back(query);
    activations.push_back(std::move(activation));
  }
};

inline DataSet RandomDataSet(int num_queries, int responses_a_query) {
  DataSet data;
  for (int q = 0; q < num_queries; ++q) {
    for (int k = 0; k < responses_a_query; ++k) {
      const std::vector<float> noise = RandomNormal(data.width, 100 * q + k);
      std::vector<double> activation(noise.begin(), noise.end());
      const bool label = (q + k) % 2 == 0;
      if (label) activation[0] += 1.5;
      data.Append(label, absl::StrCat("q", q), activation);
    }
  }
  return data;
}

// Of a case in expected.json.
inline DataSet DataSetOf(const nlohmann::json& expected) {
  DataSet data;
  data.num_layers = expected.value("num_layers", 1);
  data.width = expected["width"];
  data.labels = expected["labels"].get<std::vector<bool>>();
  data.queries = expected["queries"].get<std::vector<std::string>>();
  if (expected.contains("tokens")) data.tokens = expected["tokens"].get<std::vector<int64_t>>();
  const auto values = expected["activations"].get<std::vector<double>>();
  const int64_t size = data.num_layers * data.width;
  for (size_t r = 0; r < data.labels.size(); ++r) {
    data.activations.emplace_back(values.begin() + r * size, values.begin() + (r + 1) * size);
  }
  return data;
}

inline std::map<std::string, Absence> AbsentOf(const LayerVector& layer) {
  std::map<std::string, Absence> out;
  for (const AbsentStatistic& one : layer.absent) out.emplace(one.name, one.why);
  return out;
}

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_TESTS_ANALYSIS_DATA_SET_H_
