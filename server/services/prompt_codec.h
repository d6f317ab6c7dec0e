// Prompts and responses of the contract as token ids: text encoded, chats written by the model's
// template, ids checked. What that takes is taken of the model's request memory first. Errors name
// the field by its whole path ("inputs[2].prompt.chat.messages[0].content").
#ifndef VALUESCOPE_SERVICES_PROMPT_CODEC_H_
#define VALUESCOPE_SERVICES_PROMPT_CODEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/served_model.h"
#include "text/chat_template.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

// What a chat counts against the limits of one.
text::ChatSize SizeOf(const v1::Chat& chat);

struct TokenisedPrompt {
  std::vector<int32_t> ids;
  std::string text;        // what was tokenised; empty for token ids
  bool from_chat = false;  // the model's chat template was used
};

struct PromptOptions {
  bool add_special_tokens = true;  // for plain text
  absl::Time now;                  // the clock of chat templates
  // Whether what cannot fit the model's context is refused before it is tokenised.
  bool within_context = true;
};

// INVALID_ARGUMENT naming a field beneath `field`: nothing set, not UTF-8, a template that refuses
// the messages, an id outside the vocabulary. The others of text::TextModel::EncodeChat, and of
// engine::Engine::TakeRequestMemory: tokenising takes two hundred times the memory of a text.
absl::StatusOr<TokenisedPrompt> PromptFromProto(absl::string_view field, const v1::Prompt& prompt,
                                                const engine::ServedModel& model,
                                                const PromptOptions& options);

// A response's ids; text gets no special tokens. May be empty.
absl::StatusOr<std::vector<int32_t>> ResponseFromProto(absl::string_view field,
                                                       const v1::Response& response,
                                                       const engine::ServedModel& model);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_PROMPT_CODEC_H_
