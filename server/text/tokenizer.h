// A model's reference tokenizer, read from its tokenizer.json. Ids are those of transformers for
// the same file; special-token text inside ordinary text becomes the special token, as there,
// unless the model asks for it to be split.
#ifndef VALUESCOPE_TEXT_TOKENIZER_H_
#define VALUESCOPE_TEXT_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct VsTokenizer;

namespace valuescope::text {

class StreamingDecoder;

struct AddedToken {
  int32_t id = 0;
  std::string text;
  bool special = false;  // left out where special tokens are skipped
};

// A token that a file beside tokenizer.json names.
struct DeclaredToken {
  // What becomes of a token of this text that tokenizer.json itself adds.
  enum class Existing : uint8_t { kKept, kReplaced, kMadeSpecial };

  std::string text;
  bool single_word = false;
  bool lstrip = false;  // takes in the white space before it
  bool rstrip = false;
  bool normalized = false;  // is looked for in normalised text
  bool special = true;
  Existing existing = Existing::kKept;
  // That the other file gives it: where tokenizer.json adds another token under it, this one is not
  // added.
  std::optional<int32_t> id = std::nullopt;
};

// Immutable; safe from any number of threads.
class Tokenizer {
 public:
  // `file` is the content of tokenizer.json. Its padding and truncation are ignored.
  // INVALID_ARGUMENT where the tokenizer library refuses it, the vocabulary is empty or an id does
  // not fit 31 bits.
  // `declared` are added like transformers adds them: a token that the vocabulary has keeps its id,
  // the others get the next ids. With `split_special_tokens` the text of a special token is
  // ordinary text.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(
      absl::string_view file, const std::vector<DeclaredToken>& declared = {},
      bool split_special_tokens = false);

  // Before it is shared: decoding takes spaces away that stand before punctuation and English
  // contractions, as transformers does where clean_up_tokenization_spaces is set.
  void CleanUpSpaces();
  // Whether the model is byte-pair encoding.
  bool is_bpe() const;

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // The ids of `text`; `add_special_tokens` adds those that the file's post-processor names (a
  // leading BOS). INVALID_ARGUMENT where `text` is not UTF-8 or one of the file's regular
  // expressions gives up on it; NUL is an ordinary character. Memory of up to two hundred times the
  // text: calls with long ones wait for each other.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              bool add_special_tokens) const;

  // The text of `ids`, bytes that form no character replaced by U+FFFD. Ids without a token are
  // left out (models pad their vocabulary), as are special tokens with `skip_special_tokens`.
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                     bool skip_special_tokens) const;

  // The vocabulary's own string of a token, such as "\u0120the"; empty where there is none.
  std::string Piece(int32_t id) const;

  // One more than the largest id, added tokens included.
  int32_t vocabulary_size() const { return vocabulary_size_; }

  // How many ids Encode gives for the text at least, told without tokenising it. 0 where tokens may
  // stand for any length of text, as those for unknown words do.
  size_t FewestTokens(absl::string_view text) const;

  // In order of ids.
  const std::vector<AddedToken>& added_tokens() const { return added_tokens_; }

  // The id of an added token by its text.
  std::optional<int32_t> AddedTokenId(absl::string_view text) const;

  // SHA-256 of the file, hexadecimal.
  const std::string& digest() const { return digest_; }

 private:
  friend class StreamingDecoder;
  explicit Tokenizer(VsTokenizer* handle) : handle_(handle) {}
  absl::Status ReadAddedTokens();

  VsTokenizer* const handle_;
  int32_t vocabulary_size_ = 0;
  std::vector<AddedToken> added_tokens_;
  std::string digest_;
};

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_TOKENIZER_H_
