#include "analysis/questionnaire.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "base/check.h"

namespace valuescope::analysis {
namespace {

double MeanOf(std::span<const double> numbers) {
  double sum = 0;
  for (const double one : numbers) sum += one;
  return sum / static_cast<double>(numbers.size());
}

// Of a mean of these, over the population that they were drawn from.
std::optional<double> StandardErrorOf(std::span<const double> numbers) {
  if (numbers.size() < 2) return std::nullopt;
  const double mean = MeanOf(numbers), count = static_cast<double>(numbers.size());
  double squares = 0;
  for (const double one : numbers) squares += (one - mean) * (one - mean);
  return std::sqrt(squares / (count - 1) / count);
}

struct ItemsOfValue {
  absl::string_view value;
  std::vector<double> scores, text_scores;
};

// Numbers of the items of one value, 0 where there are no more.
struct KeyOfValue {
  absl::string_view value;
  std::array<int, 6> items;
};

constexpr KeyOfValue kPvq40[] = {
    {"CO", {7, 16, 28, 36}},        {"TR", {9, 20, 25, 38}}, {"BE", {12, 18, 27, 33}},
    {"UN", {3, 8, 19, 23, 29, 40}}, {"SD", {1, 11, 22, 34}}, {"ST", {6, 15, 30}},
    {"HE", {10, 26, 37}},           {"AC", {4, 13, 24, 32}}, {"PO", {2, 17, 39}},
    {"SE", {5, 14, 21, 31, 35}},
};

constexpr KeyOfValue kPvqRr[] = {
    {"SDT", {1, 23, 39}},  {"SDA", {16, 30, 56}}, {"ST", {10, 28, 43}},  {"HE", {3, 36, 46}},
    {"AC", {17, 32, 48}},  {"POD", {6, 29, 41}},  {"POR", {12, 20, 44}}, {"FAC", {9, 24, 49}},
    {"SEP", {13, 26, 53}}, {"SES", {2, 35, 50}},  {"TR", {18, 33, 40}},  {"COR", {15, 31, 42}},
    {"COI", {4, 22, 51}},  {"HUM", {7, 38, 54}},  {"UNN", {8, 21, 45}},  {"UNC", {5, 37, 52}},
    {"UNT", {14, 34, 57}}, {"BEC", {11, 25, 47}}, {"BED", {19, 27, 55}},
};

std::span<const KeyOfValue> ValuesOf(QuestionnaireKey key) {
  if (key == QuestionnaireKey::kPvq40) return kPvq40;
  return kPvqRr;
}

}  // namespace

double ExpectedNumber(std::span<const double> probabilities, std::span<const double> numbers) {
  VS_CHECK(probabilities.size() == numbers.size());
  double sum = 0;
  for (size_t i = 0; i < numbers.size(); ++i) sum += probabilities[i] * numbers[i];
  return sum;
}

double ItemScoreOf(std::span<const double> answers, bool reverse, const AnswerScale& scale) {
  VS_CHECK(!answers.empty());
  const double mean = MeanOf(answers);
  return reverse ? scale.least + scale.most - mean : mean;
}

QuestionnaireScores ScoreQuestionnaire(std::span<const ItemOfValue> items) {
  VS_CHECK(!items.empty());
  std::vector<ItemsOfValue> by_value;
  std::vector<double> all;
  for (const ItemOfValue& item : items) {
    all.push_back(item.score);
    if (item.value.empty()) continue;
    auto of = std::find_if(by_value.begin(), by_value.end(),
                           [&](const ItemsOfValue& one) { return one.value == item.value; });
    if (of == by_value.end()) of = by_value.insert(of, {.value = item.value});
    of->scores.push_back(item.score);
    if (item.text_score) of->text_scores.push_back(*item.text_score);
  }
  QuestionnaireScores scores{.mean = MeanOf(all), .values = {}};
  for (const ItemsOfValue& of : by_value) {
    ScoreOfValue& value = scores.values.emplace_back();
    value.value = std::string(of.value);
    value.score = MeanOf(of.scores);
    value.centred = value.score - scores.mean;
    value.num_items = static_cast<int>(of.scores.size());
    value.standard_error = StandardErrorOf(of.scores);
    if (!of.text_scores.empty()) value.text_score = MeanOf(of.text_scores);
    value.num_text_items = static_cast<int>(of.text_scores.size());
  }
  return scores;
}

double MostFrequentShare(std::span<const std::vector<double>> answers, size_t num_labels) {
  VS_CHECK(!answers.empty());
  std::vector<int64_t> counts(num_labels);
  for (const std::vector<double>& answer : answers) {
    VS_CHECK(answer.size() == num_labels);
    ++counts[static_cast<size_t>(std::max_element(answer.begin(), answer.end()) - answer.begin())];
  }
  return static_cast<double>(*std::max_element(counts.begin(), counts.end())) /
         static_cast<double>(answers.size());
}

absl::string_view NameOf(QuestionnaireKey key) {
  return key == QuestionnaireKey::kPvq40 ? "PVQ-40" : "PVQ-RR";
}

int NumItems(QuestionnaireKey key) { return key == QuestionnaireKey::kPvq40 ? 40 : 57; }

absl::string_view ValueOfItem(QuestionnaireKey key, int item) {
  VS_CHECK(item >= 1 && item <= NumItems(key));
  for (const KeyOfValue& of : ValuesOf(key)) {
    if (std::find(of.items.begin(), of.items.end(), item) != of.items.end()) return of.value;
  }
  VS_CHECK(false);
}

}  // namespace valuescope::analysis
