// Everything of a model that is text: tokenizer, chat template and the ids that end its responses,
// read from a Hugging Face folder as transformers 5.17 reads it.
//
//   tokenizer.json          required
//   tokenizer_config.json   further tokens, special ones by name; whether special tokens are split;
//                           clean_up_tokenization_spaces
//   special_tokens_map.json, added_tokens.json
//                           more of both, where tokenizer_config.json has no added_tokens_decoder
//   chat_template.jinja, additional_chat_templates/*.jinja
//                           the chat template; else that of tokenizer_config.json
//   generation_config.json  the ids that end a response; where there is no such file, config.json's
#ifndef VALUESCOPE_TEXT_TEXT_MODEL_H_
#define VALUESCOPE_TEXT_TEXT_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace valuescope::text {

struct EncodedText {
  std::string text;  // what was tokenised
  std::vector<int32_t> ids;
};

// Immutable; safe from any number of threads.
// More than any context has; encoding takes many times the text's memory.
inline constexpr size_t kMostTextBytes = size_t{4} << 20;
inline constexpr size_t kAnyNumberOfTokens = SIZE_MAX;

class TextModel {
 public:
  // INVALID_ARGUMENT names the file that is missing, too large or malformed, or leads out of the
  // folder. A chat template that does not compile does not stop the model from loading: its chats
  // are refused. Nor do tokens beyond config.json's vocab_size: texts that hold them are refused.
  static absl::StatusOr<std::unique_ptr<TextModel>> Load(const std::string& folder);

  // The ids of plain text, with the tokenizer's own special tokens unless told otherwise.
  // INVALID_ARGUMENT, field "text", where it has more than kMostTextBytes, cannot be as few as
  // `most_tokens` (reason TEXT_TOO_LONG, both before it is tokenised, which takes a second a
  // megabyte), holds a token that the model has no row for (TOKEN_OUTSIDE_VOCABULARY), or the
  // tokenizer gives up on it.
  absl::StatusOr<std::vector<int32_t>> EncodeText(absl::string_view text,
                                                  bool add_special_tokens = true,
                                                  size_t most_tokens = kAnyNumberOfTokens) const;

  // A conversation by the model's template; the ids get no special tokens beyond those it writes.
  // Errors are those of ChatTemplate::Render; FAILED_PRECONDITION (NO_CHAT_TEMPLATE,
  // CHAT_TEMPLATE_INVALID) where there is none or it did not compile. `most_tokens` as above, field
  // "messages".
  absl::StatusOr<EncodedText> EncodeChat(const std::vector<ChatMessage>& messages,
                                         const RenderOptions& options,
                                         size_t most_tokens = kAnyNumberOfTokens) const;

  const Tokenizer& tokenizer() const { return *tokenizer_; }

  // The ids that end a response, ascending; may be empty.
  const std::vector<int32_t>& eos_ids() const { return eos_ids_; }

  // The tokenizer's own bos_token and eos_token; none where it names none, or one that the model
  // has no row for. The latter need not be among the ids that end a response.
  std::optional<int32_t> tokenizer_bos_id() const { return tokenizer_bos_id_; }
  std::optional<int32_t> tokenizer_eos_id() const { return tokenizer_eos_id_; }

  const std::string& tokenizer_digest() const { return tokenizer_->digest(); }
  // Empty where the model has no usable chat template.
  std::string template_digest() const;

 private:
  TextModel() = default;
  absl::Status ReadEnds(const std::string& folder, const nlohmann::json& config);
  absl::StatusOr<std::vector<int32_t>> EncodeWithin(size_t most_tokens, absl::string_view text,
                                                    bool add_special_tokens) const;

  std::unique_ptr<Tokenizer> tokenizer_;
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template_;
  std::vector<int32_t> eos_ids_;
  std::optional<int32_t> tokenizer_bos_id_, tokenizer_eos_id_;
  int64_t vocabulary_ = 0;  // rows of the embedding
};

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_TEXT_MODEL_H_
