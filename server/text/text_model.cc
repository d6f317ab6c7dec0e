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

namespace valuescope::text {
namespace {

using nlohmann::json;

constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;  // tokenizer_config.json lists added tokens
constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

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

// A token by name: "bos_token": "<s>" or {"content": "<s>", ...}.
std::optional<std::string> TokenText(const json& config, const char* name) {
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

std::vector<std::pair<std::string, std::string>> SpecialTokens(const json& tokenizer_config,
                                                               const json& special_tokens_map) {
  std::vector<std::pair<std::string, std::string>> tokens;
  for (const char* name : kSpecialTokens) {
    std::optional<std::string> text = TokenText(tokenizer_config, name);
    if (!text) text = TokenText(special_tokens_map, name);
    if (text) tokens.emplace_back(name, *std::move(text));
  }
  return tokens;
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

absl::StatusOr<std::unique_ptr<ChatTemplate>> LoadTemplate(const std::filesystem::path& folder,
                                                           const json& tokenizer_config,
                                                           const json& special_tokens_map) {
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
  return ChatTemplate::Compile(*source, SpecialTokens(tokenizer_config, special_tokens_map));
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

}  // namespace

absl::StatusOr<std::unique_ptr<TextModel>> TextModel::Load(const std::string& folder) {
  std::unique_ptr<TextModel> model(new TextModel);
  {
    VS_ASSIGN_OR_RETURN(const std::optional<std::string> file,
                        ReadFile(folder, "tokenizer.json", kMaxTokenizerBytes));
    if (!file) return InvalidField("tokenizer.json", "is missing from the model's folder");
    VS_ASSIGN_OR_RETURN(model->tokenizer_, Tokenizer::Load(*file));
  }
  VS_ASSIGN_OR_RETURN(const json config, ReadObject(folder, "config.json"));
  const std::optional<int64_t> vocabulary = Vocabulary(config);
  if (vocabulary && model->tokenizer_->vocabulary_size() > *vocabulary) {
    return InvalidField("tokenizer.json",
                        absl::StrCat("has the id ", model->tokenizer_->vocabulary_size() - 1,
                                     ", but config.json's vocab_size is ", *vocabulary));
  }
  VS_ASSIGN_OR_RETURN(const json tokenizer_config, ReadObject(folder, "tokenizer_config.json"));
  VS_ASSIGN_OR_RETURN(const json special_tokens, ReadObject(folder, "special_tokens_map.json"));
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
  const auto id_of = [&](const char* name) -> std::optional<int32_t> {
    std::optional<std::string> text = TokenText(tokenizer_config, name);
    if (!text) text = TokenText(special_tokens, name);
    return text ? model->tokenizer_->AddedTokenId(*text) : std::nullopt;
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
                                                           bool add_special_tokens) const {
  if (text.size() > kMostTextBytes) {
    return InvalidField(
        "text", absl::StrCat("has ", text.size(), " bytes, allowed are at most ", kMostTextBytes),
        "TEXT_TOO_LONG");
  }
  return tokenizer_->Encode(text, add_special_tokens);
}

absl::StatusOr<EncodedText> TextModel::EncodeChat(const std::vector<ChatMessage>& messages,
                                                  const RenderOptions& options) const {
  if (!chat_template_.ok()) {
    const absl::Status& status = chat_template_.status();
    if (absl::IsFailedPrecondition(status)) return status;
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "CHAT_TEMPLATE_INVALID",
        absl::StrCat("the model's chat template is unusable: ", status.message()));
  }
  EncodedText encoded;
  VS_ASSIGN_OR_RETURN(encoded.text, (*chat_template_)->Render(messages, options));
  auto ids = tokenizer_->Encode(encoded.text, /*add_special_tokens=*/false);
  if (!ids.ok()) return WithFieldRenamed(ids.status(), "text", "messages");
  encoded.ids = *std::move(ids);
  return encoded;
}

std::string TextModel::template_digest() const {
  return chat_template_.ok() ? (*chat_template_)->digest() : "";
}

}  // namespace valuescope::text
