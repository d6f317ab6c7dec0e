#include "text/text_model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/strict_json.h"
#include "nlohmann/json.hpp"
#include "text/declared_tokens.h"

namespace valuescope::text {
namespace {

using nlohmann::json;

constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;  // tokenizer_config.json lists added tokens
constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

// Whether a file is beneath a folder when all links are followed.
bool LiesWithin(const std::filesystem::path& folder, const std::filesystem::path& file) {
  std::error_code error;
  const std::filesystem::path root = std::filesystem::canonical(folder, error);
  if (error) return false;
  const std::filesystem::path real = std::filesystem::canonical(file, error);
  if (error) return false;
  return std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first == root.end();
}

// The content of a file of the model's folder; nothing where there is none.
absl::StatusOr<std::optional<std::string>> ReadFile(const std::filesystem::path& folder,
                                                    const std::string& name, size_t max_bytes) {
  const std::filesystem::path path = folder / name;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::optional<std::string>();
  if (!std::filesystem::is_regular_file(path, error)) return InvalidField(name, "is not a file");
  if (!LiesWithin(folder, path)) {
    return InvalidField(name, "is a link that leads out of the model's folder");
  }
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return InvalidField(name, "cannot be read");
  if (size > max_bytes) {
    return InvalidField(name,
                        absl::StrCat("has ", size, " bytes, at most ", max_bytes, " are allowed"));
  }
  std::string content(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(content.data(), static_cast<std::streamsize>(size))) {
    return InvalidField(name, "cannot be read");
  }
  return std::optional<std::string>(std::move(content));
}

// A file that holds a JSON object; an empty object where there is no file.
absl::StatusOr<json> ReadObject(const std::filesystem::path& folder, const std::string& name) {
  VS_ASSIGN_OR_RETURN(const std::optional<std::string> content,
                      ReadFile(folder, name, kMaxConfigBytes));
  if (!content) return json::object();
  absl::StatusOr<json> object = ParseStrictJson(*content);
  if (!object.ok()) return InvalidField(name, object.status().message());
  if (!object->is_object()) return InvalidField(name, "is not a JSON object");
  return object;
}

// One template, or several by name of which "default" is for plain chats.
absl::StatusOr<std::optional<std::string>> TemplateIn(const json& tokenizer_config) {
  const auto value = tokenizer_config.find("chat_template");
  if (value == tokenizer_config.end() || value->is_null()) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) {
    return InvalidField("tokenizer_config.json.chat_template",
                        "is neither text nor a list of templates by name");
  }
  for (const json& entry : *value) {
    if (!entry.is_object()) continue;
    const auto name = entry.find("name");
    const auto source = entry.find("template");
    if (name == entry.end() || source == entry.end() || !source->is_string()) continue;
    if (*name == "default") return source->get<std::string>();
  }
  return std::nullopt;
}

using NamedTokens = std::vector<std::pair<std::string, std::string>>;

absl::StatusOr<std::unique_ptr<ChatTemplate>> LoadTemplate(const std::filesystem::path& folder,
                                                           const json& tokenizer_config,
                                                           NamedTokens special_tokens) {
  VS_ASSIGN_OR_RETURN(std::optional<std::string> source,
                      ReadFile(folder, "chat_template.jinja", kMaxTemplateBytes));
  if (!source) {
    VS_ASSIGN_OR_RETURN(source, TemplateIn(tokenizer_config));
  }
  if (!source) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NO_CHAT_TEMPLATE",
                           "the model has no chat template: send the prompt as text");
  }
  if (source->size() > kMaxTemplateBytes) {
    return InvalidField("chat_template", absl::StrCat("has ", source->size(), " bytes, at most ",
                                                      kMaxTemplateBytes, " are allowed"));
  }
  return ChatTemplate::Compile(*source, std::move(special_tokens));
}

bool IsTokenId(const json& value) {
  return value.is_number_integer() && value >= 0 && value <= std::numeric_limits<int32_t>::max();
}

// The rows of the embedding, where config.json says how many: ids from there on have none.
std::optional<int64_t> Vocabulary(const json& config) {
  const auto size = config.find("vocab_size");
  if (size == config.end() || !size->is_number_integer() || *size < 0) return std::nullopt;
  return size->is_number_unsigned() && *size > std::numeric_limits<int64_t>::max()
             ? std::nullopt
             : std::optional<int64_t>(size->get<int64_t>());
}

// "eos_token_id": 2 or [2, 3], ascending; null and absent give none.
absl::StatusOr<std::vector<int32_t>> TokenIds(const json& config, const std::string& file,
                                              const char* name, std::optional<int64_t> vocabulary) {
  std::vector<int32_t> ids;
  const auto value = config.find(name);
  if (value == config.end() || value->is_null()) return ids;
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json& id : list) {
    if (!IsTokenId(id)) {
      return InvalidField(absl::StrCat(file, ".", name), "is not a token id or a list of them");
    }
    if (vocabulary && id >= *vocabulary) {
      return InvalidField(absl::StrCat(file, ".", name),
                          absl::StrCat("names the token ", id.get<int32_t>(),
                                       ", but config.json's vocab_size is ", *vocabulary));
    }
    ids.push_back(id.get<int32_t>());
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::filesystem::path& folder,
                                                         const json& tokenizer_config,
                                                         const NamedTokens& special_tokens,
                                                         std::optional<int64_t> vocabulary) {
  VS_ASSIGN_OR_RETURN(const std::optional<std::string> file,
                      ReadFile(folder, "tokenizer.json", kMaxTokenizerBytes));
  if (!file) return InvalidField("tokenizer.json", "is missing from the model's folder");
  VS_ASSIGN_OR_RETURN(const std::vector<DeclaredToken> declared,
                      DeclaredTokens(tokenizer_config, special_tokens));
  constexpr int64_t kMostIds = std::numeric_limits<int32_t>::max();
  const int64_t most_ids = std::min(vocabulary.value_or(kMostIds), kMostIds);
  VS_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer,
                      Tokenizer::Load(*file, declared, static_cast<uint32_t>(most_ids)));
  if (vocabulary && tokenizer->vocabulary_size() > *vocabulary) {
    return InvalidField("tokenizer.json",
                        absl::StrCat("has the id ", tokenizer->vocabulary_size() - 1,
                                     ", but config.json's vocab_size is ", *vocabulary));
  }
  return tokenizer;
}

