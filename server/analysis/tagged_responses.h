// What the log-probabilities of responses say of values, where each response speaks for or against
// some with known weights: a value's score is the mean of its responses' log-probabilities, each
// less the mean of all responses that have a weight, weighted and signed by what they say.
#ifndef VALUESCOPE_ANALYSIS_TAGGED_RESPONSES_H_
#define VALUESCOPE_ANALYSIS_TAGGED_RESPONSES_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace valuescope::analysis {

struct TaggedLogprob {
  double logprob = 0;
  std::vector<std::pair<int, double>> weights;  // value and weight, none of them 0
};

struct TaggedValue {
  double score = 0;    // sum of weight (logprob - mean) / sum of |weight|
  double centred = 0;  // less the mean over the values
  int num_responses = 0;
};

// Of values 0 .. num_values - 1, each of which some response has a weight on.
std::vector<TaggedValue> ScoreTaggedResponses(std::span<const TaggedLogprob> responses,
                                              int num_values);

// Of wordings.
struct MeanAndSpread {
  double mean = 0;
  double spread = 0;  // standard deviation, n - 1; 0 of one
};
MeanAndSpread MeanAndSpreadOf(std::span<const double> numbers);  // at least one

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_TAGGED_RESPONSES_H_
