#include "text/declared_tokens.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::text {
namespace {

using nlohmann::json;
using Existing = DeclaredToken::Existing;

// What looks for the tokens in a text takes tens of bytes for each of theirs.
constexpr size_t kMostTokens = 65'536;
constexpr size_t kMostTokenBytes = size_t{1} << 20;

constexpr char kConfig[] = "tokenizer_config.json";
constexpr char kMap[] = "special_tokens_map.json";
constexpr char kAdded[] = "added_tokens.json";
constexpr char kDecoder[] = "added_tokens_decoder";
constexpr char kExtra[] = "extra_special_tokens";
constexpr char kAdditional[] = "additional_special_tokens";  // its name before

constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

struct ClassDefaults {
  const char* tokenizer_class;
  std::vector<std::pair<std::string, std::string>> tokens;
};

const std::vector<ClassDefaults>& Defaults() {
  static const auto* const kDefaults = new std::vector<ClassDefaults>{
      {"LlamaTokenizer", {{"unk_token", "<unk>"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}}},
      {"Qwen2Tokenizer",
       {{"unk_token", "<|endoftext|>"},
        {"eos_token", "<|endoftext|>"},
        {"pad_token", "<|endoftext|>"}}},
      {"GemmaTokenizer",
       {{"unk_token", "<unk>"},
        {"bos_token", "<bos>"},
        {"eos_token", "<eos>"},
        {"pad_token", "<pad>"},
        {"mask_token", "<mask>"}}}};
  return *kDefaults;
}

absl::Status Malformed(absl::string_view file, absl::string_view key, absl::string_view what) {
  return InvalidField(absl::StrCat(file, ".", key), what);
}

bool IsToken(const json& value) {
  if (value.is_string()) return true;
  const auto content = value.is_object() ? value.find("content") : value.end();
  return value.is_object() && content != value.end() && content->is_string();
}

absl::StatusOr<bool> Flag(const json& token, const char* name, bool otherwise,
                          absl::string_view file, absl::string_view key) {
  const auto value = token.find(name);
  if (value == token.end()) return otherwise;
  if (!value->is_boolean()) {
    return Malformed(file, absl::StrCat(key, ".", name), "is not a boolean");
  }
  return value->get<bool>();
}

// "<s>" or {"content": "<s>", "lstrip": true, ...}; text alone is a special token, and so is one
// that is known to be `special`.
absl::StatusOr<DeclaredToken> TokenOf(const json& value, absl::string_view file,
                                      absl::string_view key, bool special) {
  if (!IsToken(value)) {
    return Malformed(file, key, "is neither text nor an object with a content");
  }
  if (value.is_string()) return DeclaredToken{.text = value.get<std::string>()};
  DeclaredToken token = {.text = value["content"].get<std::string>()};
  VS_ASSIGN_OR_RETURN(token.single_word, Flag(value, "single_word", false, file, key));
  VS_ASSIGN_OR_RETURN(token.lstrip, Flag(value, "lstrip", false, file, key));
  VS_ASSIGN_OR_RETURN(token.rstrip, Flag(value, "rstrip", false, file, key));
  VS_ASSIGN_OR_RETURN(token.special, Flag(value, "special", false, file, key));
  token.special = token.special || special;
  VS_ASSIGN_OR_RETURN(token.normalized, Flag(value, "normalized", !token.special, file, key));
  return token;
}

// Tokens in the order in which their names were first put; what is put later counts.
class OrderedTokens {
 public:
  void Put(const std::string& name, DeclaredToken token) {
    const auto [place, is_new] = places_.emplace(name, tokens_.size());
    if (is_new) {
      tokens_.emplace_back(name, std::move(token));
    } else {
      tokens_[place->second].second = std::move(token);
    }
  }
  void PutAll(const OrderedTokens& others) {
    for (const auto& [name, token] : others.tokens_) Put(name, token);
  }
  std::vector<std::pair<std::string, DeclaredToken>> Take() && { return std::move(tokens_); }

 private:
  std::map<std::string, size_t> places_;
  std::vector<std::pair<std::string, DeclaredToken>> tokens_;
};

// Special tokens by name in the order in which transformers meets them, and the extra ones.
class SpecialTokens {
 public:
  static absl::StatusOr<SpecialTokens> Read(const TokenFiles& files, bool reads_map) {
    SpecialTokens tokens;
    const JsonFile& config = files.tokenizer_config;
    for (const char* key : {kExtra, kAdditional}) {
      if (tokens.extra_ != nullptr || !config.object.contains(key)) continue;
      tokens.extra_ = &config.object[key];
    }
    VS_RETURN_IF_ERROR(tokens.ReadNamed(config, kConfig));
    if (tokens.extra_ != nullptr && tokens.extra_->is_object()) {
      VS_RETURN_IF_ERROR(tokens.NameExtra(config, kConfig, *tokens.extra_));
      tokens.extra_ = nullptr;
    }
    if (reads_map) VS_RETURN_IF_ERROR(tokens.ReadMap(files.special_tokens_map));
    for (const ClassDefaults& defaults : Defaults()) {
      if (files.tokenizer_class != defaults.tokenizer_class) continue;
      for (const auto& [name, text] : defaults.tokens) {
        tokens.standard_.try_emplace(name, DeclaredToken{.text = text});
      }
    }
    if (tokens.extra_ != nullptr) VS_RETURN_IF_ERROR(tokens.ReadExtra(kConfig, *tokens.extra_));
    return tokens;
  }

