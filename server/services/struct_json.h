// A google.protobuf.Struct as JSON text.
#ifndef VALUESCOPE_SERVICES_STRUCT_JSON_H_
#define VALUESCOPE_SERVICES_STRUCT_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/struct.pb.h"

namespace valuescope::services {

// Keys sorted, so that equal structs give equal text. INVALID_ARGUMENT naming `field` where it
// holds what JSON does not have.
absl::StatusOr<std::string> JsonOfStruct(absl::string_view field,
                                         const google::protobuf::Struct& arguments);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_STRUCT_JSON_H_
