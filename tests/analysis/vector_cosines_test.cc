#include "analysis/vector_cosines.h"

#include <cmath>

#include "analysis/inner_product.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

TEST(CompareRows, EqualsNumpyForEveryPairInOrder) {
  const nlohmann::json& expected = ExpectedValues()["cosines"];
  const auto vectors = expected["vectors"].get<std::vector<float>>();
  const size_t width = expected["width"];
  std::vector<ComparedRow> rows;
  for (size_t i = 0; i < expected["num_vectors"]; ++i) {
    rows.push_back({.row = std::span(vectors).subspan(i * width, width),
                    .split_half_cosine = std::nullopt,
                    .reliability = std::nullopt});
  }
  const auto wanted = expected["cosines"].get<std::vector<double>>();
  const std::vector<RowComparison> compared = CompareRows(rows);
  ASSERT_EQ(compared.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_NEAR(*compared[i].cosine / wanted[i], 1, 1e-9);
    EXPECT_FALSE(compared[i].disattenuated_cosine.has_value());
    EXPECT_FALSE(compared[i].noise_floor.has_value());
  }
}

TEST(CompareRows, AZeroRowHasNoCosinesAndKeepsTheFloorOfTheOther) {
  const std::vector<float> zero = {0, 0}, one = {1, 1};
  const std::vector<RowComparison> compared =
      CompareRows({{{.row = one, .split_half_cosine = 0.6, .reliability = 0.75},
                    {.row = zero, .split_half_cosine = 0.6, .reliability = 0.75}}});
  ASSERT_EQ(compared.size(), 1u);
  EXPECT_FALSE(compared[0].cosine.has_value());
  EXPECT_FALSE(compared[0].disattenuated_cosine.has_value());
  EXPECT_NEAR(*compared[0].noise_floor, 0.8, 1e-12);
}

TEST(CompareRows, OneRowHasNoPair) {
  const std::vector<float> one = {1, 1};
  EXPECT_TRUE(CompareRows({{{.row = one, .split_half_cosine = 0.6, .reliability = 0.75}}}).empty());
}

// What is left of one half orthogonalised against the other, by hand, whatever their norms.
TEST(NoiseFloor, IsTheRelativeNormOfOneHalfOrthogonalisedAgainstTheOther) {
  const std::vector<float> a = RandomNormal(32, 1);
  std::vector<float> b = RandomNormal(32, 2);
  for (size_t i = 0; i < b.size(); ++i) b[i] = 7 * (b[i] + a[i]);
  const double along = InnerProduct(a, b) / InnerProduct(b, b);
  std::vector<double> rest(a.size());
  for (size_t i = 0; i < a.size(); ++i) rest[i] = a[i] - along * b[i];
  const double r = InnerProduct(a, b) / (Norm(a) * Norm(b));
  EXPECT_NEAR(*NoiseFloor(r), Norm(rest) / Norm(a), 1e-12);
}

TEST(NoiseFloor, IsAbsentWithoutHalvesThatAgree) {
  EXPECT_FALSE(NoiseFloor(std::nullopt).has_value());
  EXPECT_FALSE(NoiseFloor(-0.5).has_value());
  EXPECT_DOUBLE_EQ(*NoiseFloor(0.0), 1);
  EXPECT_DOUBLE_EQ(*NoiseFloor(1.0), 0);
  EXPECT_DOUBLE_EQ(*NoiseFloor(1 + 1e-16), 0);
}

TEST(Disattenuated, NeedsTwoPositiveReliabilities) {
  EXPECT_NEAR(*Disattenuated(0.5, 0.25, 0.64), 1.25, 1e-12);
  EXPECT_FALSE(Disattenuated(0.5, std::nullopt, 0.64).has_value());
  EXPECT_FALSE(Disattenuated(0.5, 0.25, 0.0).has_value());
  EXPECT_FALSE(Disattenuated(0.5, -0.25, -0.64).has_value());
}

}  // namespace
}  // namespace valuescope::analysis
