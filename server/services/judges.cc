#include "services/judges.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/error.h"
#include "base/host_tensor.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "engine/engine.h"
#include "services/prompt_codec.h"
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

// Tokens that an answer may begin with.
struct AnswerTokens {
  std::set<int32_t> yes, no;
};

// Those that spell `word`, or where none does those that begin to.
absl::StatusOr<std::set<int32_t>> TokensOf(const std::array<const char*, 3>& spellings,
                                           const engine::ServedModel& model) {
  std::set<int32_t> whole, first;
  for (const char* spelling : spellings) {
    for (const char* before : {"", " "}) {
      VS_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                          model.text->EncodeText(absl::StrCat(before, spelling),
                                                 /*add_special_tokens=*/false));
      if (ids.empty() || ids.front() >= model.architecture.vocabulary) continue;
      (ids.size() == 1 ? whole : first).insert(ids.front());
    }
  }
  return whole.empty() ? first : whole;
}

absl::StatusOr<AnswerTokens> AnswerTokensOf(absl::string_view field,
                                            const engine::ServedModel& model) {
  AnswerTokens tokens;
  VS_ASSIGN_OR_RETURN(const auto yes, TokensOf({"yes", "Yes", "YES"}, model));
  VS_ASSIGN_OR_RETURN(const auto no, TokensOf({"no", "No", "NO"}, model));
  std::set_difference(yes.begin(), yes.end(), no.begin(), no.end(),
                      std::inserter(tokens.yes, tokens.yes.end()));
  std::set_difference(no.begin(), no.end(), yes.begin(), yes.end(),
                      std::inserter(tokens.no, tokens.no.end()));
  if (!tokens.yes.empty() && !tokens.no.empty()) return tokens;
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition, "UNREADABLE_JUDGE",
      absl::StrCat("`", field, "`: models/", model.id, " has no tokens that tell yes from no"));
}

// log sum exp of the logits of some tokens, in float64.
template <typename Tokens>
double LogSum(std::span<const float> logits, const Tokens& tokens) {
  double largest = -HUGE_VAL, sum = 0;
  for (const int32_t token : tokens) {
    largest = std::max(largest, static_cast<double>(logits[static_cast<size_t>(token)]));
  }
  for (const int32_t token : tokens) {
    sum += std::exp(static_cast<double>(logits[static_cast<size_t>(token)]) - largest);
  }
  return largest + std::log(sum);
}

