// Says why a call failed whose message is not one. gRPC ends such a call before any handler, with
// UNIMPLEMENTED and no word, as if the server did not offer the method.
#ifndef VALUESCOPE_RPC_DECODING_FAILURES_H_
#define VALUESCOPE_RPC_DECODING_FAILURES_H_

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <vector>

namespace valuescope::rpc {

// Makes that status INVALID_ARGUMENT, reason MESSAGE_NOT_DECODABLE, and writes a line to the log.
// No other call is touched.
std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
DecodingFailureInterceptors();

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_DECODING_FAILURES_H_
