#include "analysis/diversity.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

constexpr size_t kMostOrders = 4;

// An n-gram where it stands.
struct Place {
  const int32_t* at = nullptr;
  int32_t response = 0;
};

// All n-grams of the responses, equal ones together, those in order of their responses. Sorting
// places needs no hash of token sequences and gives the same order, and so the same bits, every
// time.
std::vector<Place> SortedNgrams(std::span<const TokenSpan> responses, size_t n) {
  std::vector<Place> places;
  for (size_t r = 0; r < responses.size(); ++r) {
    for (size_t i = 0; i + n <= responses[r].size(); ++i) {
      places.push_back({responses[r].data() + i, static_cast<int32_t>(r)});
    }
  }
  std::sort(places.begin(), places.end(), [n](const Place& a, const Place& b) {
    const auto order = std::lexicographical_compare_three_way(a.at, a.at + n, b.at, b.at + n);
    return order != 0 ? order < 0 : a.response < b.response;
  });
  return places;
}

// Calls `visit` with the places of each different n-gram.
template <typename Visit>
void ForEachNgram(std::span<const Place> places, size_t n, const Visit& visit) {
  for (size_t first = 0, end = 0; first < places.size(); first = end) {
    while (end < places.size() &&
           std::equal(places[end].at, places[end].at + n, places[first].at)) {
      ++end;
    }
    visit(places.subspan(first, end - first));
  }
}

// How often one n-gram stands in a response.
struct Occurrence {
  int32_t response = 0;
  int64_t count = 0;
};

std::vector<Occurrence> ByResponse(std::span<const Place> places) {
  std::vector<Occurrence> found;
  for (const Place& place : places) {
    if (found.empty() || found.back().response != place.response) {
      found.push_back({.response = place.response});
    }
    ++found.back().count;
  }
  return found;
}

// Of each response how many of its n-grams another response has, counted as often as the other
// that has most of them does. That is the largest count of all responses or, for the one whose it
// is, the second largest, so no pair of responses has to be looked at.
std::vector<int64_t> ClippedMatches(std::span<const TokenSpan> responses, size_t n) {
  std::vector<int64_t> matches(responses.size(), 0);
  const std::vector<Place> places = SortedNgrams(responses, n);
  ForEachNgram(places, n, [&matches](std::span<const Place> of_ngram) {
    const std::vector<Occurrence> found = ByResponse(of_ngram);
    Occurrence largest;
    int64_t second = 0;
    for (const Occurrence& one : found) {
      if (one.count > largest.count) {
        second = largest.count;
        largest = one;
      } else {
        second = std::max(second, one.count);
      }
    }
    for (const Occurrence& one : found) {
      const int64_t others = one.response == largest.response ? second : largest.count;
      matches[static_cast<size_t>(one.response)] += std::min(one.count, others);
    }
  });
  return matches;
}

std::vector<int64_t> SortedLengths(std::span<const TokenSpan> responses) {
  std::vector<int64_t> lengths;
  for (const TokenSpan& response : responses) {
    lengths.push_back(static_cast<int64_t>(response.size()));
  }
  std::sort(lengths.begin(), lengths.end());
  return lengths;
}

// Of the others; `lengths` are those of all, at least two, ascending. Of two equally close the
// shorter.
int64_t ClosestLength(std::span<const int64_t> lengths, int64_t length) {
  const auto own = std::lower_bound(lengths.begin(), lengths.end(), length);
  const auto next = own + 1;
  if (own == lengths.begin()) return *next;
  if (next == lengths.end()) return *(own - 1);
  return *next - length < length - *(own - 1) ? *next : *(own - 1);
}

}  // namespace

absl::StatusOr<NgramDiversity> ComputeNgramDiversity(std::span<const TokenSpan> responses, int n,
                                                     int64_t vocabulary_size) {
  if (n < 1 || n > 16) return OutOfRange("n", n, 1, 16);
  if (vocabulary_size < 1) {
    return OutOfRange("vocabulary_size", static_cast<double>(vocabulary_size), 1,
                      static_cast<double>(std::numeric_limits<int64_t>::max()));
  }
  const auto length = static_cast<size_t>(n);
  const std::vector<Place> places = SortedNgrams(responses, length);
  NgramDiversity out;
  out.num_ngrams = static_cast<int64_t>(places.size());
  if (out.num_ngrams == 0) return out;

  const double total = static_cast<double>(out.num_ngrams);
  double entropy = 0;
  ForEachNgram(places, length, [&](std::span<const Place> of_ngram) {
    ++out.num_distinct;
    const double p = static_cast<double>(of_ngram.size()) / total;
    entropy -= p * std::log2(p);
  });
  const double distinct = static_cast<double>(out.num_distinct);
  const double vocabulary = static_cast<double>(vocabulary_size);
  out.distinct = distinct / total;
  out.expectation_adjusted = ExpectationAdjustedDistinct(distinct, total, vocabulary);
  out.entropy = entropy;
  return out;
}

double ExpectationAdjustedDistinct(double distinct, double ngrams, double vocabulary) {
  return distinct / (-vocabulary * std::expm1(ngrams * std::log1p(-1.0 / vocabulary)));
}

std::optional<double> SelfBleu(std::span<const TokenSpan> responses) {
  if (responses.size() < 2) return std::nullopt;
  std::vector<double> log_precisions(responses.size(), 0);  // summed over the orders
  for (size_t n = 1; n <= kMostOrders; ++n) {
    const std::vector<int64_t> matches = ClippedMatches(responses, n);
    const double smoothing = n == 1 ? 0 : 1;
    for (size_t r = 0; r < responses.size(); ++r) {
      if (responses[r].size() < n) continue;
      const auto ngrams = static_cast<double>(responses[r].size() - n + 1);
      // No match of one token makes it minus infinity for good.
      log_precisions[r] +=
          std::log((static_cast<double>(matches[r]) + smoothing) / (ngrams + smoothing));
    }
  }
  const std::vector<int64_t> lengths = SortedLengths(responses);
  double sum = 0;
  for (size_t r = 0; r < responses.size(); ++r) {
    const auto length = static_cast<int64_t>(responses[r].size());
    const auto orders = static_cast<double>(std::min(kMostOrders, responses[r].size()));
    const double closest = static_cast<double>(ClosestLength(lengths, length));
    const double brevity = std::min(0.0, 1 - closest / static_cast<double>(length));
    sum += std::exp(brevity + log_precisions[r] / orders);
  }
  return sum / static_cast<double>(responses.size());
}

int64_t DiversityBytes(int64_t num_responses, int64_t num_tokens) {
  constexpr int64_t kOfAResponse = 2 * sizeof(int64_t) + sizeof(double) + sizeof(Occurrence);
  // The list of places grows by doubling.
  return 2 * static_cast<int64_t>(sizeof(Place)) * num_tokens + 2 * kOfAResponse * num_responses;
}

bool IsCoherent(TokenSpan response) {
  if (response.size() < kFewestRepeated) return true;
  const auto repeats = [response](size_t n) {
    const std::vector<Place> places = SortedNgrams(std::span(&response, 1), n);
    bool found = false;
    ForEachNgram(places, n, [&](std::span<const Place> of_ngram) {
      found = found || 2 * of_ngram.size() > places.size();
    });
    return found;
  };
  return !repeats(1) && !repeats(2);
}

}  // namespace valuescope::analysis
