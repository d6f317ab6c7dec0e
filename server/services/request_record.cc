#include "services/request_record.h"

#include <algorithm>
#include <vector>

#include "base/sha256.h"
#include "google/protobuf/descriptor.h"
#include "nlohmann/json.hpp"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using nlohmann::ordered_json;

constexpr size_t kMostListText = 4096;  // bytes of JSON

ordered_json RecordOf(const Message& message, std::initializer_list<absl::string_view> without);

// Text that is no UTF-8 is mended: a record is never refused.
std::string Text(const ordered_json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/false, ordered_json::error_handler_t::replace);
}

ordered_json RecordOf(const v1::Tensor& tensor) {
  ordered_json shape = ordered_json::array();
  for (const int64_t extent : tensor.shape()) shape.push_back(extent);
  return {{"dtype", v1::DataType_Name(tensor.dtype())},
          {"shape", std::move(shape)},
          {"sha256", Sha256Hex(tensor.data())}};
}

// The `index`-th value of a field; of one that is not repeated `index` is -1.
ordered_json ValueOf(const Message& message, const FieldDescriptor* field, int index) {
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
      return get(&Reflection::GetEnum, &Reflection::GetRepeatedEnum)->name();
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
  const auto* tensor = dynamic_cast<const v1::Tensor*>(&value);
  return tensor != nullptr ? RecordOf(*tensor) : RecordOf(value, {});
}

ordered_json ListOf(const Message& message, const FieldDescriptor* field) {
  const int size = message.GetReflection()->FieldSize(message, field);
  ordered_json list = ordered_json::array();
  for (int i = 0; i < size; ++i) list.push_back(ValueOf(message, field, i));
  const std::string text = Text(list);
  if (text.size() <= kMostListText) return list;
  return {{"count", size}, {"sha256", Sha256Hex(text)}};
}

ordered_json RecordOf(const Message& message, std::initializer_list<absl::string_view> without) {
  ordered_json record = ordered_json::object();
  std::vector<const FieldDescriptor*> fields;  // that are set, in order of number
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (std::find(without.begin(), without.end(), field->name()) != without.end()) continue;
    record[field->name()] =
        field->is_repeated() ? ListOf(message, field) : ValueOf(message, field, -1);
  }
  return record;
}

}  // namespace

std::string RecordOfRequest(const Message& request,
                            std::initializer_list<absl::string_view> without) {
  return Text(RecordOf(request, without));
}

}  // namespace valuescope::services
