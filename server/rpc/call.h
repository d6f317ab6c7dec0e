// The part of a call that is the same for every RPC shape: who calls, by when, the request id, and
// at the end one status, one access line and one measurement. The reactors of reactors.h add the
// messages.
#ifndef VALUESCOPE_RPC_CALL_H_
#define VALUESCOPE_RPC_CALL_H_

#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "rpc/call_context.h"
#include "rpc/call_runtime.h"
#include "rpc/peer.h"

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
  Call(CallRuntime* runtime, const Method* method, Peer* peer);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  const CallContext& context() const { return context_; }
  absl::Duration stall_timeout() const { return runtime_->stall_timeout(); }

  // A call whose request has `request_bytes` as it came; 0 where requests come one by one.
  // Authenticates, enters the runtime and puts `handler` on the method's lane; it does not run if
  // the call is refused or was stopped in the queue, and an exception becomes INTERNAL. `flush`
  // runs after it, for what is still on its way to the client. Then, exactly once whatever
  // happened, the peer's Finish: on the lane's thread, or in here where the call is refused.
  void Start(
      size_t request_bytes, std::function<absl::Status()> handler,
      std::function<void()> flush = [] {});

  // The client left or its deadline passed.
  void ClientGone();

  // Ends the call for its handler; what the client gets is still up to Finish.
  void Stop(absl::Status why) { context_.Stop(std::move(why)); }

  // Ends the call for the peer too, whatever is in flight (a stalled stream).
  void Abort(absl::Status why);

 private:
  // OK: `run` will be called, once. After an error it never is.
  absl::Status Admit(size_t request_bytes, std::function<void()> run);
  absl::Status Run(const std::function<absl::Status()>& handler);
  // What the client gets: logged and measured.
  absl::Status Conclude(absl::Status status);

  CallRuntime* const runtime_;
  const Method* const method_;
  Peer* const peer_;
  CallContext context_;
  bool entered_ = false;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_CALL_H_
