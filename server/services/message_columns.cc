#include "services/message_columns.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "google/protobuf/struct.pb.h"
#include "services/struct_json.h"

namespace valuescope::services {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using text::Column;
using text::ColumnType;

bool IsStruct(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
         field.message_type() == google::protobuf::Struct::descriptor();
}

ColumnType TypeOf(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return ColumnType::kBoolean;
    case FieldDescriptor::CPPTYPE_INT32:
      return ColumnType::kInt32;
    case FieldDescriptor::CPPTYPE_INT64:
      return ColumnType::kInt64;
    case FieldDescriptor::CPPTYPE_UINT32:
      return ColumnType::kUint32;
    case FieldDescriptor::CPPTYPE_UINT64:
      return ColumnType::kUint64;
    case FieldDescriptor::CPPTYPE_FLOAT:
      return ColumnType::kFloat32;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return ColumnType::kFloat64;
    case FieldDescriptor::CPPTYPE_STRING:
    case FieldDescriptor::CPPTYPE_ENUM:
      return ColumnType::kUtf8;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return IsStruct(field) ? ColumnType::kUtf8 : ColumnType::kStruct;
  }
  VS_CHECK(false);
}

void AddNumber(const auto& value, Column& column) {
  column.values.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AddText(absl::string_view text, Column& column) {
  column.values.append(text.data(), text.size());
  column.offsets.push_back(static_cast<int32_t>(column.values.size()));
}

void Count(bool is_valid, Column& column) {
  ++column.length;
  if (column.nullable) column.valid.push_back(is_valid ? 1 : 0);
}

// A null has room where values have it by their places.
void AddNull(Column& column) {
  Count(/*is_valid=*/false, column);
  switch (column.type) {
    case ColumnType::kUtf8:
    case ColumnType::kList:
      column.offsets.push_back(column.offsets.back());
      return;
    case ColumnType::kBoolean:
      column.values.append(1, '\0');
      return;
    case ColumnType::kInt32:
    case ColumnType::kUint32:
    case ColumnType::kFloat32:
      column.values.append(sizeof(int32_t), '\0');
      return;
    case ColumnType::kInt64:
    case ColumnType::kUint64:
    case ColumnType::kFloat64:
      column.values.append(sizeof(int64_t), '\0');
      return;
    case ColumnType::kStruct:
      VS_CHECK(false);  // is an item of a list
  }
}

// The index-th value of a list of numbers, texts or enums; of a field that is none `index` is -1.
void AddScalar(const Message& message, const FieldDescriptor* field, int index, Column& column) {
  const Reflection& reflection = *message.GetReflection();
  const auto get = [&](auto one, auto of_many) {
    return index < 0 ? (reflection.*one)(message, field)
                     : (reflection.*of_many)(message, field, index);
  };
  Count(/*is_valid=*/true, column);
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return AddNumber(get(&Reflection::GetBool, &Reflection::GetRepeatedBool), column);
    case FieldDescriptor::CPPTYPE_INT32:
      return AddNumber(get(&Reflection::GetInt32, &Reflection::GetRepeatedInt32), column);
    case FieldDescriptor::CPPTYPE_INT64:
      return AddNumber(get(&Reflection::GetInt64, &Reflection::GetRepeatedInt64), column);
    case FieldDescriptor::CPPTYPE_UINT32:
      return AddNumber(get(&Reflection::GetUInt32, &Reflection::GetRepeatedUInt32), column);
    case FieldDescriptor::CPPTYPE_UINT64:
      return AddNumber(get(&Reflection::GetUInt64, &Reflection::GetRepeatedUInt64), column);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return AddNumber(get(&Reflection::GetFloat, &Reflection::GetRepeatedFloat), column);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return AddNumber(get(&Reflection::GetDouble, &Reflection::GetRepeatedDouble), column);
    case FieldDescriptor::CPPTYPE_ENUM:
      return AddText(get(&Reflection::GetEnum, &Reflection::GetRepeatedEnum)->name(), column);
    case FieldDescriptor::CPPTYPE_STRING:
      return AddText(get(&Reflection::GetString, &Reflection::GetRepeatedString), column);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      VS_CHECK(false);
  }
}

bool IsNull(const Message& message, const FieldDescriptor* field) {
  if (field->has_presence()) return !message.GetReflection()->HasField(message, field);
  return field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM &&
         message.GetReflection()->GetEnumValue(message, field) == 0;
}

// Whether a value can be null where the messages that it belongs to are set.
bool IsNullable(const FieldDescriptor& field) {
  if (field.is_repeated()) return false;
  return field.has_presence() || field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM;
}

