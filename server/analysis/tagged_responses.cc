#include "analysis/tagged_responses.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/check.h"

namespace valuescope::analysis {

std::vector<TaggedValue> ScoreTaggedResponses(std::span<const TaggedLogprob> responses,
                                              int num_values) {
  double sum = 0, count = 0;
  for (const TaggedLogprob& response : responses) {
    if (response.weights.empty()) continue;
    sum += response.logprob;
    ++count;
  }
  const double mean = sum / count;
  std::vector<TaggedValue> values(static_cast<size_t>(num_values));
  // Weights count by what they are beside a value's largest: no sum or product of the smallest and
  // largest numbers is lost.
  std::vector<double> largest(values.size()), sizes(values.size());
  for (const TaggedLogprob& response : responses) {
    for (const auto& [value, weight] : response.weights) {
      double& most = largest[static_cast<size_t>(value)];
      most = std::max(most, std::abs(weight));
    }
  }
  for (const TaggedLogprob& response : responses) {
    for (const auto& [value, weight] : response.weights) {
      const auto place = static_cast<size_t>(value);
      const double share = weight / largest[place];
      values[place].score += share * (response.logprob - mean);
      sizes[place] += std::abs(share);
      ++values[place].num_responses;
    }
  }
  double of_all = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    VS_CHECK(sizes[i] > 0);
    values[i].score /= sizes[i];
    of_all += values[i].score / static_cast<double>(values.size());
  }
  for (TaggedValue& value : values) value.centred = value.score - of_all;
  return values;
}

MeanAndSpread MeanAndSpreadOf(std::span<const double> numbers) {
  VS_CHECK(!numbers.empty());
  MeanAndSpread of;
  const auto count = static_cast<double>(numbers.size());
  for (const double one : numbers) of.mean += one / count;
  if (numbers.size() == 1) return of;
  double squares = 0;
  for (const double one : numbers) squares += (one - of.mean) * (one - of.mean);
  of.spread = std::sqrt(squares / (count - 1));
  return of;
}

}  // namespace valuescope::analysis
