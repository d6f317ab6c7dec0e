#include "text/declared_tokens.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace valuescope::text {
namespace {

using nlohmann::json;

// What looks for the tokens in a text takes tens of bytes for each of theirs.
constexpr size_t kMostTokens = 65'536;
constexpr size_t kMostTokenBytes = size_t{1} << 20;

constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

absl::Status Malformed(const std::string& field, absl::string_view what) {
  return InvalidField(absl::StrCat("tokenizer_config.json.", field), what);
}

// A token by name: "bos_token": "<s>" or {"content": "<s>", ...}.
std::optional<std::string> TokenText(const json& config, const std::string& name) {
  auto value = config.find(name);
  if (value == config.end()) return std::nullopt;
  if (value->is_object()) {
    const auto content = value->find("content");
    if (content == value->end() || !content->is_string()) return std::nullopt;
    return content->get<std::string>();
  }
  if (!value->is_string()) return std::nullopt;
  return value->get<std::string>();
}

absl::StatusOr<bool> Flag(const json& token, const char* name, bool otherwise,
                          const std::string& field) {
  const auto value = token.find(name);
  if (value == token.end()) return otherwise;
  if (!value->is_boolean()) return Malformed(absl::StrCat(field, ".", name), "is not a boolean");
  return value->get<bool>();
}

absl::StatusOr<DeclaredToken> TokenOf(const json& value, const std::string& field) {
  if (value.is_string()) return DeclaredToken{.text = value.get<std::string>()};
  const auto content = value.is_object() ? value.find("content") : value.end();
  if (!value.is_object() || content == value.end() || !content->is_string()) {
    return Malformed(field, "is neither text nor an object with a content");
  }
  DeclaredToken token = {.text = content->get<std::string>()};
  VS_ASSIGN_OR_RETURN(token.single_word, Flag(value, "single_word", false, field));
  VS_ASSIGN_OR_RETURN(token.lstrip, Flag(value, "lstrip", false, field));
  VS_ASSIGN_OR_RETURN(token.rstrip, Flag(value, "rstrip", false, field));
  VS_ASSIGN_OR_RETURN(token.special, Flag(value, "special", false, field));
  VS_ASSIGN_OR_RETURN(token.normalized, Flag(value, "normalized", !token.special, field));
  return token;
}

// By id. The id itself says nothing: a token has that of the vocabulary or the next one.
absl::StatusOr<std::map<int64_t, DeclaredToken>> AddedTokensDecoder(const json& config) {
  std::map<int64_t, DeclaredToken> tokens;
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end()) return tokens;
  if (!decoder->is_object()) return Malformed("added_tokens_decoder", "is not an object");
  for (const auto& [key, value] : decoder->items()) {
    int64_t id = 0;
    if (!absl::SimpleAtoi(key, &id)) {
      return Malformed("added_tokens_decoder", "has a key that is not a number");
    }
    const std::string field = absl::StrCat("added_tokens_decoder.", id);
    if (!value.is_object()) return Malformed(field, "is not an object");
    VS_ASSIGN_OR_RETURN(tokens[id], TokenOf(value, field));
  }
  return tokens;
}

const json* ExtraSpecialTokens(const json& config) {
  for (const char* name : {"extra_special_tokens", "additional_special_tokens"}) {
    const auto value = config.find(name);
    if (value != config.end()) return value->is_null() ? nullptr : &*value;
  }
  return nullptr;
}

absl::Status CheckSize(const std::vector<DeclaredToken>& tokens) {
  size_t bytes = 0;
  for (const DeclaredToken& token : tokens) bytes += token.text.size();
  if (tokens.size() <= kMostTokens && bytes <= kMostTokenBytes) return absl::OkStatus();
  return InvalidField(
      "tokenizer_config.json",
      absl::StrCat("declares ", tokens.size(), " tokens of ", bytes, " bytes, allowed are at most ",
                   kMostTokens, " tokens of ", kMostTokenBytes, " bytes"));
}

}  // namespace

std::vector<std::pair<std::string, std::string>> NamedSpecialTokens(
    const json& tokenizer_config, const json& special_tokens_map) {
  std::vector<std::pair<std::string, std::string>> tokens;
  std::set<std::string> names;
  const auto add = [&](const std::string& name, std::optional<std::string> text) {
    if (text && names.insert(name).second) tokens.emplace_back(name, *std::move(text));
  };
  for (const char* name : kSpecialTokens) {
    std::optional<std::string> text = TokenText(tokenizer_config, name);
    add(name, text ? text : TokenText(special_tokens_map, name));
  }
  // Those of one model, such as "image_token".
  for (const auto& [name, value] : tokenizer_config.items()) {
    if (absl::EndsWith(name, "_token") && value.is_string()) add(name, value.get<std::string>());
  }
  const json* extra = ExtraSpecialTokens(tokenizer_config);
  if (extra != nullptr && extra->is_object()) {
    for (const auto& [name, value] : extra->items()) add(name, TokenText(*extra, name));
  }
  return tokens;
}

absl::StatusOr<std::vector<DeclaredToken>> DeclaredTokens(
    const json& tokenizer_config, const std::vector<std::pair<std::string, std::string>>& named) {
  std::vector<DeclaredToken> tokens;
  VS_ASSIGN_OR_RETURN(auto decoder, AddedTokensDecoder(tokenizer_config));
  std::set<std::string> special_texts;
  for (const auto& [name, text] : named) special_texts.insert(text);
  for (auto& [id, token] : decoder) {
    token.special = token.special || special_texts.contains(token.text);
    tokens.push_back(std::move(token));
  }
  for (const auto& [name, text] : named) tokens.push_back({.text = text});
  if (const json* extra = ExtraSpecialTokens(tokenizer_config); extra && !extra->is_object()) {
    if (!extra->is_array())
      return Malformed("extra_special_tokens", "is neither a list nor an object");
    for (const json& value : *extra) {
      VS_ASSIGN_OR_RETURN(DeclaredToken token, TokenOf(value, "extra_special_tokens"));
      token.special = true;
      tokens.push_back(std::move(token));
    }
  }
  VS_RETURN_IF_ERROR(CheckSize(tokens));
  return tokens;
}

}  // namespace valuescope::text
