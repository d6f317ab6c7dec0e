#include "analysis/token_scores.h"

#include <algorithm>

#include "base/check.h"
#include "base/vectorised.h"

namespace valuescope::analysis {
namespace {

bool IsLarger(const ScoredToken& a, const ScoredToken& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

bool IsSmaller(const ScoredToken& a, const ScoredToken& b) {
  return a.score < b.score || (a.score == b.score && a.id < b.id);
}

// Keeps the `count` that come first under `before` in a heap whose top is the last of them.
template <typename Before>
void Keep(std::vector<ScoredToken>& heap, size_t count, const ScoredToken& token,
          const Before& before) {
  if (heap.size() == count) {
    if (count == 0 || !before(token, heap.front())) return;
    std::pop_heap(heap.begin(), heap.end(), before);
    heap.pop_back();
  }
  heap.push_back(token);
  std::push_heap(heap.begin(), heap.end(), before);
}

template <typename Before>
std::vector<ScoredToken> Sorted(std::vector<ScoredToken> heap, const Before& before) {
  std::sort_heap(heap.begin(), heap.end(), before);
  return heap;
}

// Tokens whose rows stay near the processor while all directions go by.
constexpr int64_t kTokensAtOnce = 16;

// Rows of tokens against one direction: `products` [num_tokens]. Sums of the elements of one place
// among kLanes are added up at the end.
VS_VECTORISED void Products(const float* rows, int64_t num_tokens, const float* direction,
                            int64_t width, double* products) {
  const int64_t whole = width - width % kLanes;
  for (int64_t t = 0; t < num_tokens; ++t) {
    const float* row = rows + t * width;
    double sums[kLanes] = {};
    for (int64_t i = 0; i < whole; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        sums[lane] += static_cast<double>(row[i + lane]) * direction[i + lane];
      }
    }
    double sum = 0;
    for (const double one : sums) sum += one;
    for (int64_t i = whole; i < width; ++i) sum += static_cast<double>(row[i]) * direction[i];
    products[t] = sum;
  }
}

}  // namespace

void ExtremeScores::Add(const ScoredToken& token) {
  Keep(largest_, count_, token, IsLarger);
  Keep(smallest_, count_, token, IsSmaller);
}

std::vector<ScoredToken> ExtremeScores::Largest() const { return Sorted(largest_, IsLarger); }

std::vector<ScoredToken> ExtremeScores::Smallest() const { return Sorted(smallest_, IsSmaller); }

void AddTokens(std::span<const float> rows, std::span<const float> directions, int64_t width,
               int32_t first_token, std::span<ExtremeScores> scores) {
  VS_CHECK(width > 0 && directions.size() == scores.size() * static_cast<size_t>(width));
  const int64_t num_tokens = static_cast<int64_t>(rows.size()) / width;
  double products[kTokensAtOnce];
  for (int64_t begin = 0; begin < num_tokens; begin += kTokensAtOnce) {
    const int64_t count = std::min(kTokensAtOnce, num_tokens - begin);
    for (size_t d = 0; d < scores.size(); ++d) {
      Products(rows.data() + begin * width, count,
               directions.data() + static_cast<int64_t>(d) * width, width, products);
      for (int64_t t = 0; t < count; ++t) {
        scores[d].Add({.id = first_token + static_cast<int32_t>(begin + t), .score = products[t]});
      }
    }
  }
}

}  // namespace valuescope::analysis
