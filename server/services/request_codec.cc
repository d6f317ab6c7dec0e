#include "services/request_codec.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "base/strict_json.h"
#include "google/protobuf/util/json_util.h"
#include "google/protobuf/util/type_resolver_util.h"
#include "services/idempotency.h"
#include "services/tensor_codec.h"

namespace valuescope::services {
namespace {

constexpr int kDefaultMaxTokens = 256;
constexpr size_t kMaxDisplayName = 256;
constexpr size_t kMaxTemplateArgumentBytes = size_t{1} << 20;

std::string At(absl::string_view field, int index) { return absl::StrCat(field, "[", index, "]"); }

absl::StatusOr<std::vector<int32_t>> IdsFromProto(absl::string_view field, const v1::TokenIds& ids,
                                                  const engine::ServedModel& model) {
  const int64_t vocabulary = model.architecture.vocabulary;
  for (int i = 0; i < ids.ids_size(); ++i) {
    if (ids.ids(i) < 0 || ids.ids(i) >= vocabulary) {
      return OutOfRange(At(absl::StrCat(field, ".token_ids.ids"), i), ids.ids(i), 0,
                        static_cast<double>(vocabulary - 1));
    }
  }
  return std::vector<int32_t>(ids.ids().begin(), ids.ids().end());
}

size_t MostTokens(const engine::ServedModel& model, bool within_context = true) {
  return within_context ? static_cast<size_t>(model.architecture.max_positions)
                        : text::kAnyNumberOfTokens;
}

// JSON has no NaN, no infinity and nothing for a value that is not set.
bool IsJson(const google::protobuf::Value& value) {
  switch (value.kind_case()) {
    case google::protobuf::Value::KIND_NOT_SET:
      return false;
    case google::protobuf::Value::kNumberValue:
      return std::isfinite(value.number_value());
    case google::protobuf::Value::kListValue:
      return absl::c_all_of(value.list_value().values(), IsJson);
    case google::protobuf::Value::kStructValue:
      return absl::c_all_of(value.struct_value().fields(),
                            [](const auto& entry) { return IsJson(entry.second); });
    default:
      return true;
  }
}

// Keys sorted, so that equal requests give equal text.
absl::StatusOr<std::string> JsonOfStruct(absl::string_view field,
                                         const google::protobuf::Struct& arguments) {
  constexpr char kUrlPrefix[] = "type.googleapis.com";
  static google::protobuf::util::TypeResolver* const resolver =
      google::protobuf::util::NewTypeResolverForDescriptorPool(
          kUrlPrefix, google::protobuf::DescriptorPool::generated_pool());
  std::string json;
  const bool is_json =
      absl::c_all_of(arguments.fields(), [](const auto& entry) { return IsJson(entry.second); });
  if (!is_json ||
      !google::protobuf::util::BinaryToJsonString(
           resolver, absl::StrCat(kUrlPrefix, "/", arguments.GetDescriptor()->full_name()),
           DeterministicBytes(arguments), &json)
           .ok()) {
    return InvalidField(field,
                        "must hold null, booleans, finite numbers, strings, lists and objects, and "
                        "no value that is not set");
  }
  return json;
}

absl::StatusOr<nlohmann::json> ParseObject(absl::string_view field, absl::string_view text) {
  absl::StatusOr<nlohmann::json> object = ParseStrictJson(text);
  if (!object.ok()) return InvalidField(field, object.status().message());
  if (!object->is_object()) return InvalidField(field, "is not a JSON object");
  return object;
}

// The text between the braces of an object.
absl::string_view MembersOf(absl::string_view object) {
  const size_t start = object.find('{') + 1;
  return absl::StripAsciiWhitespace(object.substr(start, object.rfind('}') - start));
}

// `"name": [objects]`, or nothing where there are none.
absl::StatusOr<std::string> ListOfObjects(
    absl::string_view field, absl::string_view name,
    const google::protobuf::RepeatedPtrField<std::string>& objects) {
  if (objects.empty()) return std::string();
  const std::string path = absl::StrCat(field, ".", name);
  for (int i = 0; i < objects.size(); ++i) {
    VS_RETURN_IF_ERROR(ParseObject(At(path, i), objects[i]).status());
  }
  return absl::StrCat("\"", name, "\": [", absl::StrJoin(objects, ", "), "]");
}

// No variable of the template may be given twice.
absl::Status CheckGivenOnce(absl::string_view field, const v1::Chat& chat,
                            const nlohmann::json& ordered) {
  const auto& fields = chat.template_arguments().fields();
  for (const auto& [name, value] : ordered.items()) {
    if (fields.contains(name)) {
      return InvalidField(absl::StrCat(field, ".template_arguments_json"),
                          "has a key that template_arguments has too");
    }
  }
  for (const auto& [name, given] : {std::pair<const char*, bool>{"tools", !chat.tools().empty()},
                                    {"documents", !chat.documents().empty()}}) {
    if (given && (fields.contains(name) || ordered.contains(name))) {
      return InvalidField(absl::StrCat(field, ".", name), "are template arguments too");
    }
  }
  return absl::OkStatus();
}

// The template's further variables as one JSON object; empty where none are given.
absl::StatusOr<std::string> TemplateArguments(absl::string_view field, const v1::Chat& chat) {
  size_t bytes = chat.template_arguments().ByteSizeLong() + chat.template_arguments_json().size();
  for (const auto* objects : {&chat.tools(), &chat.documents()}) {
    for (const std::string& object : *objects) bytes += object.size();
  }
  const std::string arguments_field = absl::StrCat(field, ".template_arguments");
  if (bytes > kMaxTemplateArgumentBytes) {
    return InvalidField(arguments_field,
                        absl::StrCat("hold ", bytes, " bytes with tools and documents, allowed ",
                                     "are at most ", kMaxTemplateArgumentBytes),
                        "OUT_OF_RANGE");
  }
  std::vector<std::string> members;
  VS_ASSIGN_OR_RETURN(members.emplace_back(), ListOfObjects(field, "tools", chat.tools()));
  VS_ASSIGN_OR_RETURN(members.emplace_back(), ListOfObjects(field, "documents", chat.documents()));
  if (chat.has_template_arguments()) {
    VS_ASSIGN_OR_RETURN(const std::string json,
                        JsonOfStruct(arguments_field, chat.template_arguments()));
    members.emplace_back(MembersOf(json));
  }
  nlohmann::json ordered = nlohmann::json::object();
  if (!chat.template_arguments_json().empty()) {
    VS_ASSIGN_OR_RETURN(ordered, ParseObject(absl::StrCat(arguments_field, "_json"),
                                             chat.template_arguments_json()));
    members.emplace_back(MembersOf(chat.template_arguments_json()));
  }
  VS_RETURN_IF_ERROR(CheckGivenOnce(field, chat, ordered));
  std::erase(members, "");
  return members.empty() ? std::string() : absl::StrCat("{", absl::StrJoin(members, ", "), "}");
}

std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', /*ensure_ascii=*/false,
                                   nlohmann::json::error_handler_t::replace);
}

