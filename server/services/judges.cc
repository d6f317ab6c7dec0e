#include "services/judges.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "engine/engine.h"
#include "services/label_reading.h"
#include "services/prompt_codec.h"
#include "services/user_turns.h"
#include "text/word_list.h"

namespace valuescope::services {
namespace {

constexpr char kQueryPlace[] = "{query}", kResponsePlace[] = "{response}";
constexpr double kDefaultThreshold = .5;
constexpr size_t kMostRubricBytes = 16384;  // it stands in records

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

absl::StatusOr<LabelTokens> YesAndNoOf(absl::string_view field, const engine::ServedModel& model) {
  auto tokens = LabelTokens::Of({{"yes", "Yes", "YES"}, {"no", "No", "NO"}}, model,
                                UnspelledLabels::kByFirstTokens);
  if (DetailsOf(tokens.status()).reason != "UNREADABLE_LABELS") return tokens;
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition, "UNREADABLE_JUDGE",
      absl::StrCat("`", field, "`: models/", model.id, " has no tokens that tell yes from no"));
}

class JudgeByModel : public Judge {
 public:
  JudgeByModel(std::string field, const v1::RubricJudge& rubric,
               std::shared_ptr<const engine::ServedModel> model, LabelTokens yes_and_no,
               absl::Time now)
      : field_(std::move(field)),
        rubric_(rubric),
        model_(std::move(model)),
        yes_and_no_(std::move(yes_and_no)),
        now_(now) {}

  // A template that inserts a system message of its own where there is none writes more than for an
  // empty one. One that takes no system message has nothing to insert.
  absl::Status ChooseSystemMessage() {
    VS_ASSIGN_OR_RETURN(const TokenisedPrompt without,
                        Tokenised(rubric_.rubric(), /*empty_system=*/false));
    const auto with = Tokenised(rubric_.rubric(), /*empty_system=*/true);
    if (!with.ok() && !absl::IsInvalidArgument(with.status())) return with.status();
    empty_system_ = with.ok() && with->text.size() < without.text.size();
    return absl::OkStatus();
  }

  std::string Description() const override {
    return absl::StrCat("rubric of models/", model_->id, ", sha256 ", Sha256Hex(rubric_.rubric()));
  }

  absl::StatusOr<int64_t> MostTokens(absl::string_view query, int64_t tokens) const override {
    VS_ASSIGN_OR_RETURN(const TokenisedPrompt prompt,
                        PromptOf({.query = std::string(query), .response = ""}));
    const int64_t most = static_cast<int64_t>(prompt.ids.size()) + tokens;
    if (most <= model_->architecture.max_positions) return most;
    return InvalidField(absl::StrCat(field_, ".rubric"),
                        absl::StrCat("with a query and a response of ", tokens, " tokens may take ",
                                     most, " tokens, the context of models/", model_->id, " is ",
                                     model_->architecture.max_positions),
                        "CONTEXT_EXCEEDED");
  }

  absl::StatusOr<std::vector<Judgement>> Label(std::span<const Answered> responses,
                                               const JudgedFor& whom,
                                               v1::Usage& usage) const override {
    std::vector<LabelQuestion> questions;
    for (const Answered& one : responses) {
      VS_RETURN_IF_ERROR(CheckGoesOn(whom.cancellation));
      VS_ASSIGN_OR_RETURN(TokenisedPrompt prompt, PromptOf(one));
      questions.push_back({RequestOf(std::move(prompt.ids), whom), &yes_and_no_});
    }
    auto readings = ReadLabels(*model_->engine, std::move(questions), whom.cancellation, usage);
    if (!readings.ok()) return AtRubric(readings.status());
    std::vector<Judgement> judgements;
    for (const LabelReading& reading : *readings) judgements.push_back(JudgementOf(reading));
    return judgements;
  }

 private:
  static engine::Request RequestOf(std::vector<int32_t> prompt, const JudgedFor& whom) {
    engine::Request request;
    request.tenant = whom.tenant;
    request.background = whom.background;
    request.prompt = std::move(prompt);
    return request;
  }

  Judgement JudgementOf(const LabelReading& reading) const {
    const double yes = reading.probabilities.front();
    const double threshold = rubric_.has_threshold() ? rubric_.threshold() : kDefaultThreshold;
    return {.expresses = yes >= threshold,
            .answer = YesOrNo{.probability = yes, .mass = reading.mass}};
  }

  absl::StatusOr<TokenisedPrompt> PromptOf(const Answered& one) const {
    const text::Tokenizer& tokenizer = model_->text->tokenizer();
    return Tokenised(
        absl::StrReplaceAll(rubric_.rubric(),
                            {{kQueryPlace, WithoutControlTokens(one.query, tokenizer)},
                             {kResponsePlace, WithoutControlTokens(one.response, tokenizer)}}),
        empty_system_);
  }

  absl::StatusOr<TokenisedPrompt> Tokenised(const std::string& text, bool empty_system) const {
    const std::string empty;
    auto prompt = PromptFromProto("", UserTurn(empty_system ? &empty : nullptr, text), *model_,
                                  {.now = now_});
    if (!prompt.ok()) return AtRubric(prompt.status());
    return prompt;
  }

  // What is wrong with a prompt or a request for it, of the field that it was made of.
  absl::Status AtRubric(const absl::Status& status) const {
    const ErrorDetails details = DetailsOf(status);
    if (details.field.empty()) return status;
    return InvalidField(absl::StrCat(field_, ".rubric"),
                        absl::StrCat("filled in: ", details.description), details.reason);
  }

  const std::string field_;
  const v1::RubricJudge rubric_;
  const std::shared_ptr<const engine::ServedModel> model_;
  const LabelTokens yes_and_no_;
  const absl::Time now_;
  bool empty_system_ = false;
};

absl::Status CheckRubric(absl::string_view field, const v1::RubricJudge& rubric,
                         const engine::ServedModel& model) {
  const std::string text_field = absl::StrCat(field, ".rubric");
  if (rubric.rubric().size() > kMostRubricBytes) {
    return InvalidField(text_field, absl::StrCat("has ", rubric.rubric().size(),
                                                 " bytes, allowed are at most ", kMostRubricBytes));
  }
  for (const char* place : {kQueryPlace, kResponsePlace}) {
    if (absl::StrContains(rubric.rubric(), place)) continue;
    return InvalidField(text_field, absl::StrCat("must hold ", place));
  }
  VS_RETURN_IF_ERROR(CheckIsText(text_field, rubric.rubric(), model));
  if (!rubric.has_threshold() || (rubric.threshold() >= 0 && rubric.threshold() <= 1)) {
    return absl::OkStatus();
  }
  return OutOfRange(absl::StrCat(field, ".threshold"), rubric.threshold(), 0, 1);
}

absl::StatusOr<std::unique_ptr<const Judge>> RubricFromProto(
    absl::string_view field, const v1::RubricJudge& rubric,
    std::shared_ptr<const engine::ServedModel> model, absl::Time now) {
  VS_RETURN_IF_ERROR(CheckRubric(field, rubric, *model));
  VS_ASSIGN_OR_RETURN(LabelTokens yes_and_no, YesAndNoOf(absl::StrCat(field, ".model"), *model));
  auto judge = std::make_unique<JudgeByModel>(std::string(field), rubric, std::move(model),
                                              std::move(yes_and_no), now);
  VS_RETURN_IF_ERROR(judge->ChooseSystemMessage());
  return judge;
}

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

}  // namespace valuescope::services
