#include "analysis/token_scores.h"

#include <algorithm>

#include "analysis/inner_product.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

std::vector<int32_t> IdsOf(const std::vector<ScoredToken>& tokens) {
  std::vector<int32_t> ids;
  for (const ScoredToken& token : tokens) ids.push_back(token.id);
  return ids;
}

// Every product by hand and sorted as a whole; widths with and without a rest beside whole lanes.
TEST(AddTokens, FindsTheEndsOfAllInnerProductsInWhateverPartsTheyCome) {
  constexpr int64_t kTokens = 53, kDirections = 3;
  for (const int64_t width : {5, 16, 37}) {
    const std::vector<float> rows = RandomNormal(kTokens * width, 1);
    const std::vector<float> directions = RandomNormal(kDirections * width, 2);
    for (const int64_t part : {1, 20, 53}) {
      std::vector<ExtremeScores> scores(kDirections, ExtremeScores(4));
      for (int64_t first = 0; first < kTokens; first += part) {
        AddTokens(std::span(rows).subspan(first * width, std::min(part, kTokens - first) * width),
                  directions, width, static_cast<int32_t>(first), scores);
      }
      for (int64_t d = 0; d < kDirections; ++d) {
        std::vector<ScoredToken> all;
        for (int64_t t = 0; t < kTokens; ++t) {
          all.push_back({.id = static_cast<int32_t>(t),
                         .score = InnerProduct(std::span(rows).subspan(t * width, width),
                                               std::span(directions).subspan(d * width, width))});
        }
        std::sort(all.begin(), all.end(),
                  [](const auto& a, const auto& b) { return a.score > b.score; });
        const std::vector<ScoredToken> largest = scores[d].Largest(),
                                       smallest = scores[d].Smallest();
        ASSERT_EQ(largest.size(), 4u);
        ASSERT_EQ(smallest.size(), 4u);
        for (size_t i = 0; i < 4; ++i) {
          EXPECT_EQ(largest[i].id, all[i].id);
          EXPECT_NEAR(largest[i].score, all[i].score, 1e-12);
          EXPECT_EQ(smallest[i].id, all[all.size() - 1 - i].id);
        }
      }
    }
  }
}

TEST(ExtremeScores, EqualScoresComeByTheirIds) {
  ExtremeScores scores(2);
  for (const int32_t id : {4, 1, 3, 0, 2}) scores.Add({.id = id, .score = 1});
  EXPECT_EQ(IdsOf(scores.Largest()), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(IdsOf(scores.Smallest()), (std::vector<int32_t>{0, 1}));
}

TEST(ExtremeScores, FewerTokensThanAskedForAreAllThere) {
  ExtremeScores scores(3), none(0);
  for (const int32_t id : {0, 1}) {
    scores.Add({.id = id, .score = -1.0 * id});
    none.Add({.id = id, .score = -1.0 * id});
  }
  EXPECT_EQ(IdsOf(scores.Largest()), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(IdsOf(scores.Smallest()), (std::vector<int32_t>{1, 0}));
  EXPECT_TRUE(none.Largest().empty());
}

}  // namespace
}  // namespace valuescope::analysis