// The arguments stay the text that they are: it has an order.
absl::StatusOr<std::string> JsonOfToolCall(absl::string_view field, const v1::ToolCall& call) {
  if (!call.has_function()) return InvalidField(absl::StrCat(field, ".function"), "is required");
  std::vector<std::string> members;
  if (call.has_id()) members.push_back(absl::StrCat("\"id\": ", Quoted(call.id())));
  if (call.has_type()) members.push_back(absl::StrCat("\"type\": ", Quoted(call.type())));
  std::string function = absl::StrCat("\"name\": ", Quoted(call.function().name()));
  if (call.function().has_arguments()) {
    const std::string& arguments = call.function().arguments();
    if (const auto parsed = ParseStrictJson(arguments); !parsed.ok()) {
      return InvalidField(absl::StrCat(field, ".function.arguments"), parsed.status().message());
    }
    absl::StrAppend(&function, ", \"arguments\": ", arguments);
  }
  members.push_back(absl::StrCat("\"function\": {", function, "}"));
  return absl::StrCat("{", absl::StrJoin(members, ", "), "}");
}

absl::Status AddToolCalls(absl::string_view field, const v1::Message& message,
                          text::ChatMessage& result) {
  if (message.tool_calls().empty()) return absl::OkStatus();
  std::vector<std::string> calls;
  for (int i = 0; i < message.tool_calls_size(); ++i) {
    VS_ASSIGN_OR_RETURN(
        calls.emplace_back(),
        JsonOfToolCall(At(absl::StrCat(field, ".tool_calls"), i), message.tool_calls(i)));
  }
  result.more.push_back({.name = "tool_calls",
                         .value = absl::StrCat("[", absl::StrJoin(calls, ", "), "]"),
                         .is_json = true});
  return absl::OkStatus();
}

