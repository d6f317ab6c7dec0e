// The part of a call that is the same for every RPC shape: who calls, by when, the request id, and
// at the end one status, one access line and one measurement. The reactors of reactors.h add the
// messages.
#ifndef VALUESCOPE_RPC_CALL_H_
#define VALUESCOPE_RPC_CALL_H_

#include <google/protobuf/message.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "rpc/call_context.h"
#include "rpc/call_runtime.h"
#include "rpc/caller.h"
#include "rpc/peer.h"
#include "rpc/stepper.h"

namespace valuescope::rpc {

// A registered method. Lives as long as its service.
struct Method {
  std::string name;  // "GenerationService.Generate"
  Lane lane = Lane::kQuick;
  int64_t message_bytes = 0;  // of the largest that its clients stream
  Role least_role = Role::kAdmin;
  bool runs_models = false;  // in the meaning of RunsModels
  bool bounded = true;       // counts among the calls that its tenant may have at a time
};

// What `run` returns, which an absl::Status converts to; INTERNAL where it throws instead.
template <typename Function>
auto CatchExceptions(const Function& run) -> decltype(run()) {
  try {
    return run();
  } catch (const std::exception& exception) {
    return absl::InternalError(absl::StrCat("exception: ", exception.what()));
  } catch (...) {
    return absl::InternalError("exception of an unknown type");
  }
}

class Call {
 public:
  // Reads the metadata and puts the request id into the initial metadata of the answer. All outlive
  // the call.
  Call(CallRuntime* runtime, const Method* method, Peer* peer);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  const CallContext& context() const { return context_; }
  AlarmClock* clock() const { return runtime_->clock(); }
  absl::Duration heartbeat() const { return runtime_->heartbeat(); }
  absl::Duration stall_timeout() const { return runtime_->stall_timeout(); }

  // What the call is about, for the audit log: the resources that a message of it names. May be
  // called from any thread until the peer's Finish.
  void Note(const google::protobuf::Message& message);

  // INVALID_ARGUMENT where the metadata says that the call is about another model than `request`
  // names (rpc/routed_model.h). May be called for each message of a stream.
  absl::Status CheckModel(const google::protobuf::Message& request) const;

  // Authenticates and enters the runtime, after which the call counts as running. After an error
  // there is only Refuse: UNAUTHENTICATED, PERMISSION_DENIED where the caller's role is too low,
  // and what CallRuntime::Enter says.
  absl::Status Enter();

  // Ends a call whose handler does not run. Then, as after Start, exactly once, the peer's Finish.
  void Refuse(const absl::Status& why) { peer_->Finish(Conclude(why)); }

  // Puts `handler` on the method's lane; it does not run if the call is refused or was stopped in
  // the queue, and an exception becomes INTERNAL. `flush` runs after it, or without it where it
  // does not run, for what is still on its way to the client. Then, exactly once whatever happened,
  // the peer's Finish: on the lane's thread, or in here where the call is refused.
  void Start(
      std::function<absl::Status()> handler, std::function<void()> flush = [] {});

  // A call that mostly waits, and holds no thread while it does. `step` runs on Lane::kWaiting:
  // once at first, and again whenever somebody called what wake() returns, which the end of the
  // call does too. It must not throw, and does not block. Once it returns a status the peer's
  // Finish gets that, or why the call was stopped.
  void StartWaiting(std::function<std::optional<absl::Status>()> step);

  // Of a call that waits: makes its next step run. May be called from any thread, also after the
  // call is over.
  std::function<void()> wake() const;

  // The client left or its deadline passed.
  void ClientGone();

  // Ends the call for its handler; what the client gets is still up to Finish.
  void Stop(absl::Status why) { context_.Stop(std::move(why)); }

  // Ends the call for the peer too, whatever is in flight (a stalled stream).
  void Abort(absl::Status why);

 private:
  // Finds out who calls, and whether they may.
  absl::Status Admit();
  absl::Status Run(const std::function<absl::Status()>& handler);
  // What the client gets: logged and measured.
  absl::Status Conclude(absl::Status status);
  // Of a call that was refused for who called, or named a resource.
  void WriteAudit(const std::string& code, const absl::Status& status);
  // Why the call was stopped, which it is where its deadline passed.
  absl::Status WhyStopped();

  CallRuntime* const runtime_;
  const Method* const method_;
  Peer* const peer_;
  CallContext context_;
  std::vector<std::string> models_;  // that its metadata names
  std::string caller_;               // the name of who calls
  std::optional<Role> role_;         // once it is known who calls
  absl::Mutex resources_mutex_;
  std::set<std::string> resources_ ABSL_GUARDED_BY(resources_mutex_);
  bool entered_ = false;
  std::shared_ptr<Stepper> stepper_;  // of a call that waits
  std::optional<StopCallback> stop_;  // which wakes it
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_CALL_H_
