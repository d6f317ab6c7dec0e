// What a model would say next, told among a few labels by their probabilities, without drawing any.
//
// A label has one spelling or several ("yes", "Yes"), each with a space before it or without. Where
// single tokens spell every label, and none spells two, p(label) is the sum over its tokens, read
// from the logits behind the prompt. Otherwise the labels are told in one of two ways.
//
// Sequences: every label is scored by the probability of its whole sequence of tokens, that of its
// likeliest spelling. Where the sequence of one label begins that of another ("1" and "10" as
// digits), the probability of the longer is taken out of the shorter, which would count both.
//
// First tokens: a label that no single token spells is read by the first tokens of its spellings.
// Tokens that labels share count for none.
#ifndef VALUESCOPE_SERVICES_LABEL_READING_H_
#define VALUESCOPE_SERVICES_LABEL_READING_H_

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "engine/served_model.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

// Of one label, without spaces around them; at least one.
using Spellings = std::vector<std::string>;

enum class UnspelledLabels { kBySequences, kByFirstTokens };

// Labels as tokens of a model. Immutable.
class LabelTokens {
 public:
  // FAILED_PRECONDITION, reason UNREADABLE_LABELS: the model's tokens do not tell the labels apart.
  static absl::StatusOr<LabelTokens> Of(const std::vector<Spellings>& labels,
                                        const engine::ServedModel& model,
                                        UnspelledLabels unspelled = UnspelledLabels::kBySequences);

  size_t size() const { return tokens_.empty() ? sequences_.size() : tokens_.size(); }
  bool by_sequences() const { return tokens_.empty(); }
  // One a label; none where sequences are read.
  const std::vector<std::set<int32_t>>& tokens() const { return tokens_; }
  // By label, by spelling; none where single tokens are read.
  const std::vector<std::vector<std::vector<int32_t>>>& sequences() const { return sequences_; }

  // Forward passes that one prompt takes, and tokens behind it that they feed in all and at most.
  struct Cost {
    int64_t passes = 1;
    int64_t tokens = 0;
    int64_t longest = 0;
  };
  Cost CostOfPrompt() const;

 private:
  std::vector<std::set<int32_t>> tokens_;
  std::vector<std::vector<std::vector<int32_t>>> sequences_;
};

struct LabelReading {
  std::vector<double> probabilities;      // one a label: p(label) / p(all labels)
  double mass = 0;                        // p(all labels), 0 .. 1
  std::string text;                       // what was generated, where the request samples
  std::vector<engine::Receipt> receipts;  // one an intervention, positions over all passes
};

// From the logits behind a prompt [vocabulary].
LabelReading ReadTokens(std::span<const float> logits, const LabelTokens& labels);
// From the log-probability of each of labels.sequences(), in their order.
LabelReading ReadSequences(const std::vector<std::vector<double>>& logprobs,
                           const LabelTokens& labels);

// What reads the logits where labels are, when single tokens are read.
engine::Tap LogitsBehindThePrompt();

// What is asked, without taps and given response; what it samples begins where labels are read.
struct LabelQuestion {
  engine::Request request;
  const LabelTokens* labels = nullptr;  // outlive the call
};

// Of each question, in order, however its labels are read. What it costs is added to `usage`.
// Logits are let go as soon as they were read. Errors of engine::RunEach, without the index of a
// question.
absl::StatusOr<std::vector<LabelReading>> ReadLabels(engine::Engine& engine,
                                                     std::vector<LabelQuestion> questions,
                                                     const Cancellation& cancellation,
                                                     v1::Usage& usage);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_LABEL_READING_H_