absl::StatusOr<text::ContentKind> EmptyContentFromProto(absl::string_view field,
                                                        const v1::Message& message) {
  switch (message.empty_content()) {
    case v1::EMPTY_CONTENT_UNSPECIFIED:
      return message.tool_calls().empty() ? text::ContentKind::kText : text::ContentKind::kNone;
    case v1::EMPTY_CONTENT_TEXT:
      return text::ContentKind::kText;
    case v1::EMPTY_CONTENT_NONE:
      return text::ContentKind::kNone;
    case v1::EMPTY_CONTENT_ABSENT:
      return text::ContentKind::kAbsent;
    default:
      return InvalidField(absl::StrCat(field, ".empty_content"),
                          "must be an EMPTY_CONTENT_... of the contract");
  }
}

absl::Status AddContent(absl::string_view field, const v1::Message& message,
                        text::ChatMessage& result) {
  const bool says_empty = message.empty_content() != v1::EMPTY_CONTENT_UNSPECIFIED;
  if (!message.content().empty() + message.has_content_parts() + says_empty > 1) {
    return InvalidField(field, "has more than one of content, content_parts and empty_content");
  }
  result.content = message.content();
  if (message.has_content_parts()) {
    result.content_kind = text::ContentKind::kParts;
    for (int i = 0; i < message.content_parts().parts_size(); ++i) {
      const v1::ContentPart& part = message.content_parts().parts(i);
      if (!part.has_text()) {
        return InvalidField(At(absl::StrCat(field, ".content_parts.parts"), i),
                            "is required: text");
      }
      result.parts.push_back(part.text());
    }
  } else if (message.content().empty()) {
    VS_ASSIGN_OR_RETURN(result.content_kind, EmptyContentFromProto(field, message));
  }
  return absl::OkStatus();
}

absl::StatusOr<text::ChatMessage> MessageFromProto(absl::string_view field,
                                                   const v1::Message& message) {
  text::ChatMessage result{.role = message.role()};
  VS_RETURN_IF_ERROR(AddContent(field, message, result));
  if (message.has_reasoning_content()) {
    result.more.push_back({.name = "reasoning_content", .value = message.reasoning_content()});
  }
  if (message.has_name()) result.more.push_back({.name = "name", .value = message.name()});
  VS_RETURN_IF_ERROR(AddToolCalls(field, message, result));
  if (message.has_tool_call_id()) {
    result.more.push_back({.name = "tool_call_id", .value = message.tool_call_id()});
  }
  return result;
}

// What turning text into tokens takes of the model's request memory until it is done.
absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> RoomToTokenise(
    size_t bytes, size_t messages, const engine::ServedModel& model) {
  constexpr int64_t kOfAByte = 200, kOfAMessage = 4096;
  return model.engine->TakeRequestMemory(kOfAByte * static_cast<int64_t>(bytes) +
                                         kOfAMessage * static_cast<int64_t>(messages));
}

