#include "services/user_turns.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/request.h"
#include "services/prompt_codec.h"

namespace valuescope::services {
namespace {

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

v1::Prompt UserTurn(const std::string* system, const std::string& text) {
  v1::Prompt prompt;
  if (system != nullptr) {
    v1::Message& message = *prompt.mutable_chat()->add_messages();
    message.set_role("system");
    message.set_content(*system);
  }
  v1::Message& user = *prompt.mutable_chat()->add_messages();
  user.set_role("user");
  user.set_content(text);
  return prompt;
}

absl::Status CheckIsText(absl::string_view field, absl::string_view text,
                         const engine::ServedModel& model) {
  const std::string token = ControlTokenIn(text, model.text->tokenizer());
  if (token.empty()) return absl::OkStatus();
  return InvalidField(field,
                      absl::StrCat("holds `", token, "`, a control token of models/", model.id),
                      "CONTROL_TOKEN");
}

absl::StatusOr<bool> TakesSystemMessage(absl::string_view field, const engine::ServedModel& model,
                                        absl::Time now) {
  const std::string word = "x";
  const PromptOptions options{.now = now};
  VS_ASSIGN_OR_RETURN(const TokenisedPrompt without,
                      PromptFromProto(field, UserTurn(/*system=*/nullptr, word), model, options));
  const auto with = PromptFromProto(field, UserTurn(&word, word), model, options);
  if (absl::IsInvalidArgument(with.status())) return false;
  if (!with.ok()) return with.status();
  return with->ids != without.ids;
}

absl::Status CheckSystemMessage(absl::string_view field, const std::string& message, bool taken,
                                const engine::ServedModel& model) {
  VS_RETURN_IF_ERROR(CheckIsText(field, message, model));
  if (taken || message.empty()) return absl::OkStatus();
  return InvalidField(field,
                      absl::StrCat("must be empty: the chat template of models/", model.id,
                                   " takes no system message"),
                      "NO_SYSTEM_MESSAGE");
}

bool StandsAlone(const std::string& text, bool takes_system_message,
                 const engine::ServedModel& model, absl::Time now) {
  const std::string none;
  const auto prompt = PromptFromProto(
      "prompt", UserTurn(takes_system_message ? &none : nullptr, text), model, {.now = now});
  if (!prompt.ok()) return false;
  engine::Request request;
  request.prompt = prompt->ids;
  request.sampling.emplace().max_tokens = 1;
  return model.engine->Check(request).ok();
}

}  // namespace valuescope::services
