#include "studies/named_content.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "studies/contract_enums.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"

namespace valuescope::studies {
namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using nlohmann::json;
using nlohmann::ordered_json;

// The last field that the first records had of a message; those up to it always stand in the text.
int LastOfTheFirst(const google::protobuf::Descriptor& type) {
  if (&type == v1::Provenance::descriptor()) return v1::Provenance::kOptionsFieldNumber;
  if (&type == v1::ResourceDigest::descriptor()) return v1::ResourceDigest::kDigestFieldNumber;
  if (&type == v1::Interval::descriptor()) return v1::Interval::kLevelFieldNumber;
  if (&type == v1::VectorStatistics::descriptor()) {
    return v1::VectorStatistics::kDebiasedSquaredNormFieldNumber;
  }
  if (&type == v1::NeuronSetLayer::descriptor()) return v1::NeuronSetLayer::kScoreMaxFieldNumber;
  if (&type == v1::NeuronClassCount::descriptor()) {
    return v1::NeuronClassCount::kExpectedCountFieldNumber;
  }
  return 0;
}

bool WasThereAtFirst(const FieldDescriptor& field) {
  return field.number() <= LastOfTheFirst(*field.containing_type());
}

JsonWording FirstWording() {
  JsonWording wording;
  wording.says_unset = WasThereAtFirst;
  wording.key = FirstKeyOf;
  wording.enum_value = FirstWordOf;
  return wording;
}

std::string SortedText(const ordered_json& value) { return DumpJson(json(value)); }

}  // namespace

std::string FirstKeyOf(const FieldDescriptor& field) {
  const bool expected = field.containing_type() == v1::NeuronClassCount::descriptor() &&
                        field.number() == v1::NeuronClassCount::kExpectedCountFieldNumber;
  return expected ? "expected" : field.name();
}

ordered_json FirstWordOf(const EnumValueDescriptor& value) {
  if (value.type() == v1::NeuronClass_descriptor()) return value.number();
  if (value.number() == 0) return "";
  if (value.type() == v1::Site_descriptor()) {
    return std::string(absl::StripPrefix(value.name(), "SITE_"));
  }
  if (value.type() == v1::DataType_descriptor()) {
    return absl::AsciiStrToLower(absl::StripPrefix(value.name(), "DATA_TYPE_"));
  }
  if (value.type() == v1::Pooling_descriptor()) {
    return absl::StrReplaceAll(absl::AsciiStrToLower(absl::StripPrefix(value.name(), "POOLING_")),
                               {{"_", " "}});
  }
  return value.name();
}

std::string NamedContent(const v1::Provenance& provenance) {
  return SortedText(MessageToJson(provenance, FirstWording()));
}

std::string NamedContent(const google::protobuf::RepeatedPtrField<v1::VectorStatistics>& rows) {
  return SortedText(ListToJson(rows, FirstWording()));
}

std::string NamedContent(const google::protobuf::RepeatedPtrField<v1::NeuronSetLayer>& layers) {
  return SortedText(ListToJson(layers, FirstWording()));
}

std::string NamedContent(const google::protobuf::RepeatedPtrField<std::string>& texts) {
  json list = json::array();
  for (const std::string& text : texts) list.push_back(text);
  return DumpJson(list);
}

}  // namespace valuescope::studies