absl::StatusOr<TokenisedPrompt> ChatFromProto(absl::string_view field, const v1::Chat& chat,
                                              const engine::ServedModel& model,
                                              const PromptOptions& prompt_options) {
  // Before anything is copied of it.
  const text::ChatSize size = SizeOf(chat);
  if (absl::Status status = text::CheckChatSize(size); !status.ok()) return InField(field, status);
  VS_ASSIGN_OR_RETURN(const auto room,
                      RoomToTokenise(size.bytes + chat.template_arguments().ByteSizeLong(),
                                     size.messages + size.parts, model));
  std::vector<text::ChatMessage> messages;
  for (int i = 0; i < chat.messages_size(); ++i) {
    VS_ASSIGN_OR_RETURN(
        messages.emplace_back(),
        MessageFromProto(At(absl::StrCat(field, ".messages"), i), chat.messages(i)));
  }
  text::RenderOptions options{.add_generation_prompt = chat.has_add_generation_prompt()
                                                           ? chat.add_generation_prompt()
                                                           : true,
                              .now = prompt_options.now,
                              .fold_system_into_user = chat.fold_system_into_user()};
  VS_ASSIGN_OR_RETURN(options.template_arguments, TemplateArguments(field, chat));
  absl::StatusOr<text::EncodedText> encoded =
      model.text->EncodeChat(messages, options, MostTokens(model, prompt_options.within_context));
  if (!encoded.ok()) return InField(field, encoded.status());
  return TokenisedPrompt{
      .ids = std::move(encoded->ids), .text = std::move(encoded->text), .from_chat = true};
}

absl::StatusOr<engine::Reduction> ReductionFromProto(absl::string_view field,
                                                     v1::Reduction reduction) {
  switch (reduction) {
    case v1::REDUCTION_UNSPECIFIED:
    case v1::REDUCTION_NONE:
      return engine::Reduction::kNone;
    case v1::REDUCTION_MEAN:
      return engine::Reduction::kMean;
    case v1::REDUCTION_SUM:
      return engine::Reduction::kSum;
    case v1::REDUCTION_MAX:
      return engine::Reduction::kMax;
    case v1::REDUCTION_LAST:
      return engine::Reduction::kLast;
    default:
      return InvalidField(field, "must be NONE, MEAN, SUM, MAX or LAST (REDUCTION_...)");
  }
}

}  // namespace

text::ChatSize SizeOf(const v1::Chat& chat) {
  text::ChatSize size{.messages = static_cast<size_t>(chat.messages_size())};
  for (const v1::Message& message : chat.messages()) {
    size.parts += message.content_parts().parts_size() + message.tool_calls_size();
    size.bytes += message.role().size() + message.content().size() + message.name().size() +
                  message.reasoning_content().size() + message.tool_call_id().size();
    for (const v1::ContentPart& part : message.content_parts().parts()) {
      size.bytes += part.text().size();
    }
    for (const v1::ToolCall& call : message.tool_calls()) {
      size.bytes += call.id().size() + call.type().size() + call.function().name().size() +
                    call.function().arguments().size();
    }
  }
  return size;
}

absl::StatusOr<std::string> IdOfName(absl::string_view field, absl::string_view collection,
                                     absl::string_view name) {
  if (!absl::StartsWith(name, collection) || name.size() <= collection.size() ||
      name[collection.size()] != '/') {
    return InvalidField(field, absl::StrCat("must be ", collection, "/ID"));
  }
  const absl::string_view id = name.substr(collection.size() + 1);
  VS_RETURN_IF_ERROR(CheckResourceId(field, id));
  return std::string(id);
}

absl::Status CheckDisplayName(absl::string_view field, absl::string_view name) {
  if (name.size() <= kMaxDisplayName) return absl::OkStatus();
  return InvalidField(
      field, absl::StrCat("has ", name.size(), " bytes, allowed are at most ", kMaxDisplayName));
}

absl::StatusOr<std::shared_ptr<const engine::ServedModel>> ModelOfName(
    absl::string_view field, absl::string_view name, const engine::ModelRegistry& models) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName(field, "models", name));
  return models.Get(id);
}

