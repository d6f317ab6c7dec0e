#include "studies/message_json.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "base/sha256.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::studies {
namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using nlohmann::ordered_json;

constexpr size_t kMostListText = 4096;  // bytes of JSON

bool SaysZero(const FieldDescriptor& field) {
  if (field.is_repeated() || field.has_presence()) return false;
  return field.cpp_type() != FieldDescriptor::CPPTYPE_STRING &&
         field.cpp_type() != FieldDescriptor::CPPTYPE_ENUM;
}

bool SaysNothingUnset(const FieldDescriptor&) { return false; }

std::string OwnName(const FieldDescriptor& field) { return field.name(); }

ordered_json NameOfValue(const EnumValueDescriptor& value) { return value.name(); }

// Text that is no UTF-8 is mended: a record is never refused.
std::string Text(const ordered_json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/false, ordered_json::error_handler_t::replace);
}

ordered_json AbridgedTensor(const v1::Tensor& tensor) {
  ordered_json shape = ordered_json::array();
  for (const int64_t extent : tensor.shape()) shape.push_back(extent);
  return {{"dtype", v1::DataType_Name(tensor.dtype())},
          {"shape", std::move(shape)},
          {"sha256", Sha256Hex(tensor.data())}};
}

// The `index`-th value of a field; of one that is not repeated `index` is -1.
ordered_json ValueToJson(const Message& message, const FieldDescriptor* field, int index,
                         const JsonWording& wording) {
  const Reflection& reflection = *message.GetReflection();
  const auto get = [&](auto one, auto of_many) {
    return index < 0 ? (reflection.*one)(message, field)
                     : (reflection.*of_many)(message, field, index);
  };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return get(&Reflection::GetInt32, &Reflection::GetRepeatedInt32);
    case FieldDescriptor::CPPTYPE_INT64:
      return get(&Reflection::GetInt64, &Reflection::GetRepeatedInt64);
    case FieldDescriptor::CPPTYPE_UINT32:
      return get(&Reflection::GetUInt32, &Reflection::GetRepeatedUInt32);
    case FieldDescriptor::CPPTYPE_UINT64:
      return get(&Reflection::GetUInt64, &Reflection::GetRepeatedUInt64);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return get(&Reflection::GetDouble, &Reflection::GetRepeatedDouble);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return get(&Reflection::GetFloat, &Reflection::GetRepeatedFloat);
    case FieldDescriptor::CPPTYPE_BOOL:
      return get(&Reflection::GetBool, &Reflection::GetRepeatedBool);
    case FieldDescriptor::CPPTYPE_ENUM:
      return wording.enum_value(*get(&Reflection::GetEnum, &Reflection::GetRepeatedEnum));
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string text = get(&Reflection::GetString, &Reflection::GetRepeatedString);
      if (field->type() == FieldDescriptor::TYPE_STRING) return text;
      return {{"sha256", Sha256Hex(text)}};
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  const Message& value = index < 0 ? reflection.GetMessage(message, field)
                                   : reflection.GetRepeatedMessage(message, field, index);
  const auto* tensor = wording.abridged ? dynamic_cast<const v1::Tensor*>(&value) : nullptr;
  return tensor != nullptr ? AbridgedTensor(*tensor) : MessageToJson(value, wording);
}

// A list, or the entries of a map by their keys: a map has no order of its own.
ordered_json ValuesToJson(const Message& message, const FieldDescriptor* field,
                          const JsonWording& wording) {
  const Reflection& reflection = *message.GetReflection();
  const int size = reflection.FieldSize(message, field);
  ordered_json list = ordered_json::array();
  std::map<std::string, ordered_json> entries;
  for (int i = 0; i < size; ++i) {
    if (!field->is_map()) {
      list.push_back(ValueToJson(message, field, i, wording));
      continue;
    }
    const Message& entry = reflection.GetRepeatedMessage(message, field, i);
    const FieldDescriptor* key = field->message_type()->map_key();
    const FieldDescriptor* value = field->message_type()->map_value();
    const ordered_json name = ValueToJson(entry, key, /*index=*/-1, wording);
    entries[name.is_string() ? name.get<std::string>() : Text(name)] =
        ValueToJson(entry, value, /*index=*/-1, wording);
  }
  ordered_json values = field->is_map() ? ordered_json(entries) : std::move(list);
  if (!wording.abridged) return values;
  const std::string text = Text(values);
  if (text.size() <= kMostListText) return values;
  return {{"count", size}, {"sha256", Sha256Hex(text)}};
}

bool IsSet(const Message& message, const FieldDescriptor* field) {
  const Reflection& reflection = *message.GetReflection();
  return field->is_repeated() ? reflection.FieldSize(message, field) > 0
                              : reflection.HasField(message, field);
}

ordered_json ObjectOf(const Message& message, const JsonWording& wording,
                      std::initializer_list<absl::string_view> without) {
  const google::protobuf::Descriptor& type = *message.GetDescriptor();
  std::vector<const FieldDescriptor*> fields;
  for (int i = 0; i < type.field_count(); ++i) fields.push_back(type.field(i));
  std::sort(fields.begin(), fields.end(),
            [](const auto* a, const auto* b) { return a->number() < b->number(); });
  ordered_json object = ordered_json::object();
  for (const FieldDescriptor* field : fields) {
    if (std::find(without.begin(), without.end(), field->name()) != without.end()) continue;
    const bool is_set = IsSet(message, field);
    if (!is_set && !wording.says_unset(*field)) continue;
    ordered_json& value = object[wording.key(*field)];  // null
    if (field->is_repeated()) {
      value = ValuesToJson(message, field, wording);
    } else if (is_set || !field->has_presence()) {
      value = ValueToJson(message, field, /*index=*/-1, wording);
    }
  }
  return object;
}

}  // namespace

JsonWording::JsonWording() : says_unset(SaysZero), key(OwnName), enum_value(NameOfValue) {}

ordered_json MessageToJson(const Message& message, const JsonWording& wording) {
  return ObjectOf(message, wording, {});
}

std::string RecordOfRequest(const Message& request,
                            std::initializer_list<absl::string_view> without) {
  JsonWording wording;
  wording.says_unset = SaysNothingUnset;
  wording.abridged = true;
  return Text(ObjectOf(request, wording, without));
}

}  // namespace valuescope::studies
