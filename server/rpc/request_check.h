// What holds for every request, checked at the one place where all of them pass: enum fields hold
// values that this version of the contract has. proto3 keeps an unknown number as it is, and a
// handler that switches over the known ones would not see it.
#ifndef VALUESCOPE_RPC_REQUEST_CHECK_H_
#define VALUESCOPE_RPC_REQUEST_CHECK_H_

#include <google/protobuf/message.h>

#include "absl/status/status.h"

namespace valuescope::rpc {

// INVALID_ARGUMENT, naming the field and the values it may have, for the first unknown value.
absl::Status CheckEnums(const google::protobuf::Message& request);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_REQUEST_CHECK_H_