YesOrNo ReadAnswer(std::span<const float> logits, const AnswerTokens& tokens) {
  std::vector<int32_t> all(logits.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
  const double yes = LogSum(logits, tokens.yes), no = LogSum(logits, tokens.no);
  const double whole = LogSum(logits, all);
  return {.probability = 1 / (1 + std::exp(no - yes)),
          .mass = std::exp(yes - whole) + std::exp(no - whole)};
}

v1::Prompt Question(const std::string& text, bool empty_system) {
  v1::Prompt prompt;
  if (empty_system) prompt.mutable_chat()->add_messages()->set_role("system");
  v1::Message& user = *prompt.mutable_chat()->add_messages();
  user.set_role("user");
  user.set_content(text);
  return prompt;
}

class JudgeByModel : public Judge {
 public:
  JudgeByModel(std::string field, const v1::RubricJudge& rubric,
               std::shared_ptr<const engine::ServedModel> model, AnswerTokens tokens,
               absl::Time now)
      : field_(std::move(field)),
        rubric_(rubric),
        model_(std::move(model)),
        tokens_(std::move(tokens)),
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
    const auto count = static_cast<int64_t>(responses.size());
    const int64_t vocabulary = model_->architecture.vocabulary;
    VS_ASSIGN_OR_RETURN(
        const engine::KeptCaptures room,
        model_->engine->KeepCaptures(count * vocabulary * static_cast<int64_t>(sizeof(float))));
    std::vector<engine::Request> requests;
    for (const Answered& one : responses) {
      VS_RETURN_IF_ERROR(CheckGoesOn(whom.cancellation));
      VS_ASSIGN_OR_RETURN(TokenisedPrompt prompt, PromptOf(one));
      requests.push_back(RequestOf(std::move(prompt.ids), whom));
    }
    auto completions = engine::RunAll(*model_->engine, std::move(requests), whom.cancellation);
    if (!completions.ok()) return AtRubric(completions.status());
    std::vector<Judgement> judgements;
    for (engine::Completion& completion : *completions) {
      usage.set_prompt_tokens(usage.prompt_tokens() + completion.prompt_tokens);
      VS_ASSIGN_OR_RETURN(judgements.emplace_back(), JudgementOf(completion));
      completion.captures.clear();
    }
    return judgements;
  }

 private:
  // One read of the logits behind the last token; nothing is generated.
  static engine::Request RequestOf(std::vector<int32_t> prompt, const JudgedFor& whom) {
    engine::Request request;
    request.tenant = whom.tenant;
    request.background = whom.background;
    request.prompt = std::move(prompt);
    engine::Tap tap;
    tap.site = model::Site::kLogits;
    tap.tokens = {.kind = engine::TokenKind::kLastPrompt, .positions = {}};
    request.taps = {std::move(tap)};
    return request;
  }

  absl::StatusOr<Judgement> JudgementOf(const engine::Completion& completion) const {
    VS_ASSIGN_OR_RETURN(const std::vector<float> logits,
                        ToFloat32(completion.captures.front().tensor));
    if (static_cast<int64_t>(logits.size()) != model_->architecture.vocabulary) {
      return ErrorWithReason(absl::StatusCode::kInternal, "CAPTURE_SHAPE",
                             "the engine returned a capture of another shape than asked for");
    }
    const YesOrNo answer = ReadAnswer(logits, tokens_);
    const double threshold = rubric_.has_threshold() ? rubric_.threshold() : kDefaultThreshold;
    return Judgement{.expresses = answer.probability >= threshold, .answer = answer};
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
    auto prompt = PromptFromProto("", Question(text, empty_system), *model_, {.now = now_});
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
  const AnswerTokens tokens_;
  const absl::Time now_;
  bool empty_system_ = false;
};

absl::Status CheckRubric(absl::string_view field, const v1::RubricJudge& rubric,
                         const text::Tokenizer& tokenizer) {
  const std::string text_field = absl::StrCat(field, ".rubric");
  if (rubric.rubric().size() > kMostRubricBytes) {
    return InvalidField(text_field, absl::StrCat("has ", rubric.rubric().size(),
                                                 " bytes, allowed are at most ", kMostRubricBytes));
  }
  for (const char* place : {kQueryPlace, kResponsePlace}) {
    if (absl::StrContains(rubric.rubric(), place)) continue;
    return InvalidField(text_field, absl::StrCat("must hold ", place));
  }
  if (const std::string token = ControlTokenIn(rubric.rubric(), tokenizer); !token.empty()) {
    return InvalidField(text_field, absl::StrCat("holds `", token, "`, a control token"),
                        "CONTROL_TOKEN");
  }
  if (!rubric.has_threshold() || (rubric.threshold() >= 0 && rubric.threshold() <= 1)) {
    return absl::OkStatus();
  }
  return OutOfRange(absl::StrCat(field, ".threshold"), rubric.threshold(), 0, 1);
}

absl::StatusOr<std::unique_ptr<const Judge>> RubricFromProto(
    absl::string_view field, const v1::RubricJudge& rubric,
    std::shared_ptr<const engine::ServedModel> model, absl::Time now) {
  VS_RETURN_IF_ERROR(CheckRubric(field, rubric, model->text->tokenizer()));
  VS_ASSIGN_OR_RETURN(AnswerTokens tokens, AnswerTokensOf(absl::StrCat(field, ".model"), *model));
  auto judge = std::make_unique<JudgeByModel>(std::string(field), rubric, std::move(model),
                                              std::move(tokens), now);
  VS_RETURN_IF_ERROR(judge->ChooseSystemMessage());
  return judge;
}

// Bytes of the first character of UTF-8.
size_t FirstCharacter(absl::string_view text) {
  size_t end = 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  return end;
}

// Whether a space can break the token's text for good.
bool IsControlToken(const text::AddedToken& token) {
  return token.special && !token.text.empty() && FirstCharacter(token.text) < token.text.size() &&
         !absl::StrContains(token.text, ' ');
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

std::string ControlTokenIn(absl::string_view text, const text::Tokenizer& tokenizer) {
  for (const text::AddedToken& token : tokenizer.added_tokens()) {
    if (IsControlToken(token) && absl::StrContains(text, token.text)) return token.text;
  }
  return "";
}

std::string WithoutControlTokens(std::string text, const text::Tokenizer& tokenizer) {
  // Again, because one may begin within another.
  for (std::string token = ControlTokenIn(text, tokenizer); !token.empty();
       token = ControlTokenIn(text, tokenizer)) {
    const size_t first = FirstCharacter(token);
    const std::string broken = absl::StrCat(token.substr(0, first), " ", token.substr(first));
    text = absl::StrReplaceAll(text, {{token, broken}});
  }
  return text;
}

}  // namespace valuescope::services
