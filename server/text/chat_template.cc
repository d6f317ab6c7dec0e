#include "text/chat_template.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "text/library_failure.h"
#include "text/rust_interface.h"

namespace valuescope::text {
namespace {

absl::StatusOr<std::vector<ChatMessage>> FoldSystem(const std::vector<ChatMessage>& messages) {
  std::string system;
  std::vector<ChatMessage> folded;
  for (const ChatMessage& message : messages) {
    if (message.role != "system") {
      folded.push_back(message);
    } else if (!message.content.empty()) {
      absl::StrAppend(&system, system.empty() ? "" : "\n\n", message.content);
    }
  }
  if (system.empty()) return folded;
  const auto user = std::find_if(folded.begin(), folded.end(),
                                 [](const ChatMessage& message) { return message.role == "user"; });
  if (user == folded.end()) {
    return InvalidField("messages", "has no user message to fold the system message into");
  }
  user->content = absl::StrCat(system, "\n\n", user->content);
  return folded;
}

size_t BytesOf(const std::vector<ChatMessage>& messages) {
  size_t bytes = 0;
  for (const ChatMessage& message : messages) bytes += message.role.size() + message.content.size();
  return bytes;
}

}  // namespace

absl::Status CheckChatSize(size_t num_messages, size_t bytes) {
  if (num_messages < 1 || num_messages > kMaxMessages) {
    return InvalidField("messages",
                        absl::StrCat("are ", num_messages, ", allowed are 1 to ", kMaxMessages),
                        "OUT_OF_RANGE");
  }
  if (bytes > kMaxChatBytes) {
    return InvalidField(
        "messages",
        absl::StrCat("hold ", bytes, " bytes of text, allowed are at most ", kMaxChatBytes),
        "OUT_OF_RANGE");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Compile(
    absl::string_view source, std::vector<std::pair<std::string, std::string>> special_tokens) {
  VsTemplate* handle = nullptr;
  OwnedString error;
  VS_RETURN_IF_ERROR(
      StatusOf(vs_template_compile(Borrow(source), kMaxRenderedBytes, &handle, error.out()), error,
               "chat_template"));
  return std::unique_ptr<ChatTemplate>(
      new ChatTemplate(handle, Sha256Hex(source), std::move(special_tokens)));
}

ChatTemplate::~ChatTemplate() { vs_template_free(handle_); }

absl::StatusOr<std::string> ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                                 const RenderOptions& options) const {
  VS_RETURN_IF_ERROR(CheckChatSize(messages.size(), BytesOf(messages)));
  if (options.fold_system_into_user) {
    VS_ASSIGN_OR_RETURN(const std::vector<ChatMessage> folded, FoldSystem(messages));
    RenderOptions rest = options;
    rest.fold_system_into_user = false;
    return Render(folded, rest);
  }
  std::vector<VsPair> message_pairs;
  for (const ChatMessage& message : messages) {
    message_pairs.push_back({Borrow(message.role), Borrow(message.content)});
  }
  std::vector<VsPair> token_pairs;
  for (const auto& [variable, text] : special_tokens_) {
    token_pairs.push_back({Borrow(variable), Borrow(text)});
  }
  const VsRendering rendering = {
      .messages = message_pairs.data(),
      .num_messages = message_pairs.size(),
      .special_tokens = token_pairs.data(),
      .num_special_tokens = token_pairs.size(),
      .arguments = Borrow(options.template_arguments),
      .add_generation_prompt = options.add_generation_prompt,
      .now_seconds = absl::ToUnixSeconds(options.now),
  };
  OwnedString text, error;
  VS_RETURN_IF_ERROR(StatusOf(vs_template_render(handle_, &rendering, text.out(), error.out()),
                              error, "messages"));
  return std::string(View(text));
}

}  // namespace valuescope::text
