// What tells gateways by which model to route a call.
#ifndef VALUESCOPE_CLIENT_ROUTED_MODEL_H_
#define VALUESCOPE_CLIENT_ROUTED_MODEL_H_

#include <google/protobuf/message.h>

#include <string>

namespace valuescope {

// The model that a request is about: its `model`, or its `name` where that is a model's, or else
// that of its `spec` or of what it has one of, such as the header of an upload. Empty where it
// names none, or one that no metadata can hold, which the server refuses by itself.
std::string RoutedModel(const google::protobuf::Message& request);

}  // namespace valuescope

#endif  // VALUESCOPE_CLIENT_ROUTED_MODEL_H_
