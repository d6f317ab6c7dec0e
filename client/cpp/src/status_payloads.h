// From gRPC's status to one that carries, as payloads, all that the server said.
#ifndef VALUESCOPE_CLIENT_STATUS_PAYLOADS_H_
#define VALUESCOPE_CLIENT_STATUS_PAYLOADS_H_

#include <grpcpp/support/status.h>
#include <grpcpp/support/string_ref.h>

#include <map>

#include "absl/status/status.h"

namespace valuescope {

absl::Status FromGrpcStatus(
    const grpc::Status& status,
    const std::multimap<grpc::string_ref, grpc::string_ref>& trailing_metadata);

}  // namespace valuescope

#endif  // VALUESCOPE_CLIENT_STATUS_PAYLOADS_H_
