#include "routed_model.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace valuescope {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// As deep as requests name a model: spec.judge_responses.judge.rubric.model.
constexpr int kDeepest = 4;
constexpr size_t kLongest = 1024;  // of a name

std::string SingleText(const Message& message, const char* field_name) {
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(field_name);
  if (field == nullptr || field->is_repeated() || field->type() != FieldDescriptor::TYPE_STRING) {
    return "";
  }
  return message.GetReflection()->GetString(message, field);
}

// What the message is about, where it has such a part; else null.
const Message* InnerPart(const Message& message) {
  const google::protobuf::Descriptor& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor* field = descriptor.field(i);
    const bool is_part = field->real_containing_oneof() != nullptr || field->name() == "spec";
    if (is_part && !field->is_repeated() && field->type() == FieldDescriptor::TYPE_MESSAGE &&
        message.GetReflection()->HasField(message, field)) {
      return &message.GetReflection()->GetMessage(message, field);
    }
  }
  return nullptr;
}

// gRPC ends a program that sends other metadata.
std::string IfSendable(const std::string& name) {
  const bool sendable =
      name.size() <= kLongest &&
      std::all_of(name.begin(), name.end(), [](unsigned char c) { return absl::ascii_isgraph(c); });
  return sendable ? name : "";
}

}  // namespace

std::string RoutedModel(const Message& request) {
  const Message* part = &request;
  for (int depth = 0; depth <= kDeepest && part != nullptr; ++depth) {
    if (const std::string model = SingleText(*part, "model"); !model.empty()) {
      return IfSendable(model);
    }
    if (const std::string name = SingleText(*part, "name"); absl::StartsWith(name, "models/")) {
      return IfSendable(name);
    }
    part = InnerPart(*part);
  }
  return "";
}

}  // namespace valuescope