  std::vector<std::pair<std::string, DeclaredToken>> Named() const {
    OrderedTokens named;
    for (const char* name : kSpecialTokens) {
      const auto token = standard_.find(name);
      if (token != standard_.end() && token->second) named.Put(name, *token->second);
    }
    named.PutAll(found_);
    named.PutAll(told_);
    return std::move(named).Take();
  }

  const std::vector<DeclaredToken>& extra() const { return extra_tokens_; }
  // They are special themselves, but make no token of added_tokens.json special.
  bool extra_is_of_map() const { return extra_is_of_map_; }

  static bool IsStandard(absl::string_view name) {
    return std::find(std::begin(kSpecialTokens), std::end(kSpecialTokens), name) !=
           std::end(kSpecialTokens);
  }

 private:
  // Whether a key that nobody knows has a token: text, or an object that is marked as one.
  static bool NamesOne(const json& value, absl::string_view file_name) {
    return IsToken(value) && (value.is_string() || value.contains("__type") || file_name == kMap);
  }

  absl::Status ReadNamed(const JsonFile& file, absl::string_view file_name) {
    for (const std::string& key : file.keys) {
      const auto value = file.object.find(key);
      if (value == file.object.end()) continue;  // of an inner object
      if (IsStandard(key)) {
        if (value->is_null()) {
          standard_[key] = std::nullopt;
          continue;
        }
        VS_ASSIGN_OR_RETURN(standard_[key], TokenOf(*value, file_name, key, /*special=*/true));
      } else if (absl::EndsWith(key, "_token") && NamesOne(*value, file_name)) {
        VS_ASSIGN_OR_RETURN(DeclaredToken token, TokenOf(*value, file_name, key, /*special=*/true));
        (file_name == kConfig && value->is_string() ? told_ : found_).Put(key, std::move(token));
      }
    }
    return absl::OkStatus();
  }

