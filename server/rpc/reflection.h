// gRPC's reflection service: which services there are, and the files that describe them, for tools
// that have no .proto files. It is a service like the others: whoever may not call does not get it.
#ifndef VALUESCOPE_RPC_REFLECTION_H_
#define VALUESCOPE_RPC_REFLECTION_H_

#include <grpcpp/impl/service_type.h>

#include <string>
#include <vector>

#include "rpc/call.h"
#include "rpc/call_runtime.h"

namespace grpc::reflection::v1alpha {
class ServerReflectionRequest;
class ServerReflectionResponse;
}  // namespace grpc::reflection::v1alpha

namespace valuescope::rpc {

// What to say to one question, about these services of the linked .proto files.
grpc::reflection::v1alpha::ServerReflectionResponse Reflect(
    const grpc::reflection::v1alpha::ServerReflectionRequest& request,
    const std::vector<std::string>& services);

// Registered with grpc::ServerBuilder; outlives the grpc::Server.
class Reflection : public grpc::Service {
 public:
  // `services`: full names of those that are served beside it. `runtime` outlives this.
  Reflection(CallRuntime* runtime, std::vector<std::string> services);

 private:
  const Method method_;
  const std::vector<std::string> services_;  // with its own
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_REFLECTION_H_