// transformers' clean_up_tokenization_spaces, which it does to byte-pair encoding only where told
// that this is harmful.
bool CleansUpSpaces(const json& tokenizer_config, const Tokenizer& tokenizer) {
  constexpr char kEvenBpe[] =
      "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
  const auto says = [&](const char* name) {
    const auto value = tokenizer_config.find(name);
    return value != tokenizer_config.end() && *value == true;
  };
  return says("clean_up_tokenization_spaces") && (!tokenizer.is_bpe() || says(kEvenBpe));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextModel>> TextModel::Load(const std::string& folder) {
  std::unique_ptr<TextModel> model(new TextModel);
  VS_ASSIGN_OR_RETURN(const json config, ReadObject(folder, "config.json"));
  VS_ASSIGN_OR_RETURN(const json tokenizer_config, ReadObject(folder, "tokenizer_config.json"));
  VS_ASSIGN_OR_RETURN(const json special_tokens_map, ReadObject(folder, "special_tokens_map.json"));
  const NamedTokens special_tokens = NamedSpecialTokens(tokenizer_config, special_tokens_map);
  const std::optional<int64_t> vocabulary = Vocabulary(config);
  VS_ASSIGN_OR_RETURN(model->tokenizer_,
                      LoadTokenizer(folder, tokenizer_config, special_tokens, vocabulary));
  if (CleansUpSpaces(tokenizer_config, *model->tokenizer_)) model->tokenizer_->CleanUpSpaces();
  model->chat_template_ = LoadTemplate(folder, tokenizer_config, special_tokens);

  std::vector<int32_t> bos_ids;
  VS_ASSIGN_OR_RETURN(const json generation, ReadObject(folder, "generation_config.json"));
  for (const auto& [name, ids] :
       {std::pair<std::string, const json&>{"generation_config.json", generation},
        {"config.json", config}}) {
    if (model->eos_ids_.empty()) {
      VS_ASSIGN_OR_RETURN(model->eos_ids_, TokenIds(ids, name, "eos_token_id", vocabulary));
    }
    if (bos_ids.empty()) {
      VS_ASSIGN_OR_RETURN(bos_ids, TokenIds(ids, name, "bos_token_id", vocabulary));
    }
  }
  const auto id_of = [&](absl::string_view name) -> std::optional<int32_t> {
    const auto token = std::find_if(special_tokens.begin(), special_tokens.end(),
                                    [&](const auto& named) { return named.first == name; });
    if (token == special_tokens.end()) return std::nullopt;
    return model->tokenizer_->AddedTokenId(token->second);
  };
  if (!bos_ids.empty()) {
    model->bos_id_ = bos_ids.front();
  } else {
    model->bos_id_ = id_of("bos_token");
  }
  if (const auto eos_id = id_of("eos_token"); model->eos_ids_.empty() && eos_id) {
    model->eos_ids_.push_back(*eos_id);
  }
  return model;
}

absl::StatusOr<std::vector<int32_t>> TextModel::EncodeText(absl::string_view text,
                                                           bool add_special_tokens,
                                                           size_t most_tokens) const {
  if (text.size() > kMostTextBytes) {
    return InvalidField(
        "text", absl::StrCat("has ", text.size(), " bytes, allowed are at most ", kMostTextBytes),
        "TEXT_TOO_LONG");
  }
  return EncodeWithin(most_tokens, text, add_special_tokens);
}

absl::StatusOr<std::vector<int32_t>> TextModel::EncodeWithin(size_t most_tokens,
                                                             absl::string_view text,
                                                             bool add_special_tokens) const {
  const size_t fewest = tokenizer_->FewestTokens(text);
  if (fewest > most_tokens) {
    return InvalidField("text",
                        absl::StrCat("has ", text.size(), " bytes, which are at least ", fewest,
                                     " tokens; allowed are at most ", most_tokens),
                        "TEXT_TOO_LONG");
  }
  return tokenizer_->Encode(text, add_special_tokens);
}

absl::StatusOr<EncodedText> TextModel::EncodeChat(const std::vector<ChatMessage>& messages,
                                                  const RenderOptions& options,
                                                  size_t most_tokens) const {
  if (!chat_template_.ok()) {
    const absl::Status& status = chat_template_.status();
    if (absl::IsFailedPrecondition(status)) return status;
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "CHAT_TEMPLATE_INVALID",
        absl::StrCat("the model's chat template is unusable: ", status.message()));
  }
  EncodedText encoded;
  VS_ASSIGN_OR_RETURN(encoded.text, (*chat_template_)->Render(messages, options));
  auto ids = EncodeWithin(most_tokens, encoded.text, /*add_special_tokens=*/false);
  if (!ids.ok()) return WithFieldRenamed(ids.status(), "text", "messages");
  encoded.ids = *std::move(ids);
  return encoded;
}

std::string TextModel::template_digest() const {
  return chat_template_.ok() ? (*chat_template_)->digest() : "";
}

}  // namespace valuescope::text
