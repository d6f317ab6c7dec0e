#include "text/text_model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/strict_json.h"
#include "nlohmann/json.hpp"
#include "observability/log.h"
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

// A file that holds a JSON object.
absl::StatusOr<JsonFile> ReadObject(const std::filesystem::path& folder, const std::string& name) {
  VS_ASSIGN_OR_RETURN(const std::optional<std::string> content,
                      ReadFile(folder, name, kMaxConfigBytes));
  JsonFile file;
  if (!content) return file;
  absl::StatusOr<json> object = ParsePythonJson(*content, &file.keys);
  if (!object.ok()) return InvalidField(name, object.status().message());
  if (!object->is_object()) return InvalidField(name, "is not a JSON object");
  file.object = *std::move(object);
  return file;
}

using Templates = std::map<std::string, std::string>;  // by name; "default" is for plain chats

// One template, or several by name, as an object or as a list of which the last of a name counts.
absl::StatusOr<Templates> TemplatesIn(const json& tokenizer_config) {
  const auto value = tokenizer_config.find("chat_template");
  if (value == tokenizer_config.end() || value->is_null()) return Templates();
  if (value->is_string()) return Templates{{"default", value->get<std::string>()}};
  const auto malformed = [] {
    return InvalidField("tokenizer_config.json.chat_template",
                        "is neither text nor templates by name");
  };
  if (!value->is_array() && !value->is_object()) return malformed();
  Templates templates;
  for (const auto& [key, entry] : value->items()) {
    if (value->is_object()) {
      if (!entry.is_string()) return malformed();
      templates[key] = entry.get<std::string>();
      continue;
    }
    if (!entry.is_object()) return malformed();
    const auto name = entry.find("name"), source = entry.find("template");
    if (name == entry.end() || !name->is_string() || source == entry.end() ||
        !source->is_string()) {
      return malformed();
    }
    templates[name->get<std::string>()] = source->get<std::string>();
  }
  return templates;
}

// Those that are files of their own: chat_template.jinja, and additional_chat_templates/NAME.jinja.
absl::StatusOr<Templates> TemplateFiles(const std::filesystem::path& folder) {
  constexpr char kMore[] = "additional_chat_templates";
  constexpr size_t kMostTemplates = 64;
  Templates templates;
  VS_ASSIGN_OR_RETURN(std::optional<std::string> source,
                      ReadFile(folder, "chat_template.jinja", kMaxTemplateBytes));
  if (source) templates["default"] = *std::move(source);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder / kMore, ignored)) {
    if (entry.path().extension() != ".jinja") continue;
    if (templates.size() == kMostTemplates) {
      return InvalidField(kMore, absl::StrCat("holds more than ", kMostTemplates, " templates"));
    }
    VS_ASSIGN_OR_RETURN(source,
                        ReadFile(folder, absl::StrCat(kMore, "/", entry.path().filename().string()),
                                 kMaxTemplateBytes));
    if (source) templates[entry.path().stem().string()] = *std::move(source);
  }
  return templates;
}

using NamedTokens = std::vector<std::pair<std::string, std::string>>;

absl::StatusOr<std::unique_ptr<ChatTemplate>> LoadTemplate(const std::filesystem::path& folder,
                                                           const json& tokenizer_config,
                                                           NamedTokens special_tokens) {
  VS_ASSIGN_OR_RETURN(Templates templates, TemplateFiles(folder));
  // Files take the place of all that tokenizer_config.json holds.
  if (templates.empty()) {
    VS_ASSIGN_OR_RETURN(templates, TemplatesIn(tokenizer_config));
  }
  const auto source = templates.find("default");
  if (source == templates.end()) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NO_CHAT_TEMPLATE",
                           templates.empty()
                               ? "the model has no chat template: send the prompt as text"
                               : "the model has chat templates, but none is the default: name one "
                                 "of them \"default\", "
                                 "or send the prompt as text");
  }
  if (source->second.size() > kMaxTemplateBytes) {
    return InvalidField("chat_template",
                        absl::StrCat("has ", source->second.size(), " bytes, at most ",
                                     kMaxTemplateBytes, " are allowed"));
  }
  return ChatTemplate::Compile(source->second, std::move(special_tokens));
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

