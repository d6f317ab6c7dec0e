#include "services/struct_json.h"

#include <cmath>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "google/protobuf/util/json_util.h"
#include "google/protobuf/util/type_resolver_util.h"
#include "services/idempotency.h"

namespace valuescope::services {
namespace {

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

}  // namespace

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

}  // namespace valuescope::services
