#include "analysis/diversity.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

// Number of occurrences of each distinct n-gram. Sorting places that hold the n-grams needs no hash
// of token sequences and gives the same order, and so the same bits of the entropy, every time.
std::vector<int64_t> Occurrences(std::span<const std::vector<int32_t>> responses, int n) {
  std::vector<const int32_t*> places;
  for (const std::vector<int32_t>& response : responses) {
    for (size_t i = 0; i + n <= response.size(); ++i) places.push_back(response.data() + i);
  }
  std::sort(places.begin(), places.end(), [n](const int32_t* a, const int32_t* b) {
    return std::lexicographical_compare(a, a + n, b, b + n);
  });
  std::vector<int64_t> occurrences;
  for (size_t i = 0; i < places.size(); ++i) {
    const bool repeats = i > 0 && std::equal(places[i], places[i] + n, places[i - 1]);
    if (repeats) {
      ++occurrences.back();
    } else {
      occurrences.push_back(1);
    }
  }
  return occurrences;
}

}  // namespace

absl::StatusOr<NgramDiversity> ComputeNgramDiversity(
    std::span<const std::vector<int32_t>> responses, int n, int64_t vocabulary_size) {
  if (n < 1 || n > 16) return OutOfRange("n", n, 1, 16);
  if (vocabulary_size < 1) {
    return OutOfRange("vocabulary_size", static_cast<double>(vocabulary_size), 1,
                      static_cast<double>(std::numeric_limits<int64_t>::max()));
  }
  const std::vector<int64_t> occurrences = Occurrences(responses, n);
  NgramDiversity out;
  out.num_distinct = static_cast<int64_t>(occurrences.size());
  for (const int64_t count : occurrences) out.num_ngrams += count;
  if (out.num_ngrams == 0) return out;

  const double total = static_cast<double>(out.num_ngrams);
  const double distinct = static_cast<double>(out.num_distinct);
  const double vocabulary = static_cast<double>(vocabulary_size);
  out.distinct = distinct / total;
  out.expectation_adjusted =
      distinct / (-vocabulary * std::expm1(total * std::log1p(-1.0 / vocabulary)));
  double entropy = 0;
  for (const int64_t count : occurrences) {
    const double p = static_cast<double>(count) / total;
    entropy -= p * std::log(p);
  }
  out.entropy = entropy;
  return out;
}

}  // namespace valuescope::analysis
