#include "services/prompt_codec.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/strict_json.h"
#include "services/struct_json.h"

namespace valuescope::services {
namespace {

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

}  // namespace valuescope::services
