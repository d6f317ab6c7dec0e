#include "rpc/request_check.h"

#include <google/protobuf/descriptor.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::rpc {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

absl::Status CheckValue(const FieldDescriptor& field, const std::string& name, int value) {
  if (field.enum_type()->FindValueByNumber(value) != nullptr) return absl::OkStatus();
  std::vector<std::string> known;
  for (int i = 0; i < field.enum_type()->value_count(); ++i) {
    known.push_back(field.enum_type()->value(i)->name());
  }
  return InvalidField(
      name, absl::StrCat("is ", value, ", which is none of ", absl::StrJoin(known, ", ")));
}

absl::Status CheckRepeated(const Message& message, const FieldDescriptor& field) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    const std::string name = absl::StrCat(field.name(), "[", i, "]");
    if (field.type() == FieldDescriptor::TYPE_ENUM) {
      VS_RETURN_IF_ERROR(
          CheckValue(field, name, reflection.GetRepeatedEnumValue(message, &field, i)));
    } else {
      const absl::Status inner = CheckEnums(reflection.GetRepeatedMessage(message, &field, i));
      if (!inner.ok()) return InField(name, inner);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckEnums(const Message& request) {
  const google::protobuf::Reflection& reflection = *request.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(request, &fields);
  for (const FieldDescriptor* field : fields) {
    const bool is_enum = field->type() == FieldDescriptor::TYPE_ENUM;
    if (!is_enum && field->type() != FieldDescriptor::TYPE_MESSAGE) continue;
    // Looking into a map makes protobuf keep a list of copies of all that is in it. What the
    // contract's maps hold has no enum of its own.
    if (field->is_map()) continue;
    if (field->is_repeated()) {
      VS_RETURN_IF_ERROR(CheckRepeated(request, *field));
    } else if (is_enum) {
      VS_RETURN_IF_ERROR(
          CheckValue(*field, field->name(), reflection.GetEnumValue(request, field)));
    } else {
      const absl::Status inner = CheckEnums(reflection.GetMessage(request, field));
      if (!inner.ok()) return InField(field->name(), inner);
    }
  }
  return absl::OkStatus();
}

}  // namespace valuescope::rpc
