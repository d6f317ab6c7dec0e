// The one place where a Status becomes what a gRPC client sees: the canonical code, the message,
// and google.rpc details (ErrorInfo always; BadRequest, RetryInfo where they apply).
#ifndef VALUESCOPE_RPC_STATUS_TO_GRPC_H_
#define VALUESCOPE_RPC_STATUS_TO_GRPC_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace valuescope::rpc {

inline constexpr char kErrorDomain[] = "valuescope";
// Trailing metadata that tells gRPC's own retry policy how long to wait, milliseconds.
inline constexpr char kRetryPushback[] = "grpc-retry-pushback-ms";

// ErrorInfo's reason is the status's own, else the name of its code. The message of a status
// without a reason that is INTERNAL or UNKNOWN is replaced: it was written for a log, not a client.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_STATUS_TO_GRPC_H_