size_t BytesOf(const Column& column) {
  size_t bytes = column.values.size() + column.valid.size() + 4 * column.offsets.size();
  for (const Column& child : column.children) bytes += BytesOf(child);
  return bytes;
}

void ClearValues(Column& column) {
  column.length = 0;
  column.valid.clear();
  column.offsets.assign(1, 0);
  column.values.clear();
  for (Column& child : column.children) ClearValues(child);
}

}  // namespace

MessageColumns::MessageColumns(const Descriptor& type) {
  AddColumns(type, Source(), "", sources_, columns_);
}

void MessageColumns::AddColumns(const Descriptor& type, const Source& owner,
                                const std::string& prefix, std::vector<Source>& sources,
                                std::vector<Column>& columns) {
  std::vector<const FieldDescriptor*> fields;
  for (int i = 0; i < type.field_count(); ++i) fields.push_back(type.field(i));
  std::sort(fields.begin(), fields.end(),
            [](const auto* a, const auto* b) { return a->number() < b->number(); });
  for (const FieldDescriptor* field : fields) {
    VS_CHECK(!field->is_map() && field->type() != FieldDescriptor::TYPE_BYTES);
    VS_CHECK(!field->is_repeated() || !IsStruct(*field));
    Source source = owner;
    source.path.push_back(field);
    const std::string name = absl::StrCat(prefix, field->name());
    const ColumnType type_of_value = TypeOf(*field);
    if (type_of_value == ColumnType::kStruct && !field->is_repeated()) {
      AddColumns(*field->message_type(), source, absl::StrCat(name, "."), sources, columns);
      continue;
    }
    Column column{
        .name = name, .type = type_of_value, .nullable = !owner.path.empty() || IsNullable(*field)};
    if (field->is_repeated()) {
      Column& items = column.children.emplace_back();
      items.name = "item";
      items.type = std::exchange(column.type, ColumnType::kList);
      if (items.type == ColumnType::kStruct) {
        AddColumns(*field->message_type(), Source(), "", source.members, items.children);
      }
    }
    sources.push_back(std::move(source));
    columns.push_back(std::move(column));
  }
}

absl::Status MessageColumns::AddRow(const Message& message, const std::vector<Source>& sources,
                                    std::vector<Column>& columns) {
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto& path = sources[i].path;
    const Message* owner = &message;
    for (auto field = path.begin(); owner != nullptr && field != path.end() - 1; ++field) {
      const Reflection& reflection = *owner->GetReflection();
      owner =
          reflection.HasField(*owner, *field) ? &reflection.GetMessage(*owner, *field) : nullptr;
    }
    VS_RETURN_IF_ERROR(AddValue(owner, sources[i], columns[i]));
  }
  return absl::OkStatus();
}

absl::Status MessageColumns::AddValue(const Message* owner, const Source& source, Column& column) {
  const FieldDescriptor* field = source.path.back();
  if (owner == nullptr || (!field->is_repeated() && IsNull(*owner, field))) {
    AddNull(column);
    return absl::OkStatus();
  }
  const Reflection& reflection = *owner->GetReflection();
  if (IsStruct(*field)) {
    const auto& object =
        static_cast<const google::protobuf::Struct&>(reflection.GetMessage(*owner, field));
    VS_ASSIGN_OR_RETURN(const std::string json, JsonOfStruct(column.name, object));
    Count(/*is_valid=*/true, column);
    AddText(json, column);
    return absl::OkStatus();
  }
  if (!field->is_repeated()) {
    AddScalar(*owner, field, /*index=*/-1, column);
    return absl::OkStatus();
  }
  Column& items = column.children.front();
  for (int i = 0; i < reflection.FieldSize(*owner, field); ++i) {
    if (items.type != ColumnType::kStruct) {
      AddScalar(*owner, field, i, items);
      continue;
    }
    Count(/*is_valid=*/true, items);
    VS_RETURN_IF_ERROR(
        AddRow(reflection.GetRepeatedMessage(*owner, field, i), source.members, items.children));
  }
  Count(/*is_valid=*/true, column);
  column.offsets.push_back(static_cast<int32_t>(items.length));
  return absl::OkStatus();
}

absl::Status MessageColumns::Add(const Message& message) {
  VS_RETURN_IF_ERROR(AddRow(message, sources_, columns_));
  ++rows_;
  return absl::OkStatus();
}

size_t MessageColumns::bytes() const {
  size_t bytes = 0;
  for (const Column& column : columns_) bytes += BytesOf(column);
  return bytes;
}

void MessageColumns::Clear() {
  rows_ = 0;
  for (Column& column : columns_) ClearValues(column);
}

}  // namespace valuescope::services
