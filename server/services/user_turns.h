// Conversations of one user's turn, perhaps behind a system message, as work asks models by the
// thousand. Text in them comes from outside: where it spells a control token of the model it would
// end the turn, or begin another, so that is refused.
#ifndef VALUESCOPE_SERVICES_USER_TURNS_H_
#define VALUESCOPE_SERVICES_USER_TURNS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/served_model.h"
#include "text/tokenizer.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

// `system` null: without a system message. An empty one is one.
v1::Prompt UserTurn(const std::string* system, const std::string& text);

// Text of a token that is special to the tokenizer, such as "<|im_end|>", in `text`; empty where
// there is none. It becomes that token wherever it stands in a prompt, so text from outside must
// not have it. (What has a single character, or a space in it, is none.)
std::string ControlTokenIn(absl::string_view text, const text::Tokenizer& tokenizer);
// The text with each of them broken by a space.
std::string WithoutControlTokens(std::string text, const text::Tokenizer& tokenizer);

// INVALID_ARGUMENT (reason CONTROL_TOKEN) naming `field`, whose text this is, where it spells a
// control token of the model.
absl::Status CheckIsText(absl::string_view field, absl::string_view text,
                         const engine::ServedModel& model);

// Whether the model's template writes a system message; some refuse it, others leave it out. `now`
// is the template's clock. Errors of PromptFromProto, naming `field`.
absl::StatusOr<bool> TakesSystemMessage(absl::string_view field, const engine::ServedModel& model,
                                        absl::Time now);

// INVALID_ARGUMENT (reason NO_SYSTEM_MESSAGE) naming `field` where the message is not empty and the
// template takes none; CheckIsText.
absl::Status CheckSystemMessage(absl::string_view field, const std::string& message, bool taken,
                                const engine::ServedModel& model);

// Whether the model can answer a user's turn of `text` behind an empty system message, or without
// one where the template takes none. What cannot stand behind another message is then that one's
// fault.
bool StandsAlone(const std::string& text, bool takes_system_message,
                 const engine::ServedModel& model, absl::Time now);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_USER_TURNS_H_
