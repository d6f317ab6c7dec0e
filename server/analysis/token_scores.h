// The tokens that a direction in the residual stream speaks for and against: its inner products
// with the rows of the unembedding, of which a few at either end are kept as the rows come by.
#ifndef VALUESCOPE_ANALYSIS_TOKEN_SCORES_H_
#define VALUESCOPE_ANALYSIS_TOKEN_SCORES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace valuescope::analysis {

struct ScoredToken {
  int32_t id = 0;
  double score = 0;
};

// The `count` largest and the `count` smallest of the scores that it is given, each id once. Of
// equal scores the lower id comes first, in whatever parts they come.
class ExtremeScores {
 public:
  explicit ExtremeScores(size_t count) : count_(count) {}

  void Add(const ScoredToken& token);

  std::vector<ScoredToken> Largest() const;   // largest first
  std::vector<ScoredToken> Smallest() const;  // smallest first

 private:
  const size_t count_;
  std::vector<ScoredToken> largest_, smallest_;  // heaps, the one to go first at the top
};

// Adds tokens first_token, ... to `scores` of every direction: the inner products, in float64, of
// its row [width] of `directions` [scores, width] and each of `rows` [tokens, width].
void AddTokens(std::span<const float> rows, std::span<const float> directions, int64_t width,
               int32_t first_token, std::span<ExtremeScores> scores);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_TOKEN_SCORES_H_