absl::StatusOr<TokenisedPrompt> PromptFromProto(absl::string_view field, const v1::Prompt& prompt,
                                                const engine::ServedModel& model,
                                                const PromptOptions& options) {
  TokenisedPrompt result;
  switch (prompt.prompt_case()) {
    case v1::Prompt::kText: {
      VS_ASSIGN_OR_RETURN(const auto room, RoomToTokenise(prompt.text().size(), 0, model));
      auto ids = model.text->EncodeText(prompt.text(), options.add_special_tokens,
                                        MostTokens(model, options.within_context));
      if (!ids.ok()) return InField(field, ids.status());
      result.ids = *std::move(ids);
      result.text = prompt.text();
      return result;
    }
    case v1::Prompt::kChat:
      return ChatFromProto(absl::StrCat(field, ".chat"), prompt.chat(), model, options);
    case v1::Prompt::kTokenIds: {
      VS_ASSIGN_OR_RETURN(result.ids, IdsFromProto(field, prompt.token_ids(), model));
      return result;
    }
    case v1::Prompt::PROMPT_NOT_SET:
      break;
  }
  return InvalidField(field, "is required: text, chat or token_ids");
}

absl::StatusOr<std::vector<int32_t>> ResponseFromProto(absl::string_view field,
                                                       const v1::Response& response,
                                                       const engine::ServedModel& model) {
  switch (response.response_case()) {
    case v1::Response::kText: {
      VS_ASSIGN_OR_RETURN(const auto room, RoomToTokenise(response.text().size(), 0, model));
      auto ids =
          model.text->EncodeText(response.text(), /*add_special_tokens=*/false, MostTokens(model));
      if (!ids.ok()) return InField(field, ids.status());
      return ids;
    }
    case v1::Response::kTokenIds:
      return IdsFromProto(field, response.token_ids(), model);
    case v1::Response::RESPONSE_NOT_SET:
      break;
  }
  return InvalidField(field, "is required: text or token_ids");
}

absl::StatusOr<model::Site> SiteFromProto(absl::string_view field, v1::Site site,
                                          model::Site otherwise) {
  if (site == v1::SITE_UNSPECIFIED) return otherwise;
  if (site < v1::SITE_EMBEDDING || site > v1::SITE_LOGITS) {
    return InvalidField(field, "must be a SITE_... of the contract");
  }
  // The contract lists sites in the order of the forward pass, after UNSPECIFIED.
  return static_cast<model::Site>(static_cast<int>(site) - 1);
}

absl::StatusOr<std::vector<int>> LayersFromProto(absl::string_view field, const v1::Layers* layers,
                                                 const LayersOptions& options) {
  const bool chosen = layers != nullptr && layers->layers_case() != v1::Layers::LAYERS_NOT_SET;
  if (!model::IsPerLayer(options.site)) {
    if (!chosen) return std::vector<int>();
    return InvalidField(
        field, absl::StrCat("must be unset: ", model::NameOf(options.site), " has no layers"));
  }
  const int last_layer = options.num_layers - 1;
  if (layers != nullptr && !chosen) {
    return InvalidField(field, absl::StrCat("chooses nothing: all, list or range of 0 to ",
                                            last_layer, ", or leave it out"));
  }
  const auto check = [&](absl::string_view path, int layer) {
    if (layer >= 0 && layer <= last_layer) return absl::OkStatus();
    return OutOfRange(path, layer, 0, last_layer);
  };
  std::set<int> result;
  if (!chosen) {
    if (!options.all_by_default) {
      return InvalidField(field,
                          absl::StrCat("is required: all, list or range of 0 to ", last_layer));
    }
    for (int layer = 0; layer <= last_layer; ++layer) result.insert(layer);
  } else if (layers->layers_case() == v1::Layers::kAll) {
    if (!layers->all()) return InvalidField(absl::StrCat(field, ".all"), "must be true");
    for (int layer = 0; layer <= last_layer; ++layer) result.insert(layer);
  } else if (layers->layers_case() == v1::Layers::kRange) {
    const v1::LayerRange& range = layers->range();
    VS_RETURN_IF_ERROR(check(absl::StrCat(field, ".range.first"), range.first()));
    VS_RETURN_IF_ERROR(check(absl::StrCat(field, ".range.last"), range.last()));
    if (range.last() < range.first()) {
      return OutOfRange(absl::StrCat(field, ".range.last"), range.last(), range.first(),
                        last_layer);
    }
    for (int layer = range.first(); layer <= range.last(); ++layer) result.insert(layer);
  } else {
    const v1::LayerList& list = layers->list();
    const std::string path = absl::StrCat(field, ".list.layers");
    if (list.layers_size() == 0) return InvalidField(path, "must name at least one layer");
    for (int i = 0; i < list.layers_size(); ++i) {
      VS_RETURN_IF_ERROR(check(At(path, i), list.layers(i)));
      if (!result.insert(list.layers(i)).second) {
        return InvalidField(At(path, i), absl::StrCat("names layer ", list.layers(i), " twice"));
      }
    }
  }
  return std::vector<int>(result.begin(), result.end());
}