  absl::Status NameExtra(const JsonFile& file, absl::string_view file_name, const json& extra) {
    for (const std::string& path : file.keys) {
      for (const char* key : {kExtra, kAdditional}) {
        const std::string prefix = absl::StrCat(key, ".");
        const auto value =
            absl::StartsWith(path, prefix) ? extra.find(path.substr(prefix.size())) : extra.end();
        if (value == extra.end()) continue;
        VS_ASSIGN_OR_RETURN(DeclaredToken token,
                            TokenOf(*value, file_name, path, /*special=*/true));
        told_.Put(path.substr(prefix.size()), std::move(token));
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadExtra(absl::string_view file_name, const json& extra) {
    if (extra.is_null()) return absl::OkStatus();
    if (!extra.is_array()) return Malformed(file_name, kExtra, "is neither a list nor an object");
    for (const json& value : extra) {
      VS_ASSIGN_OR_RETURN(DeclaredToken token,
                          TokenOf(value, file_name, kExtra, /*special=*/file_name == kMap));
      extra_tokens_.push_back(std::move(token));
    }
    return absl::OkStatus();
  }

  // Its special tokens take the place of the others. Its extra_special_tokens join them, its
  // additional_special_tokens count where there are no others.
  absl::Status ReadMap(const JsonFile& file) {
    VS_RETURN_IF_ERROR(ReadNamed(file, kMap));
    if (const auto extra = file.object.find(kExtra); extra != file.object.end()) {
      if (extra->is_object()) return NameExtra(file, kMap, *extra);
      if (extra->is_null()) {
        extra_ = nullptr;
        return absl::OkStatus();
      }
      if (extra_ != nullptr) VS_RETURN_IF_ERROR(ReadExtra(kConfig, *extra_));
      extra_ = nullptr;
      return ReadExtra(kMap, *extra);
    }
    const auto additional = file.object.find(kAdditional);
    if (additional == file.object.end() || extra_ != nullptr) return absl::OkStatus();
    extra_is_of_map_ = true;
    return ReadExtra(kMap, *additional);
  }

  std::map<std::string, std::optional<DeclaredToken>> standard_;
  // "image_token" and others that a model names itself: as text in tokenizer_config.json or among
  // the extra ones, which count, or elsewhere, which come first.
  OrderedTokens told_, found_;
  const json* extra_ = nullptr;  // a list or null that was not read yet
  std::vector<DeclaredToken> extra_tokens_;
  bool extra_is_of_map_ = false;
};

// By id. The id itself says nothing: a token has that of the vocabulary or the next one.
absl::StatusOr<std::map<int64_t, DeclaredToken>> AddedTokensDecoder(
    const json& decoder, const std::set<std::string>& special) {
  std::map<int64_t, DeclaredToken> tokens;
  if (!decoder.is_object()) return Malformed(kConfig, kDecoder, "is not an object");
  for (const auto& [key, value] : decoder.items()) {
    int64_t id = 0;
    if (!absl::SimpleAtoi(key, &id)) {
      return Malformed(kConfig, kDecoder, "has a key that is not a number");
    }
    const std::string field = absl::StrCat(kDecoder, ".", id);
    if (!value.is_object()) return Malformed(kConfig, field, "is not an object");
    const bool is_special = IsToken(value) && special.contains(value["content"].get<std::string>());
    VS_ASSIGN_OR_RETURN(tokens[id], TokenOf(value, kConfig, field, is_special));
    tokens[id].existing = Existing::kReplaced;
  }
  return tokens;
}

// {"<|im_start|>": 32000}, which slow tokenizers wrote: by id, special where another file says so.
absl::StatusOr<std::map<int64_t, DeclaredToken>> AddedTokens(const JsonFile& file,
                                                             const std::set<std::string>& special) {
  std::map<int64_t, DeclaredToken> tokens;
  for (const std::string& text : file.keys) {
    const auto id = file.object.find(text);
    if (id == file.object.end()) continue;
    if (!id->is_number_integer() || *id < 0 || *id > std::numeric_limits<int32_t>::max()) {
      return InvalidField(kAdded, "has a token whose id is not a whole number below 2^31");
    }
    const bool is_special = special.contains(text);
    tokens[id->get<int64_t>()] = {.text = text,
                                  .normalized = !is_special,
                                  .special = is_special,
                                  .existing = is_special ? Existing::kMadeSpecial : Existing::kKept,
                                  .id = id->get<int32_t>()};
  }
  return tokens;
}

absl::Status CheckSize(const std::vector<DeclaredToken>& tokens) {
  size_t bytes = 0;
  for (const DeclaredToken& token : tokens) bytes += token.text.size();
  if (tokens.size() <= kMostTokens && bytes <= kMostTokenBytes) return absl::OkStatus();
  return InvalidField(kConfig, absl::StrCat("declares ", tokens.size(), " tokens of ", bytes,
                                            " bytes, allowed are at most ", kMostTokens,
                                            " tokens of ", kMostTokenBytes, " bytes"));
}

}  // namespace

absl::StatusOr<DeclaredTokens> ReadDeclaredTokens(const TokenFiles& files) {
  const json& config = files.tokenizer_config.object;
  const auto decoder = config.find(kDecoder);
  const bool has_decoder = decoder != config.end();
  VS_ASSIGN_OR_RETURN(const SpecialTokens special, SpecialTokens::Read(files, !has_decoder));
  DeclaredTokens declared;
  std::set<std::string> named_texts, special_texts;
  for (const auto& [name, token] : special.Named()) {
    declared.named.emplace_back(name, token.text);
    named_texts.insert(token.text);
    if (SpecialTokens::IsStandard(name)) special_texts.insert(token.text);
  }
  for (const DeclaredToken& token : special.extra()) {
    if (!special.extra_is_of_map()) special_texts.insert(token.text);
  }

  std::map<int64_t, DeclaredToken> by_id;
  if (has_decoder) {
    VS_ASSIGN_OR_RETURN(by_id, AddedTokensDecoder(*decoder, named_texts));
  } else {
    VS_ASSIGN_OR_RETURN(by_id, AddedTokens(files.added_tokens, special_texts));
  }
  std::map<std::string, DeclaredToken> known;
  for (auto& [id, token] : by_id) {
    if (named_texts.contains(token.text)) {
      token.special = true;
      if (!has_decoder) token.existing = Existing::kMadeSpecial;
    }
    known.emplace(token.text, token);
    declared.tokens.push_back(std::move(token));
  }
  // Of one text once as it is and once with further properties, of which the later ones count.
  std::set<std::pair<std::string, bool>> added;
  const auto add = [&](DeclaredToken token, Existing existing) {
    token.existing = existing;
    const auto earlier = known.find(token.text);
    if (earlier == known.end()) {
      const bool is_plain = !token.lstrip && !token.rstrip && !token.single_word;
      if (!added.emplace(token.text, is_plain).second) return;
      declared.tokens.push_back(std::move(token));
    } else if (std::exchange(earlier->second.id, std::nullopt)) {
      // One of added_tokens.json may have no place under its id, and has one by its name.
      declared.tokens.push_back(earlier->second);
    }
  };
  for (const auto& [name, token] : special.Named()) {
    add(token, has_decoder ? Existing::kKept : Existing::kMadeSpecial);
  }
  for (const DeclaredToken& token : special.extra()) add(token, Existing::kKept);
  VS_RETURN_IF_ERROR(CheckSize(declared.tokens));
  return declared;
}

}  // namespace valuescope::text