// "eos_token_id": 2 or [2, 3], ascending; null and absent give none. Those beyond the vocabulary
// are never generated and mean nothing.
absl::StatusOr<std::vector<int32_t>> EndsIn(const json& config, const std::string& file,
                                            int64_t vocabulary) {
  constexpr char kKey[] = "eos_token_id";
  std::vector<int32_t> ids;
  const auto value = config.find(kKey);
  if (value == config.end() || value->is_null()) return ids;
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json& id : list) {
    if (!IsTokenId(id)) {
      return InvalidField(absl::StrCat(file, ".", kKey), "is not a token id or a list of them");
    }
    if (id < vocabulary) ids.push_back(id.get<int32_t>());
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

// The class that transformers makes of the tokenizer: what tokenizer_config.json or config.json
// names where the family has none of its own, or one that is known to be named wrongly.
std::string TokenizerClass(const json& config, const json& tokenizer_config) {
  const auto text = [](const json& object, const char* key) {
    const auto value = object.find(key);
    return value != object.end() && value->is_string() ? value->get<std::string>() : "";
  };
  const std::string family = text(config, "model_type");
  if (family == "qwen2") return "Qwen2Tokenizer";
  if (family == "mistral") return "";
  std::string named = text(tokenizer_config, "tokenizer_class");
  if (named.empty()) named = text(config, "tokenizer_class");
  if (named.empty() && family == "qwen3") return "Qwen2Tokenizer";
  if (named.empty() && family == "gemma2") return "GemmaTokenizer";
  return std::string(absl::StripSuffix(named, "Fast"));
}

// transformers builds this one anew from the vocabulary, other than its tokenizer.json has it.
void LogClassNotFollowed(const std::string& folder, absl::string_view tokenizer_class) {
  if (tokenizer_class != "LlamaTokenizer") return;
  observability::Log(observability::LogLevel::kWarning, "tokenizer class not followed",
                     {{"model", std::filesystem::path(folder).filename().string()},
                      {"class", tokenizer_class},
                      {"followed", "tokenizer.json"}});
}

absl::StatusOr<bool> SplitsSpecialTokens(const json& tokenizer_config) {
  constexpr char kKey[] = "split_special_tokens";
  const auto value = tokenizer_config.find(kKey);
  if (value == tokenizer_config.end()) return false;
  if (value->is_boolean()) return value->get<bool>();
  return InvalidField(absl::StrCat("tokenizer_config.json.", kKey), "is not true or false");
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::filesystem::path& folder,
                                                         const json& tokenizer_config,
                                                         const DeclaredTokens& declared) {
  if (const auto files = tokenizer_config.find("fast_tokenizer_files");
      files != tokenizer_config.end() && *files != json::array({"tokenizer.json"})) {
    return InvalidField(
        "tokenizer_config.json.fast_tokenizer_files",
        "names tokenizers by version, of which none is chosen here: keep the one to "
        "be read as tokenizer.json and remove the key");
  }
  VS_ASSIGN_OR_RETURN(const std::optional<std::string> file,
                      ReadFile(folder, "tokenizer.json", kMaxTokenizerBytes));
  if (!file) {
    return InvalidField("tokenizer.json",
                        "is missing from the model's folder, and no other kind of tokenizer is "
                        "read: write it with AutoTokenizer's save_pretrained");
  }
  VS_ASSIGN_OR_RETURN(const bool splits, SplitsSpecialTokens(tokenizer_config));
  return Tokenizer::Load(*file, declared.tokens, splits);
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

// The id of a special token by its name, such as "bos_token".
std::optional<int32_t> NamedId(absl::string_view name, const DeclaredTokens& declared,
                               const Tokenizer& tokenizer, int64_t vocabulary) {
  for (const auto& [known, text] : declared.named) {
    if (known != name) continue;
    const std::optional<int32_t> id = tokenizer.AddedTokenId(text);
    return id && *id < vocabulary ? id : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextModel>> TextModel::Load(const std::string& folder) {
  std::unique_ptr<TextModel> model(new TextModel);
  VS_ASSIGN_OR_RETURN(const JsonFile config_file, ReadObject(folder, "config.json"));
  const json& config = config_file.object;
  TokenFiles files;
  VS_ASSIGN_OR_RETURN(files.tokenizer_config, ReadObject(folder, "tokenizer_config.json"));
  const json& tokenizer_config = files.tokenizer_config.object;
  if (!tokenizer_config.contains("added_tokens_decoder")) {
    VS_ASSIGN_OR_RETURN(files.special_tokens_map, ReadObject(folder, "special_tokens_map.json"));
    VS_ASSIGN_OR_RETURN(files.added_tokens, ReadObject(folder, "added_tokens.json"));
  }
  files.tokenizer_class = TokenizerClass(config, tokenizer_config);
  LogClassNotFollowed(folder, files.tokenizer_class);
  VS_ASSIGN_OR_RETURN(const DeclaredTokens declared, ReadDeclaredTokens(files));
  VS_ASSIGN_OR_RETURN(model->tokenizer_, LoadTokenizer(folder, tokenizer_config, declared));
  if (CleansUpSpaces(tokenizer_config, *model->tokenizer_)) model->tokenizer_->CleanUpSpaces();
  model->vocabulary_ = Vocabulary(config).value_or(std::numeric_limits<int64_t>::max());
  const auto id_of = [&](absl::string_view name) {
    return NamedId(name, declared, *model->tokenizer_, model->vocabulary_);
  };
  model->tokenizer_bos_id_ = id_of("bos_token");
  model->tokenizer_eos_id_ = id_of("eos_token");
  model->chat_template_ = LoadTemplate(folder, tokenizer_config, declared.named);
  VS_RETURN_IF_ERROR(model->ReadEnds(folder, config));
  return model;
}

// A generation_config.json says all that there is to say, or else config.json does: what generate
// of transformers knows as well.
absl::Status TextModel::ReadEnds(const std::string& folder, const json& config) {
  std::string name = "generation_config.json";
  VS_ASSIGN_OR_RETURN(JsonFile file, ReadObject(folder, name));
  std::error_code ignored;
  if (!std::filesystem::exists(std::filesystem::path(folder) / name, ignored)) {
    name = "config.json";
    file.object = config;
  }
  VS_ASSIGN_OR_RETURN(eos_ids_, EndsIn(file.object, name, vocabulary_));
  if (eos_ids_.empty()) {
    observability::Log(observability::LogLevel::kWarning, "model names no end of a response",
                       {{"model", std::filesystem::path(folder).filename().string()},
                        {"file", name},
                        {"key", "eos_token_id"}});
  }
  return absl::OkStatus();
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
  VS_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer_->Encode(text, add_special_tokens));
  if (tokenizer_->vocabulary_size() <= vocabulary_) return ids;
  for (const int32_t id : ids) {
    if (id < vocabulary_) continue;
    return InvalidField("text",
                        absl::StrCat("holds the token ", id,
                                     ", but the model's embedding "
                                     "ends before ",
                                     vocabulary_),
                        "TOKEN_OUTSIDE_VOCABULARY");
  }
  return ids;
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
