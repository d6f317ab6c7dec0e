#include "services/rubrics.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "services/user_turns.h"

namespace valuescope::services {
namespace {

constexpr size_t kMostBytes = 16384;  // it stands in records

}  // namespace

Rubric::Rubric(std::string field, std::string question, std::vector<std::string> places,
               LabelTokens labels, std::shared_ptr<const engine::ServedModel> model, absl::Time now)
    : field_(std::move(field)),
      question_(std::move(question)),
      places_(std::move(places)),
      labels_(std::make_shared<const LabelTokens>(std::move(labels))),
      model_(std::move(model)),
      now_(now) {}

absl::StatusOr<Rubric> Rubric::Create(std::string field, std::string question,
                                      std::vector<std::string> places, LabelTokens labels,
                                      std::shared_ptr<const engine::ServedModel> model,
                                      absl::Time now) {
  Rubric rubric(std::move(field), std::move(question), std::move(places), std::move(labels),
                std::move(model), now);
  VS_RETURN_IF_ERROR(rubric.Check());
  VS_RETURN_IF_ERROR(rubric.ChooseSystemMessage());
  return rubric;
}

std::string Rubric::Description() const {
  return absl::StrCat("rubric of models/", model_->id, ", sha256 ", Sha256Hex(question_));
}

absl::StatusOr<int64_t> Rubric::MostTokens(const Filling& filling, int64_t more) const {
  VS_ASSIGN_OR_RETURN(const TokenisedPrompt prompt, PromptOf(filling));
  const LabelTokens::Cost cost = labels_->CostOfPrompt();
  const int64_t longest = static_cast<int64_t>(prompt.ids.size()) + more + cost.longest;
  if (longest > model_->architecture.max_positions) {
    return InvalidField(
        field_,
        absl::StrCat("with the texts in it may take ", longest, " tokens, the context of models/",
                     model_->id, " is ", model_->architecture.max_positions),
        "CONTEXT_EXCEEDED");
  }
  return (longest - cost.longest) * cost.passes + cost.tokens;
}

absl::StatusOr<std::vector<LabelReading>> Rubric::Ask(std::span<const Filling> fillings,
                                                      const JudgedFor& whom,
                                                      v1::Usage& usage) const {
  std::vector<LabelQuestion> questions;
  for (const Filling& filling : fillings) {
    VS_RETURN_IF_ERROR(CheckGoesOn(whom.cancellation));
    VS_ASSIGN_OR_RETURN(TokenisedPrompt prompt, PromptOf(filling));
    LabelQuestion& question = questions.emplace_back();
    question.request.tenant = whom.tenant;
    question.request.background = whom.background;
    question.request.prompt = std::move(prompt.ids);
    question.labels = labels_.get();
  }
  auto readings = ReadLabels(*model_->engine, std::move(questions), whom.cancellation, usage);
  if (!readings.ok()) return AtField(readings.status());
  return readings;
}

absl::Status Rubric::Check() const {
  if (question_.size() > kMostBytes) {
    return InvalidField(
        field_, absl::StrCat("has ", question_.size(), " bytes, allowed are at most ", kMostBytes));
  }
  for (const std::string& place : places_) {
    if (absl::StrContains(question_, place)) continue;
    return InvalidField(field_, absl::StrCat("must hold ", place));
  }
  return CheckIsText(field_, question_, *model_);
}

// A template that inserts a system message of its own where there is none writes more than for an
// empty one. One that takes no system message has nothing to insert.
absl::Status Rubric::ChooseSystemMessage() {
  VS_ASSIGN_OR_RETURN(const TokenisedPrompt without, Tokenised(question_, /*empty_system=*/false));
  const auto with = Tokenised(question_, /*empty_system=*/true);
  if (!with.ok() && !absl::IsInvalidArgument(with.status())) return with.status();
  empty_system_ = with.ok() && with->text.size() < without.text.size();
  return absl::OkStatus();
}

absl::StatusOr<TokenisedPrompt> Rubric::PromptOf(const Filling& filling) const {
  VS_CHECK(filling.size() == places_.size());
  std::vector<std::pair<std::string, std::string>> replacements;
  for (size_t i = 0; i < places_.size(); ++i) {
    replacements.emplace_back(places_[i], filling[i]);
  }
  // Of all of it, since a token may come about where two parts meet.
  return Tokenised(
      WithoutControlTokens(absl::StrReplaceAll(question_, replacements), model_->text->tokenizer()),
      empty_system_);
}

absl::StatusOr<TokenisedPrompt> Rubric::Tokenised(const std::string& text,
                                                  bool empty_system) const {
  const std::string empty;
  auto prompt =
      PromptFromProto("", UserTurn(empty_system ? &empty : nullptr, text), *model_, {.now = now_});
  if (!prompt.ok()) return AtField(prompt.status());
  return prompt;
}

// What is wrong with a prompt or a request for it, of the field that it was made of.
absl::Status Rubric::AtField(const absl::Status& status) const {
  const ErrorDetails details = DetailsOf(status);
  if (details.field.empty()) return status;
  return InvalidField(field_, absl::StrCat("filled in: ", details.description), details.reason);
}

}  // namespace valuescope::services
