#include "text/chat_template.h"

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "text/library_failure.h"
#include "text/rust_interface.h"

namespace valuescope::text {
namespace {

std::string TextOf(const ChatMessage& message) {
  return message.content_kind == ContentKind::kParts ? absl::StrJoin(message.parts, "")
                                                     : message.content;
}

void PutBefore(const std::string& system, ChatMessage& user) {
  switch (user.content_kind) {
    case ContentKind::kText:
      user.content = absl::StrCat(system, "\n\n", user.content);
      return;
    case ContentKind::kParts:
      if (user.parts.empty()) {
        user.parts.push_back(system);
      } else {
        user.parts[0] = absl::StrCat(system, "\n\n", user.parts[0]);
      }
      return;
    case ContentKind::kNone:
    case ContentKind::kAbsent:
      user.content = system;
      user.content_kind = ContentKind::kText;
      return;
  }
}

absl::StatusOr<std::vector<ChatMessage>> FoldSystem(const std::vector<ChatMessage>& messages) {
  std::string system;
  std::vector<ChatMessage> folded;
  for (const ChatMessage& message : messages) {
    if (message.role != "system") {
      folded.push_back(message);
    } else if (const std::string text = TextOf(message); !text.empty()) {
      absl::StrAppend(&system, system.empty() ? "" : "\n\n", text);
    }
  }
  if (system.empty()) return folded;
  const auto user = std::find_if(folded.begin(), folded.end(),
                                 [](const ChatMessage& message) { return message.role == "user"; });
  if (user == folded.end()) {
    return InvalidField("messages", "has no user message to fold the system message into");
  }
  PutBefore(system, *user);
  return folded;
}

ChatSize SizeOf(const std::vector<ChatMessage>& messages) {
  ChatSize size{.messages = messages.size()};
  for (const ChatMessage& message : messages) {
    size.bytes += message.role.size() + message.content.size();
    size.parts += message.parts.size();
    for (const std::string& part : message.parts) size.bytes += part.size();
    for (const ChatMember& member : message.more) size.bytes += member.value.size();
  }
  return size;
}

// [{"type": "text", "text": ...}, ...]
std::string JsonOfParts(const std::vector<std::string>& parts) {
  using Json = nlohmann::ordered_json;
  Json list = Json::array();
  for (const std::string& part : parts) list.push_back({{"type", "text"}, {"text", part}});
  return list.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

// The keys of messages as the library takes them; refers to the messages.
class Members {
 public:
  explicit Members(const std::vector<ChatMessage>& messages) {
    members_.reserve(messages.size());
    for (const ChatMessage& message : messages) Add(message);
    for (const std::vector<VsMember>& members : members_) {
      messages_.push_back({.members = members.data(), .num_members = members.size()});
    }
  }

  const std::vector<VsMessage>& messages() const { return messages_; }

 private:
  void Add(const ChatMessage& message) {
    std::vector<VsMember>& members = members_.emplace_back();
    members.push_back({Borrow("role"), Borrow(message.role), /*is_json=*/false});
    switch (message.content_kind) {
      case ContentKind::kText:
        members.push_back({Borrow("content"), Borrow(message.content), /*is_json=*/false});
        break;
      case ContentKind::kParts:
        json_.push_back(JsonOfParts(message.parts));
        members.push_back({Borrow("content"), Borrow(json_.back()), /*is_json=*/true});
        break;
      case ContentKind::kNone:
        members.push_back({Borrow("content"), Borrow("null"), /*is_json=*/true});
        break;
      case ContentKind::kAbsent:
        break;
    }
    for (const ChatMember& member : message.more) {
      members.push_back({Borrow(member.name), Borrow(member.value), member.is_json});
    }
  }

  std::deque<std::string> json_;
  std::vector<std::vector<VsMember>> members_;
  std::vector<VsMessage> messages_;
};

}  // namespace

absl::Status CheckChatSize(const ChatSize& size) {
  if (size.messages < 1 || size.messages > kMaxMessages) {
    return InvalidField("messages",
                        absl::StrCat("are ", size.messages, ", allowed are 1 to ", kMaxMessages),
                        "OUT_OF_RANGE");
  }
  if (size.parts > kMaxChatParts) {
    return InvalidField(
        "messages",
        absl::StrCat("have ", size.parts, " content parts and tool calls, allowed are at most ",
                     kMaxChatParts),
        "OUT_OF_RANGE");
  }
  if (size.bytes > kMaxChatBytes) {
    return InvalidField(
        "messages",
        absl::StrCat("hold ", size.bytes, " bytes of text, allowed are at most ", kMaxChatBytes),
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
  VS_RETURN_IF_ERROR(CheckChatSize(SizeOf(messages)));
  if (options.fold_system_into_user) {
    VS_ASSIGN_OR_RETURN(const std::vector<ChatMessage> folded, FoldSystem(messages));
    RenderOptions rest = options;
    rest.fold_system_into_user = false;
    return Render(folded, rest);
  }
  const Members members(messages);
  std::vector<VsPair> token_pairs;
  for (const auto& [variable, text] : special_tokens_) {
    token_pairs.push_back({Borrow(variable), Borrow(text)});
  }
  const VsRendering rendering = {
      .messages = members.messages().data(),
      .num_messages = members.messages().size(),
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