absl::StatusOr<engine::TokenSelection> TokensFromProto(absl::string_view field,
                                                       const v1::TokenSelection& tokens,
                                                       int64_t context,
                                                       engine::TokenKind otherwise) {
  if (tokens.positions_size() > context) {
    return InvalidField(absl::StrCat(field, ".positions"),
                        absl::StrCat("are ", tokens.positions_size(), ", allowed are at most the ",
                                     context, " of this model's context"),
                        "OUT_OF_RANGE");
  }
  engine::TokenSelection selection;
  selection.positions.assign(tokens.positions().begin(), tokens.positions().end());
  switch (tokens.kind()) {
    case v1::TOKEN_KIND_UNSPECIFIED:
      selection.kind = selection.positions.empty() ? otherwise : engine::TokenKind::kPositions;
      return selection;
    case v1::TOKEN_KIND_ALL:
      selection.kind = engine::TokenKind::kAll;
      break;
    case v1::TOKEN_KIND_PROMPT:
      selection.kind = engine::TokenKind::kPrompt;
      break;
    case v1::TOKEN_KIND_RESPONSE:
    case v1::TOKEN_KIND_GENERATED:
      selection.kind = engine::TokenKind::kResponse;
      break;
    case v1::TOKEN_KIND_LAST_PROMPT:
      selection.kind = engine::TokenKind::kLastPrompt;
      break;
    case v1::TOKEN_KIND_LAST:
      selection.kind = engine::TokenKind::kLast;
      break;
    case v1::TOKEN_KIND_FROM_LAST_PROMPT:
      selection.kind = engine::TokenKind::kFromLastPrompt;
      break;
    case v1::TOKEN_KIND_POSITIONS:
      selection.kind = engine::TokenKind::kPositions;
      return selection;
    default:
      return InvalidField(absl::StrCat(field, ".kind"), "must be a TOKEN_KIND_... of the contract");
  }
  if (!selection.positions.empty()) {
    return InvalidField(absl::StrCat(field, ".positions"), "go only with TOKEN_KIND_POSITIONS");
  }
  return selection;
}

