// Scoring a questionnaire whose items ask how much something is like the one who answers.
//
// An answer is a distribution over options, each of which counts some number; its score is the
// expected number. An item's score is the mean over its answers, and of an item that speaks against
// its value, least + most - score. A value's score is the mean over its items. People (and models)
// differ in how much they agree with anything, so values are also given centred by MRAT, the mean
// over all items (Schwartz): the sum over values of n (score - MRAT) is 0 where every item has a
// value.
#ifndef VALUESCOPE_ANALYSIS_QUESTIONNAIRE_H_
#define VALUESCOPE_ANALYSIS_QUESTIONNAIRE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace valuescope::analysis {

// Sum of probability times number; as many of either.
double ExpectedNumber(std::span<const double> probabilities, std::span<const double> numbers);

// What the options count, at the ends.
struct AnswerScale {
  double least = 0, most = 0;
};

// Of an item's answers, at least one.
double ItemScoreOf(std::span<const double> answers, bool reverse, const AnswerScale& scale);

struct ItemOfValue {
  std::string value;  // empty: none
  double score = 0;
  std::optional<double> text_score;
};

struct ScoreOfValue {
  std::string value;
  double score = 0;    // mean over its items
  double centred = 0;  // score - MRAT
  int num_items = 0;
  std::optional<double> standard_error;  // over its items; absent for one
  std::optional<double> text_score;      // mean over items that have one; absent where none has
  int num_text_items = 0;
};

struct QuestionnaireScores {
  double mean = 0;                   // MRAT
  std::vector<ScoreOfValue> values;  // in the order in which they first occur
};

// Of at least one item.
QuestionnaireScores ScoreQuestionnaire(std::span<const ItemOfValue> items);

// Part of answers whose likeliest of `num_labels` labels, the first of equal ones, is that which is
// likeliest most often: 1 is a model that says the same whatever is asked. At least one answer.
double MostFrequentShare(std::span<const std::vector<double>> answers, size_t num_labels);

// --- Keys ----------------------------------------------------------------------------------------

// Which items, by number from 1, belong to which value. The questionnaires are their authors'; the
// numbers are not.
enum class QuestionnaireKey { kPvq40, kPvqRr };

// "PVQ-40".
absl::string_view NameOf(QuestionnaireKey key);
int NumItems(QuestionnaireKey key);
// Such as "CO"; 1 <= item <= NumItems(key).
absl::string_view ValueOfItem(QuestionnaireKey key, int item);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_QUESTIONNAIRE_H_
