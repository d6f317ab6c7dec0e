#include "services/judges.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "services/label_reading.h"
#include "text/word_list.h"

namespace valuescope::services {
namespace {

constexpr char kQueryPlace[] = "{query}", kResponsePlace[] = "{response}";
constexpr double kDefaultThreshold = .5;

// --- Words ---------------------------------------------------------------------------------------

class JudgeByWords : public Judge {
 public:
  JudgeByWords(std::unique_ptr<text::WordList> words, std::string description)
      : words_(std::move(words)), description_(std::move(description)) {}

  std::string Description() const override { return description_; }

  absl::StatusOr<int64_t> MostTokens(absl::string_view, int64_t) const override { return 0; }

  absl::StatusOr<std::vector<Judgement>> Label(std::span<const Answered> responses,
                                               const JudgedFor& whom, v1::Usage&) const override {
    std::vector<Judgement> judgements;
    for (const Answered& one : responses) {
      VS_RETURN_IF_ERROR(CheckGoesOn(whom.cancellation));
      VS_ASSIGN_OR_RETURN(judgements.emplace_back().expresses, words_->OccursIn(one.response));
    }
    return judgements;
  }

 private:
  const std::unique_ptr<text::WordList> words_;
  const std::string description_;
};

absl::StatusOr<std::unique_ptr<const Judge>> WordsFromProto(absl::string_view field,
                                                            const v1::WordListJudge& list) {
  const std::vector<std::string> words(list.words().begin(), list.words().end());
  auto made = text::WordList::Create(words);
  if (!made.ok()) return InField(field, made.status());
  return std::make_unique<JudgeByWords>(
      *std::move(made), absl::StrCat("word list, sha256 ", Sha256Hex(absl::StrJoin(words, "\n"))));
}

// --- A model -------------------------------------------------------------------------------------

// Of labels that a judge's tokens do not tell apart.
absl::Status Unreadable(const absl::Status& status, absl::string_view field,
                        const engine::ServedModel& model, absl::string_view labels) {
  if (DetailsOf(status).reason != "UNREADABLE_LABELS") return status;
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "UNREADABLE_JUDGE",
                         absl::StrCat("`", field, ".model`: models/", model.id,
                                      " has no tokens that tell ", labels, " apart"));
}

std::vector<Rubric::Filling> FillingsOf(std::span<const Answered> responses) {
  std::vector<Rubric::Filling> fillings;
  for (const Answered& one : responses) fillings.push_back({one.query, one.response});
  return fillings;
}

class JudgeByModel : public Judge {
 public:
  JudgeByModel(Rubric rubric, double threshold)
      : rubric_(std::move(rubric)), threshold_(threshold) {}

  std::string Description() const override { return rubric_.Description(); }

  absl::StatusOr<int64_t> MostTokens(absl::string_view query, int64_t tokens) const override {
    return rubric_.MostTokens({std::string(query), ""}, tokens);
  }

  absl::StatusOr<std::vector<Judgement>> Label(std::span<const Answered> responses,
                                               const JudgedFor& whom,
                                               v1::Usage& usage) const override {
    VS_ASSIGN_OR_RETURN(const std::vector<LabelReading> readings,
                        rubric_.Ask(FillingsOf(responses), whom, usage));
    std::vector<Judgement> judgements;
    for (const LabelReading& reading : readings) {
      const double yes = reading.probabilities.front();
      judgements.push_back({.expresses = yes >= threshold_,
                            .answer = YesOrNo{.probability = yes, .mass = reading.mass}});
    }
    return judgements;
  }

 private:
  const Rubric rubric_;
  const double threshold_;
};

absl::StatusOr<std::unique_ptr<const Judge>> RubricFromProto(
    absl::string_view field, const v1::RubricJudge& judge,
    std::shared_ptr<const engine::ServedModel> model, absl::Time now) {
  const double threshold = judge.has_threshold() ? judge.threshold() : kDefaultThreshold;
  if (!(threshold >= 0 && threshold <= 1)) {
    return OutOfRange(absl::StrCat(field, ".threshold"), threshold, 0, 1);
  }
  auto labels = LabelTokens::Of({{"yes", "Yes", "YES"}, {"no", "No", "NO"}}, *model,
                                UnspelledLabels::kByFirstTokens);
  if (!labels.ok()) return Unreadable(labels.status(), field, *model, "yes and no");
  VS_ASSIGN_OR_RETURN(Rubric rubric, Rubric::Create(absl::StrCat(field, ".rubric"), judge.rubric(),
                                                    {kQueryPlace, kResponsePlace},
                                                    *std::move(labels), std::move(model), now));
  return std::make_unique<JudgeByModel>(std::move(rubric), threshold);
}

// --- Grades --------------------------------------------------------------------------------------

constexpr int kBestGrade = 10;

class JudgeByGrade : public Judge {
 public:
  explicit JudgeByGrade(Rubric rubric) : rubric_(std::move(rubric)) {}

  std::string Description() const override { return rubric_.Description(); }

  absl::StatusOr<int64_t> MostTokens(absl::string_view query, int64_t tokens) const override {
    return rubric_.MostTokens({std::string(query), ""}, tokens);
  }

  absl::StatusOr<std::vector<Judgement>> Label(std::span<const Answered> responses,
                                               const JudgedFor& whom,
                                               v1::Usage& usage) const override {
    VS_ASSIGN_OR_RETURN(const std::vector<LabelReading> readings,
                        rubric_.Ask(FillingsOf(responses), whom, usage));
    std::vector<Judgement> judgements;
    for (const LabelReading& reading : readings) {
      double expected = 0;
      for (size_t grade = 0; grade < reading.probabilities.size(); ++grade) {
        expected += static_cast<double>(grade) * reading.probabilities[grade];
      }
      judgements.push_back({.grade = Grade{.expected = expected, .mass = reading.mass}});
    }
    return judgements;
  }

 private:
  const Rubric rubric_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<const Judge>> JudgeFromProto(
    absl::string_view field, const v1::Judge& judge,
    std::shared_ptr<const engine::ServedModel> model, absl::Time now) {
  switch (judge.judge_case()) {
    case v1::Judge::kWordList:
      return WordsFromProto(absl::StrCat(field, ".word_list"), judge.word_list());
    case v1::Judge::kRubric:
      return RubricFromProto(absl::StrCat(field, ".rubric"), judge.rubric(), std::move(model), now);
    case v1::Judge::JUDGE_NOT_SET:
      break;
  }
  return InvalidField(field, "must be a word_list or a rubric");
}

absl::StatusOr<std::unique_ptr<const Judge>> GradeFromProto(
    absl::string_view field, const v1::GradeJudge& judge,
    std::shared_ptr<const engine::ServedModel> model, absl::Time now) {
  std::vector<Spellings> grades;
  for (int grade = 0; grade <= kBestGrade; ++grade) grades.push_back({absl::StrCat(grade)});
  auto labels = LabelTokens::Of(grades, *model);
  if (!labels.ok()) return Unreadable(labels.status(), field, *model, "the numbers from 0 to 10");
  VS_ASSIGN_OR_RETURN(Rubric rubric, Rubric::Create(absl::StrCat(field, ".rubric"), judge.rubric(),
                                                    {kQueryPlace, kResponsePlace},
                                                    *std::move(labels), std::move(model), now));
  return std::make_unique<JudgeByGrade>(std::move(rubric));
}

}  // namespace valuescope::services
