#include "analysis/moments.h"

#include <cmath>
#include <limits>

#include "analysis/inner_product.h"
#include "base/error.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

constexpr int64_t kWidth = 3;

std::span<const float> Row(const std::vector<float>& rows, int64_t index) {
  return std::span<const float>(rows).subspan(index * kWidth, kWidth);
}

VectorMoments MomentsOf(const std::vector<float>& rows, int64_t begin, int64_t end) {
  VectorMoments moments(kWidth);
  for (int64_t r = begin; r < end; ++r) EXPECT_TRUE(moments.Add(Row(rows, r)).ok());
  return moments;
}

TEST(VectorMoments, MeanAndCovarianceTraceDividedByNMinusOne) {
  // Coordinates 1, 3, 8: mean 4, squared deviations 9 + 1 + 16 = 26, variance 13.
  const std::vector<float> rows = {1, 10, 0, 3, 10, 0, 8, 10, 0};
  const VectorMoments moments = MomentsOf(rows, 0, 3);
  EXPECT_EQ(moments.count(), 3);
  ExpectAllNear(moments.mean(), std::vector<double>{4, 10, 0}, 1e-15);
  ExpectAllNear(moments.squared_deviations(), std::vector<double>{26, 0, 0}, 1e-14);
  EXPECT_NEAR(*moments.CovarianceTrace(), 13.0, 1e-14);
}

TEST(VectorMoments, VarianceSurvivesAMeanFarFromZero) {
  VectorMoments moments(1);
  for (const double x : {1e9 + 1, 1e9 + 2, 1e9 + 3}) {
    ASSERT_TRUE(moments.Add(std::span<const double>(&x, 1)).ok());
  }
  EXPECT_NEAR(*moments.CovarianceTrace(), 1.0, 1e-6);
}

TEST(VectorMoments, NoTraceBelowTwoObservations) {
  EXPECT_FALSE(VectorMoments(kWidth).CovarianceTrace().has_value());
  EXPECT_FALSE(MomentsOf({1, 2, 3}, 0, 1).CovarianceTrace().has_value());
}

TEST(VectorMoments, AnySplitAgreesAndTheSameSplitGivesTheSameBytes) {
  const int64_t n = 40;
  const std::vector<float> rows = RandomNormal(n * kWidth, 1);
  const VectorMoments whole = MomentsOf(rows, 0, n);
  for (const int64_t cut : {0, 1, 13, 39, 40}) {
    VectorMoments left = MomentsOf(rows, 0, cut);
    ASSERT_TRUE(left.Merge(MomentsOf(rows, cut, n)).ok());
    EXPECT_EQ(left.count(), n);
    ExpectAllNear(left.mean(), whole.mean(), 1e-14);
    ExpectAllNear(left.squared_deviations(), whole.squared_deviations(), 1e-12);

    VectorMoments again = MomentsOf(rows, 0, cut);
    ASSERT_TRUE(again.Merge(MomentsOf(rows, cut, n)).ok());
    EXPECT_EQ(again.Serialize(), left.Serialize());
  }
}

TEST(VectorMoments, OrderDoesNotMatter) {
  const int64_t n = 20;
  const std::vector<float> rows = RandomNormal(n * kWidth, 2);
  VectorMoments backwards(kWidth);
  for (int64_t r = n - 1; r >= 0; --r) ASSERT_TRUE(backwards.Add(Row(rows, r)).ok());
  ExpectAllNear(backwards.mean(), MomentsOf(rows, 0, n).mean(), 1e-14);
}

TEST(VectorMoments, DuplicatedDataKeepsTheMean) {
  const std::vector<float> rows = RandomNormal(10 * kWidth, 3);
  const VectorMoments once = MomentsOf(rows, 0, 10);
  VectorMoments twice = once;
  ASSERT_TRUE(twice.Merge(once).ok());
  ExpectAllNear(twice.mean(), once.mean(), 0);
  EXPECT_NEAR(*twice.CovarianceTrace(), *once.CovarianceTrace() * 18 / 19, 1e-12);
}

TEST(VectorMoments, RefusesOtherWidthsAndNonFiniteValuesWithoutChange) {
  VectorMoments moments = MomentsOf({1, 2, 3}, 0, 1);
  const std::string before = moments.Serialize();
  EXPECT_FALSE(moments.Add(std::vector<float>{1, 2}).ok());
  EXPECT_FALSE(moments.Add(std::vector<float>{1, 2, NAN}).ok());
  EXPECT_FALSE(
      moments.Add(std::vector<double>{std::numeric_limits<double>::infinity(), 0, 0}).ok());
  EXPECT_FALSE(moments.Merge(VectorMoments(2)).ok());
  EXPECT_EQ(moments.Serialize(), before);
}

TEST(VectorMoments, BytesAreLittleEndianAndComeBack) {
  const VectorMoments moments = MomentsOf({1, -2, 0.5, 3, 4, 5}, 0, 2);
  const std::string bytes = moments.Serialize();
  EXPECT_EQ(bytes.substr(0, 24), std::string("VSMOMENT\1\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0", 24));
  EXPECT_EQ(bytes.substr(32, 8), std::string("\0\0\0\0\0\0\0\x40", 8));  // mean of 1 and 3 is 2
  const auto parsed = VectorMoments::Parse(bytes, kWidth);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->Serialize(), bytes);
}

TEST(VectorMoments, DamagedBytesAreDataLoss) {
  const std::string bytes = MomentsOf({1, 2, 3, 4, 5, 6}, 0, 2).Serialize();
  std::vector<std::string> damaged = {"", "VSMOMENT", bytes.substr(0, bytes.size() - 1),
                                      bytes + "x", "X" + bytes.substr(1)};
  damaged.push_back(bytes);
  damaged.back()[8] = 2;  // another version
  damaged.push_back(bytes);
  damaged.back()[16] = 4;  // another width
  damaged.push_back(bytes);
  damaged.back()[31] = '\x80';  // a count beyond int64
  damaged.push_back(bytes);
  damaged.back().replace(damaged.back().size() - 2, 2, "\xf0\x7f");  // an infinite sum
  damaged.push_back(bytes);
  damaged.back().back() = '\xc0';  // a negative sum of squares
  for (const std::string& case_bytes : damaged) {
    const auto parsed = VectorMoments::Parse(case_bytes, kWidth);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kDataLoss) << parsed.status();
  }
  EXPECT_EQ(VectorMoments::Parse(bytes, 2).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace valuescope::analysis
