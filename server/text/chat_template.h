// A model's chat template: the Jinja program that turns a conversation into the one text that the
// model was trained on. It comes with the model, so it is hostile: compiling and rendering run on a
// budget of steps, memory and processor time, few at once, and the text it writes is capped.
//
// Templates get what transformers gives them: messages, add_generation_prompt, the special tokens
// by name (bos_token, ...), the request's own arguments, raise_exception, strftime_now, tojson,
// namespace, loop controls and Python's methods. It is Jinja2 with Python's values throughout: what
// Jinja2 refuses, or what only Python could write (such as where an object lies), is refused.
#ifndef VALUESCOPE_TEXT_CHAT_TEMPLATE_H_
#define VALUESCOPE_TEXT_CHAT_TEMPLATE_H_

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

struct VsTemplate;

namespace valuescope::text {

// The longest text that a template may write.
inline constexpr size_t kMaxRenderedBytes = size_t{16} << 20;
// Of one chat. Each message costs memory beyond its text.
inline constexpr size_t kMaxMessages = 4096;
inline constexpr size_t kMaxChatBytes = size_t{4} << 20;  // of text, everything together
inline constexpr size_t kMaxChatParts = 4096;  // parts of contents and calls of tools together

// How a template finds a message's content.
enum class ContentKind {
  kText,
  kParts,   // a list of texts
  kNone,    // Python's None
  kAbsent,  // no such key
};

// A further key of a message.
struct ChatMember {
  std::string name;
  std::string value;
  bool is_json = false;  // else the value is the text itself
};

struct ChatMessage {
  std::string role;
  // An empty system message is not the same as none: templates may insert a default one.
  std::string content = "";
  ContentKind content_kind = ContentKind::kText;
  std::vector<std::string> parts = {};
  std::vector<ChatMember> more = {};  // in the template's order
};

struct RenderOptions {
  bool add_generation_prompt = true;    // open the assistant's turn at the end
  std::string template_arguments = "";  // a JSON object of further variables; empty for none
  absl::Time now = absl::UnixEpoch();   // strftime_now, in UTC
  // Puts the system message at the head of the first user turn, a blank line between them, for
  // templates that reject the system role.
  bool fold_system_into_user = false;
};

struct ChatSize {
  size_t messages = 0;
  size_t parts = 0;
  size_t bytes = 0;
};

// INVALID_ARGUMENT about `messages` where they are too many or hold too much for Render.
absl::Status CheckChatSize(const ChatSize& size);

// Immutable but for being disabled; safe from any number of threads.
class ChatTemplate {
 public:
  // `special_tokens`: template variable and text, such as {"bos_token", "<s>"}.
  // INVALID_ARGUMENT where `source` is no template; FAILED_PRECONDITION (CHAT_TEMPLATE_DISABLED)
  // where compiling goes over its budget or the source was disabled before.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Compile(
      absl::string_view source, std::vector<std::pair<std::string, std::string>> special_tokens);

  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // The conversation as text. Errors:
  //   INVALID_ARGUMENT about `messages`: none given, too much (CheckChatSize), no UTF-8, or the
  //     template refuses them (with the words of its raise_exception, reason
  //     CHAT_TEMPLATE_RAISED);
  //   INVALID_ARGUMENT about `template_arguments`: no JSON object, or overriding `messages` or
  //     `add_generation_prompt`;
  //   RESOURCE_EXHAUSTED (CHAT_TEMPLATE_BUDGET): too many steps, too much time or too long a text;
  //   FAILED_PRECONDITION (CHAT_TEMPLATE_DISABLED): now or once before it took too much memory or
  //     could not be stopped when its time was over, or it often took too much time for a few
  //     messages. A source that did this is not run again in this process, and once several could
  //     not be stopped none is.
  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages,
                                     const RenderOptions& options) const;

  // SHA-256 of the source, hexadecimal.
  const std::string& digest() const { return digest_; }

 private:
  ChatTemplate(VsTemplate* handle, std::string digest,
               std::vector<std::pair<std::string, std::string>> special_tokens)
      : handle_(handle), digest_(std::move(digest)), special_tokens_(std::move(special_tokens)) {}

  VsTemplate* const handle_;
  const std::string digest_;
  const std::vector<std::pair<std::string, std::string>> special_tokens_;  // variable, text
};

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_CHAT_TEMPLATE_H_
