#include "text/tokenizer.h"

#include <utility>

#include "base/sha256.h"
#include "base/status_macros.h"
#include "text/library_failure.h"
#include "text/rust_interface.h"

namespace valuescope::text {

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(
    absl::string_view file, const std::vector<DeclaredToken>& declared, bool split_special_tokens) {
  std::vector<VsDeclaredToken> tokens;
  tokens.reserve(declared.size());
  for (const DeclaredToken& token : declared) {
    tokens.push_back({.text = Borrow(token.text),
                      .id = token.id.value_or(-1),
                      .existing = static_cast<uint8_t>(token.existing),
                      .single_word = token.single_word,
                      .lstrip = token.lstrip,
                      .rstrip = token.rstrip,
                      .normalized = token.normalized,
                      .special = token.special});
  }
  VsTokenizer* handle = nullptr;
  OwnedString error;
  VS_RETURN_IF_ERROR(StatusOf(vs_tokenizer_load(Borrow(file), tokens.data(), tokens.size(),
                                                split_special_tokens, &handle, error.out()),
                              error, "tokenizer.json"));
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer(handle));
  tokenizer->vocabulary_size_ = static_cast<int32_t>(vs_tokenizer_id_limit(handle));
  tokenizer->digest_ = Sha256Hex(file);
  VS_RETURN_IF_ERROR(tokenizer->ReadAddedTokens());
  return tokenizer;
}

void Tokenizer::CleanUpSpaces() { vs_tokenizer_clean_up(handle_); }

bool Tokenizer::is_bpe() const { return vs_tokenizer_is_bpe(handle_); }

Tokenizer::~Tokenizer() { vs_tokenizer_free(handle_); }

size_t Tokenizer::FewestTokens(absl::string_view text) const {
  return vs_tokenizer_fewest_tokens(handle_, Borrow(text));
}

absl::Status Tokenizer::ReadAddedTokens() {
  const size_t count = vs_tokenizer_num_added(handle_);
  added_tokens_.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    uint32_t id = 0;
    bool special = false;
    OwnedString text, error;
    const VsFailure failure =
        vs_tokenizer_added(handle_, i, &id, &special, text.out(), error.out());
    VS_RETURN_IF_ERROR(StatusOf(failure, error, "tokenizer.json"));
    added_tokens_.push_back(
        {.id = static_cast<int32_t>(id), .text = std::string(View(text)), .special = special});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text,
                                                       bool add_special_tokens) const {
  VsIds ids = {};
  OwnedString error;
  VS_RETURN_IF_ERROR(
      StatusOf(vs_tokenizer_encode(handle_, Borrow(text), add_special_tokens, &ids, error.out()),
               error, "text"));
  std::vector<int32_t> result(ids.data, ids.data + ids.size);
  vs_ids_free(ids);
  return result;
}

absl::StatusOr<std::string> Tokenizer::Decode(const std::vector<int32_t>& ids,
                                              bool skip_special_tokens) const {
  // Negative ids become large ones, which have no token.
  const std::vector<uint32_t> unsigned_ids(ids.begin(), ids.end());
  OwnedString text, error;
  VS_RETURN_IF_ERROR(StatusOf(vs_tokenizer_decode(handle_, unsigned_ids.data(), unsigned_ids.size(),
                                                  skip_special_tokens, text.out(), error.out()),
                              error, "token_ids"));
  return std::string(View(text));
}

std::string Tokenizer::Piece(int32_t id) const {
  OwnedString piece, error;
  const uint32_t unsigned_id = static_cast<uint32_t>(id);
  if (vs_tokenizer_piece(handle_, unsigned_id, piece.out(), error.out()) != VS_OK) return "";
  return std::string(View(piece));
}

std::optional<int32_t> Tokenizer::AddedTokenId(absl::string_view text) const {
  for (const AddedToken& token : added_tokens_) {
    if (token.text == text) return token.id;
  }
  return std::nullopt;
}

}  // namespace valuescope::text
