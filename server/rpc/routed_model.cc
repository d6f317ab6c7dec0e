#include "rpc/routed_model.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::rpc {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// As deep as requests name a model: spec.judge_responses.judge.rubric.model.
constexpr int kDeepest = 4;

std::string SingleText(const Message& message, const char* field_name) {
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(field_name);
  if (field == nullptr || field->is_repeated() || field->type() != FieldDescriptor::TYPE_STRING) {
    return "";
  }
  return message.GetReflection()->GetString(message, field);
}

// The field that holds what the message is about, where it has such a one; else null.
const FieldDescriptor* InnerPart(const Message& message) {
  const google::protobuf::Descriptor& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor* field = descriptor.field(i);
    const bool is_part = field->real_containing_oneof() != nullptr || field->name() == "spec";
    if (is_part && !field->is_repeated() && field->type() == FieldDescriptor::TYPE_MESSAGE &&
        message.GetReflection()->HasField(message, field)) {
      return field;
    }
  }
  return nullptr;
}

}  // namespace

std::optional<RoutedModel> RoutedModelOf(const Message& request) {
  std::string path;
  const Message* part = &request;
  for (int depth = 0; depth <= kDeepest; ++depth) {
    if (std::string model = SingleText(*part, "model"); !model.empty()) {
      return RoutedModel{.field = absl::StrCat(path, "model"), .name = std::move(model)};
    }
    if (std::string name = SingleText(*part, "name"); absl::StartsWith(name, "models/")) {
      return RoutedModel{.field = absl::StrCat(path, "name"), .name = std::move(name)};
    }
    const FieldDescriptor* inner = InnerPart(*part);
    if (inner == nullptr) return std::nullopt;
    absl::StrAppend(&path, inner->name(), ".");
    part = &part->GetReflection()->GetMessage(*part, inner);
  }
  return std::nullopt;
}

absl::Status CheckRoutedModel(const Message& request, const std::vector<std::string>& metadata) {
  if (metadata.empty()) return absl::OkStatus();
  const std::optional<RoutedModel> model = RoutedModelOf(request);
  if (!model || std::all_of(metadata.begin(), metadata.end(),
                            [&](const std::string& sent) { return sent == model->name; })) {
    return absl::OkStatus();
  }
  return InvalidField(model->field,
                      absl::StrCat("differs from the call's metadata ", kModelMetadata,
                                   ", by which gateways route: it must say the same, or be absent"),
                      "MODEL_METADATA_DIFFERS");
}

}  // namespace valuescope::rpc
