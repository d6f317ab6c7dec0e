// By which model a gateway in front of several pools of servers routes a call: HTTP gateways see
// headers and no messages, so clients repeat in one what their request names. The server reads it
// only to refuse a call that says two things, which would have gone to the wrong pool.
#ifndef VALUESCOPE_RPC_ROUTED_MODEL_H_
#define VALUESCOPE_RPC_ROUTED_MODEL_H_

#include <google/protobuf/message.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace valuescope::rpc {

// The metadata's key; its value is "models/ID".
inline constexpr char kModelMetadata[] = "x-valuescope-model";

struct RoutedModel {
  std::string field;  // path in the request, such as "spec.capture.model"
  std::string name;   // "models/ID", as sent
};

// The model that a request is about: its `model`, or its `name` where that is a model's, or else
// that of its `spec` or of what it has one of, such as the header of an upload. Nothing where it
// names none.
std::optional<RoutedModel> RoutedModelOf(const google::protobuf::Message& request);

// INVALID_ARGUMENT about the request's field where it names another model than one of `metadata`,
// the values that were sent under kModelMetadata. OK where none were, or the request names no
// model.
absl::Status CheckRoutedModel(const google::protobuf::Message& request,
                              const std::vector<std::string>& metadata);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_ROUTED_MODEL_H_