namespace {

// A tap of some neurons reads only the layers that have one.
absl::Status ChooseNeurons(const std::string& field, const v1::Tap& proto,
                           const engine::ServedModel& model, engine::Tap& tap) {
  if (proto.neurons_size() == 0) return absl::OkStatus();
  if (tap.site != model::Site::kMlpNeurons) {
    return InvalidField(field, "may be chosen at MLP_NEURONS only");
  }
  std::map<int, std::set<int64_t>> by_layer;
  for (int i = 0; i < proto.neurons_size(); ++i) {
    const v1::NeuronId& neuron = proto.neurons(i);
    const std::string name = At(field, i);
    if (std::find(tap.layers.begin(), tap.layers.end(), neuron.layer()) == tap.layers.end()) {
      return InvalidField(
          absl::StrCat(name, ".layer"),
          absl::StrCat("is ", neuron.layer(), ", which the tap's layers do not hold"));
    }
    if (neuron.index() < 0 || neuron.index() >= model.architecture.intermediate) {
      return OutOfRange(absl::StrCat(name, ".index"), neuron.index(), 0,
                        static_cast<double>(model.architecture.intermediate - 1));
    }
    if (!by_layer[neuron.layer()].insert(neuron.index()).second) {
      return InvalidField(name, "is there twice");
    }
  }
  tap.layers.clear();
  for (const auto& [layer, columns] : by_layer) {
    tap.layers.push_back(layer);
    tap.columns.emplace_back(std::vector<int64_t>(columns.begin(), columns.end()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<engine::Tap>> TapsFromProto(
    const google::protobuf::RepeatedPtrField<v1::Tap>& taps, const engine::ServedModel& model) {
  std::vector<engine::Tap> result;
  for (int i = 0; i < taps.size(); ++i) {
    const std::string field = At("taps", i);
    const v1::Tap& proto = taps[i];
    engine::Tap tap;
    if (proto.dtype() != v1::DATA_TYPE_UNSPECIFIED) {
      VS_ASSIGN_OR_RETURN(tap.dtype,
                          DataTypeFromProto(absl::StrCat(field, ".dtype"), proto.dtype()));
      if (tap.dtype == DType::kInt32 || tap.dtype == DType::kInt64) {
        return InvalidField(absl::StrCat(field, ".dtype"),
                            "must be FLOAT32, FLOAT16, BFLOAT16 or FLOAT64");
      }
    }
    VS_ASSIGN_OR_RETURN(tap.site, SiteFromProto(absl::StrCat(field, ".site"), proto.site()));
    VS_ASSIGN_OR_RETURN(tap.layers, LayersFromProto(absl::StrCat(field, ".layers"),
                                                    proto.has_layers() ? &proto.layers() : nullptr,
                                                    {.site = tap.site,
                                                     .num_layers = model.architecture.num_layers,
                                                     .all_by_default = true}));
    VS_ASSIGN_OR_RETURN(tap.tokens,
                        TokensFromProto(absl::StrCat(field, ".tokens"), proto.tokens(),
                                        model.architecture.max_positions, engine::TokenKind::kAll));
    VS_ASSIGN_OR_RETURN(tap.reduction,
                        ReductionFromProto(absl::StrCat(field, ".reduction"), proto.reduction()));
    VS_RETURN_IF_ERROR(ChooseNeurons(absl::StrCat(field, ".neurons"), proto, model, tap));
    result.push_back(std::move(tap));
  }
  return result;
}

engine::Sampling SamplingFromProto(const v1::SamplingParams& proto, std::optional<int32_t> logprobs,
                                   int64_t room) {
  engine::Sampling sampling;
  sampling.max_tokens = proto.has_max_tokens()
                            ? proto.max_tokens()
                            : static_cast<int>(std::clamp<int64_t>(room, 1, kDefaultMaxTokens));
  if (proto.has_temperature()) sampling.temperature = proto.temperature();
  if (proto.has_top_p()) sampling.top_p = proto.top_p();
  sampling.top_k = proto.top_k();
  sampling.min_p = proto.min_p();
  if (proto.has_repetition_penalty()) sampling.repetition_penalty = proto.repetition_penalty();
  if (proto.has_seed()) {
    sampling.seed = proto.seed();
  } else {
    std::random_device random;
    sampling.seed = uint64_t{random()} << 32 | random();
  }
  sampling.stop.assign(proto.stop().begin(), proto.stop().end());
  const std::set<int32_t> stop_token_ids(proto.stop_token_ids().begin(),
                                         proto.stop_token_ids().end());
  sampling.stop_token_ids.assign(stop_token_ids.begin(), stop_token_ids.end());
  sampling.ignore_eos = proto.ignore_eos();
  if (logprobs) sampling.top_logprobs = *logprobs;
  return sampling;
}

uint64_t SeedOfCompletion(uint64_t seed, int index) {
  if (index == 0) return seed;
  // SplitMix64 (Steele, Lea and Flood, 2014): neighbouring seeds give unrelated streams.
  uint64_t z = seed + static_cast<uint64_t>(index) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace valuescope::services
