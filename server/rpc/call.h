// The part of a call that is the same for every RPC shape: who calls, by when, the request id, and
// at the end one status, one access line and one measurement. The reactors of reactors.h add the
// messages.
#ifndef VALUESCOPE_RPC_CALL_H_
#define VALUESCOPE_RPC_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "rpc/call_context.h"
#include "rpc/call_runtime.h"

namespace valuescope::rpc {

// A registered method. Lives as long as its service.
struct Method {
  std::string name;  // "GenerationService.Generate"
  Lane lane = Lane::kQuick;
};

class Call {
 public:
  // Reads the metadata and puts the request id into the initial metadata of the answer. All outlive
  // the call.
  Call(CallRuntime* runtime, const Method* method, grpc::CallbackServerContext* grpc_context);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  CallContext& context() { return context_; }
  CallRuntime& runtime() { return *runtime_; }

  // Authenticates, enters the runtime and puts `run` on the method's lane. After an error `run` is
  // never called.
  absl::Status Start(std::function<void()> run);

  // Runs a handler: not at all if the call was stopped in the queue; an exception becomes INTERNAL.
  absl::Status Run(const std::function<absl::Status()>& handler);

  // The client left or its deadline passed.
  void ClientGone();

  // Ends the RPC for the peer, whatever is in flight (a stalled stream).
  void Abort(absl::Status why);

  // What the client gets: translated, logged and measured. Call once, right before Finish.
  grpc::Status Conclude(absl::Status status);

 private:
  CallRuntime* const runtime_;
  const Method* const method_;
  grpc::CallbackServerContext* const grpc_context_;
  CallContext context_;
  bool entered_ = false;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_CALL_H_
