#include "studies/records_of_version_1.h"

#include <google/protobuf/util/json_util.h>

#include <string>

#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "studies/json_fields.h"
#include "studies/named_content.h"
#include "studies/stored_record.h"

namespace valuescope::studies {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using nlohmann::json;

constexpr int kVersion = 1;

json InContractsWords(const json& record, const Descriptor& type);

// The number of a value by its first word; a word that there is none for stays what it is, which
// the message's parser refuses.
json NumberOf(const json& word, const EnumDescriptor& type) {
  for (int i = 0; i < type.value_count(); ++i) {
    if (json(FirstWordOf(*type.value(i))) == word) return type.value(i)->number();
  }
  return word;
}

json InContractsWords(const json& value, const FieldDescriptor& field) {
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) return NumberOf(value, *field.enum_type());
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) return value;
  return InContractsWords(value.is_string() ? json::parse(value.get<std::string>()) : value,
                          *field.message_type());
}

json InContractsWords(const json& record, const Descriptor& type) {
  json renamed = json::object();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const auto found = record.find(FirstKeyOf(field));
    if (found == record.end() || found->is_null()) continue;
    if (!field.is_repeated()) {
      renamed[field.name()] = InContractsWords(*found, field);
      continue;
    }
    json& list = renamed[field.name()] = json::array();
    for (const json& value : found->get_ref<const json::array_t&>()) {
      list.push_back(InContractsWords(value, field));
    }
  }
  return renamed;
}

template <typename Record>
absl::StatusOr<Record> Read(absl::string_view text) {
  json renamed;
  VS_RETURN_IF_ERROR(ReadJson(text, kVersion, [&renamed](const json& record) {
    renamed = InContractsWords(record, *Record::descriptor());
  }));
  Record record;
  if (!google::protobuf::util::JsonStringToMessage(DumpJson(renamed), &record).ok()) {
    return DamagedRecord("a value is of another type");
  }
  return record;
}

}  // namespace

absl::StatusOr<v1::Vector> VectorOfVersion1(absl::string_view json) {
  return Read<v1::Vector>(json);
}

absl::StatusOr<v1::NeuronSet> NeuronSetOfVersion1(absl::string_view json) {
  return Read<v1::NeuronSet>(json);
}

absl::StatusOr<v1::Provenance> ProvenanceOfVersion1(absl::string_view json) {
  return Read<v1::Provenance>(json);
}

absl::StatusOr<v1::Provenance> ArtifactProvenanceOfVersion1(absl::string_view text) {
  if (text.empty() || text == "{}") return v1::Provenance();
  std::string provenance;
  VS_RETURN_IF_ERROR(ReadJson(text, kVersion, [&provenance](const json& metadata) {
    provenance = metadata.at("provenance").get<std::string>();
  }));
  return ProvenanceOfVersion1(provenance);
}

}  // namespace valuescope::studies
