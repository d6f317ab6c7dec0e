// Health for those who watch over the server. gRPC's own health service answers everybody, so it is
// there where everybody may call, and on a plaintext port of its own: a kubelet's probes bring
// neither TLS nor tokens. Where callers authenticate, this one answers beside the other services.
#ifndef VALUESCOPE_RPC_HEALTH_H_
#define VALUESCOPE_RPC_HEALTH_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "rpc/call_context.h"
#include "rpc/call_runtime.h"
#include "rpc/rpc_service.h"
#include "rpc/stream.h"
#include "rpc/waiter.h"

namespace grpc::health::v1 {
class HealthCheckRequest;
class HealthCheckResponse;
}  // namespace grpc::health::v1

namespace valuescope::rpc {

inline constexpr char kHealthService[] = "grpc.health.v1.Health";

// Thread-safe. Outlives the servers that it is bound to.
class Health {
 public:
  using Request = grpc::health::v1::HealthCheckRequest;
  using Response = grpc::health::v1::HealthCheckResponse;

  Health() = default;
  ~Health();
  Health(const Health&) = delete;
  Health& operator=(const Health&) = delete;

  // Answers whoever asks on HOST:PORT, in the clear, until this is destroyed; returns the port.
  // Before another server is built in the process. UNAVAILABLE where it cannot listen there.
  absl::StatusOr<int> Listen(const std::string& address);

  // The service for a server whose callers authenticate, to be registered there.
  std::unique_ptr<RpcService> Bind(CallRuntime* runtime);

  // `part` is "readiness", "liveness", or empty for the whole.
  void Set(const std::string& part, bool serving);

 private:
  class Watching;

  // NOT_FOUND for a part that was never set.
  absl::Status Check(const CallContext& context, const Request& request, Response* response);
  absl::StatusOr<std::unique_ptr<Waiter<StreamWriter<Response>&>>> Watch(const CallContext& context,
                                                                         const Request& request,
                                                                         Wake wake);
  // A HealthCheckResponse::ServingStatus.
  int StatusOf(const std::string& part) const;

  mutable absl::Mutex mutex_;
  std::map<std::string, bool> serving_ ABSL_GUARDED_BY(mutex_);
  std::map<int64_t, Wake> watchers_ ABSL_GUARDED_BY(mutex_);
  int64_t last_watcher_ ABSL_GUARDED_BY(mutex_) = 0;
  // On the port of its own, and what it answers to whatever is not health: UNIMPLEMENTED.
  grpc::CallbackGenericService others_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_HEALTH_H_
