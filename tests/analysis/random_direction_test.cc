#include "analysis/random_direction.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "analysis/inner_product.h"
#include "base/split_mix.h"

namespace valuescope::analysis {
namespace {

TEST(RandomDirection, IsBoxAndMullersNumbersBroughtToTheNorm) {
  for (const int64_t width : {1, 4, 7}) {
    std::vector<double> expected;
    for (uint64_t pair = 0; static_cast<int64_t>(expected.size()) < width; ++pair) {
      const double u = std::ldexp(static_cast<double>(SplitMix64(9, 2 * pair) >> 11), -53);
      const double v = std::ldexp(static_cast<double>(SplitMix64(9, 2 * pair + 1) >> 11), -53);
      const double length = std::sqrt(-2 * std::log(1 - u)), angle = 2 * std::acos(-1.0) * v;
      expected.push_back(length * std::cos(angle));
      if (static_cast<int64_t>(expected.size()) < width) {
        expected.push_back(length * std::sin(angle));
      }
    }
    const double norm = Norm(expected);
    const std::vector<float> direction = RandomDirection(width, /*norm=*/3, /*seed=*/9);
    ASSERT_EQ(direction.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(direction[i], 3 * expected[i] / norm, 1e-6) << i;
    }
  }
}

TEST(RandomDirection, IsEvenOverTheSphere) {
  constexpr int64_t kWidth = 3, kDraws = 20'000;
  std::vector<double> mean(kWidth), square(kWidth);
  std::set<std::vector<float>> seen;
  for (uint64_t seed = 0; seed < kDraws; ++seed) {
    const std::vector<float> direction = RandomDirection(kWidth, /*norm=*/1, seed);
    EXPECT_NEAR(Norm(direction), 1, 1e-6);
    seen.insert(direction);
    for (size_t i = 0; i < kWidth; ++i) {
      mean[i] += direction[i] / static_cast<double>(kDraws);
      square[i] += direction[i] * direction[i] / static_cast<double>(kDraws);
    }
  }
  EXPECT_EQ(seen.size(), kDraws);
  // Of x_i on the sphere in three dimensions: mean 0, variance 1/3, of x_i^2 variance 4/45; five
  // standard errors.
  for (size_t i = 0; i < kWidth; ++i) {
    EXPECT_NEAR(mean[i], 0, 5 * std::sqrt(1 / 3. / kDraws));
    EXPECT_NEAR(square[i], 1 / 3., 5 * std::sqrt(4 / 45. / kDraws));
  }
}

}  // namespace
}  // namespace valuescope::analysis
