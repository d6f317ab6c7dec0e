// Reads expected.json, which make_expected.py wrote with numpy.
#ifndef VALUESCOPE_TESTS_ANALYSIS_EXPECTED_VALUES_H_
#define VALUESCOPE_TESTS_ANALYSIS_EXPECTED_VALUES_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace valuescope::analysis {

inline const nlohmann::json& ExpectedValues() {
  static const nlohmann::json expected = nlohmann::json::parse(
      std::ifstream(std::string(VALUESCOPE_SOURCE_DIR) + "/tests/analysis/expected.json"));
  return expected;
}

// Each element within `tolerance`.
template <typename Actual, typename Wanted>
void ExpectAllNear(const Actual& actual, const Wanted& wanted, double tolerance) {
  ASSERT_EQ(actual.size(), wanted.size());
  for (size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], wanted[i], tolerance) << i;
}

inline std::vector<float> RandomNormal(int64_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(size);
  for (float& x : out) x = normal(random);
  return out;
}

// Rows of a [num_rows, width] array, each turned by the same orthogonal matrix: a Householder
// reflection followed by one more along another vector, which is a proper rotation.
inline std::vector<double> Rotate(const std::vector<float>& rows, int64_t width) {
  std::vector<double> out(rows.begin(), rows.end());
  for (const uint64_t seed : {101, 202}) {
    const std::vector<float> normal = RandomNormal(width, seed);
    double squared = 0;
    for (const double x : normal) squared += x * x;
    for (size_t begin = 0; begin < out.size(); begin += width) {
      double along = 0;
      for (int64_t i = 0; i < width; ++i) along += out[begin + i] * normal[i];
      for (int64_t i = 0; i < width; ++i) out[begin + i] -= 2 * along / squared * normal[i];
    }
  }
  return out;
}

inline std::vector<float> ToFloats(const std::vector<double>& values) {
  return std::vector<float>(values.begin(), values.end());
}

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_TESTS_ANALYSIS_EXPECTED_VALUES_H_
