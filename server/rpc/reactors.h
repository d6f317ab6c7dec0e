// One reactor for each RPC shape: what gRPC says becomes what a Call, an Outbox and an Inbox hear,
// and back. gRPC owns the threads on which the On... reactions run, and they never block; the
// handler runs on a thread of the call's lane. Calls that wait (waiter.h) have reactors of their
// own, by whose steps they are started, asked and ended. A reactor deletes itself in OnDone, which
// gRPC calls last: after Finish and after every other reaction has returned.
#ifndef VALUESCOPE_RPC_REACTORS_H_
#define VALUESCOPE_RPC_REACTORS_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "rpc/alarm_clock.h"
#include "rpc/call.h"
#include "rpc/inbox.h"
#include "rpc/outbox.h"
#include "rpc/peer.h"
#include "rpc/request_check.h"
#include "rpc/stream.h"
#include "rpc/waiter.h"

namespace valuescope::rpc {

template <typename Request, typename Response>
using UnaryHandler = std::function<absl::Status(const CallContext&, const Request&, Response*)>;

template <typename Request, typename Response>
using ServerStreamHandler =
    std::function<absl::Status(const CallContext&, const Request&, StreamWriter<Response>&)>;

template <typename Request, typename Response>
using ClientStreamHandler =
    std::function<absl::Status(const CallContext&, StreamReader<Request>&, Response*)>;

// Makes what answers one call by waiting; an error ends it at once. Both arguments outlive it.
template <typename Request, typename Output>
using WaitingHandler = std::function<absl::StatusOr<std::unique_ptr<Waiter<Output>>>(
    const CallContext&, const Request&, Wake)>;

// The peer behind a gRPC call. `finish` is the reactor's Finish.
class GrpcPeer : public Peer {
 public:
  GrpcPeer(grpc::CallbackServerContext* context, std::function<void(grpc::Status)> finish)
      : context_(context), finish_(std::move(finish)) {}

  CallMetadata metadata() const override;
  absl::Time deadline() const override;
  void AddInitialMetadata(const std::string& key, const std::string& value) override {
    context_->AddInitialMetadata(key, value);
  }
  void AddTrailingMetadata(const std::string& key, const std::string& value) override {
    context_->AddTrailingMetadata(key, value);
  }
  void TryCancel() override { context_->TryCancel(); }
  // Translated, and beside an error that asks for a later retry how long gRPC's own retries wait.
  void Finish(const absl::Status& status) override;

 private:
  grpc::CallbackServerContext* const context_;
  const std::function<void(grpc::Status)> finish_;
};

template <typename Request, typename Response>
class UnaryReactor : public grpc::ServerUnaryReactor {
 public:
  UnaryReactor(CallRuntime* runtime, const Method* method, grpc::CallbackServerContext* context,
               const Request* request, Response* response,
               const UnaryHandler<Request, Response>* handler)
      : peer_(context, [this](grpc::Status status) { Finish(std::move(status)); }),
        call_(runtime, method, &peer_) {
    call_.Start(request->SpaceUsedLong(), [this, request, response, handler]() -> absl::Status {
      VS_RETURN_IF_ERROR(CheckEnums(*request));
      return (*handler)(call_.context(), *request, response);
    });
  }

  void OnCancel() override { call_.ClientGone(); }
  void OnDone() override { delete this; }

 private:
  GrpcPeer peer_;
  Call call_;
};

template <typename Request, typename Response>
class ServerStreamReactor : public grpc::ServerWriteReactor<Response>,
                            private WriteTransport<Response> {
 public:
  ServerStreamReactor(CallRuntime* runtime, const Method* method,
                      grpc::CallbackServerContext* context, const Request* request,
                      const ServerStreamHandler<Request, Response>* handler)
      : peer_(context, [this](grpc::Status status) { this->Finish(std::move(status)); }),
        call_(runtime, method, &peer_),
        outbox_(&call_, this),
        pulse_(call_.clock(), [this] { return outbox_.Pulse(); }) {
    outbox_.SetHeartbeat(HeartbeatOf<Response>());
    pulse_.RingAt(absl::Now() + call_.heartbeat());
    call_.Start(
        request->SpaceUsedLong(),
        [this, request, handler]() -> absl::Status {
          VS_RETURN_IF_ERROR(CheckEnums(*request));
          return (*handler)(call_.context(), *request, outbox_);
        },
        [this] {
          pulse_.Cancel();
          outbox_.Flush();
        });
  }

  void OnCancel() override { call_.ClientGone(); }
  void OnDone() override { delete this; }
  void OnWriteDone(bool ok) override { outbox_.OnWriteDone(ok); }

 private:
  using Reactor = grpc::ServerWriteReactor<Response>;
  void StartWrite(const Response* message) override { Reactor::StartWrite(message); }

  GrpcPeer peer_;
  Call call_;
  Outbox<Response> outbox_;
  Alarm pulse_;
};

template <typename Request, typename Response>
class WaitingUnaryReactor : public grpc::ServerUnaryReactor {
 public:
  using Handler = WaitingHandler<Request, Response*>;

  WaitingUnaryReactor(CallRuntime* runtime, const Method* method,
                      grpc::CallbackServerContext* context, const Request* request,
                      Response* response, const Handler* handler)
      : peer_(context, [this](grpc::Status status) { Finish(std::move(status)); }),
        call_(runtime, method, &peer_) {
    call_.StartWaiting(request->ByteSizeLong(), [this, request, response, handler] {
      return CatchExceptions([&] { return Step(*request, response, *handler); });
    });
  }

  void OnCancel() override { call_.ClientGone(); }
  void OnDone() override { delete this; }

 private:
  std::optional<absl::Status> Step(const Request& request, Response* response,
                                   const Handler& handler) {
    VS_RETURN_IF_ERROR(call_.context().Why());
    if (waiter_ == nullptr) {
      VS_RETURN_IF_ERROR(CheckEnums(request));
      VS_ASSIGN_OR_RETURN(waiter_, handler(call_.context(), request, call_.wake()));
    }
    return waiter_->Look(response);
  }

  GrpcPeer peer_;
  Call call_;
  std::unique_ptr<Waiter<Response*>> waiter_;
};

template <typename Request, typename Response>
class WaitingStreamReactor : public grpc::ServerWriteReactor<Response>,
                             private WriteTransport<Response>,
                             private StreamWriter<Response> {
 public:
  using Handler = WaitingHandler<Request, StreamWriter<Response>&>;

  WaitingStreamReactor(CallRuntime* runtime, const Method* method,
                       grpc::CallbackServerContext* context, const Request* request,
                       const Handler* handler)
      : peer_(context, [this](grpc::Status status) { this->Finish(std::move(status)); }),
        call_(runtime, method, &peer_),
        outbox_(&call_, this),
        pulse_(call_.clock(), [this] { return outbox_.Pulse(); }) {
    call_.StartWaiting(request->ByteSizeLong(),
                       [this, request, handler] { return Step(*request, *handler); });
  }

  void OnCancel() override { call_.ClientGone(); }
  void OnDone() override { delete this; }
  void OnWriteDone(bool ok) override {
    outbox_.OnWriteDone(ok);
    call_.wake()();
  }

 private:
  using Reactor = grpc::ServerWriteReactor<Response>;
  void StartWrite(const Response* message) override { Reactor::StartWrite(message); }

  // Over once there is a result and the client has taken what was written before it, or has taken
  // nothing for too long.
  std::optional<absl::Status> Step(const Request& request, const Handler& handler) {
    if (!result_) result_ = CatchExceptions([&] { return Look(request, handler); });
    if (!result_) return std::nullopt;
    waiter_.reset();
    pulse_.RingAt(outbox_.Close());
    if (!outbox_.empty()) return std::nullopt;
    pulse_.Cancel();
    return result_;
  }

  std::optional<absl::Status> Look(const Request& request, const Handler& handler) {
    VS_RETURN_IF_ERROR(call_.context().Why());
    if (waiter_ == nullptr) {
      VS_RETURN_IF_ERROR(CheckEnums(request));
      VS_ASSIGN_OR_RETURN(waiter_, handler(call_.context(), request, call_.wake()));
      pulse_.RingAt(absl::Now() + call_.heartbeat());
    }
    if (!outbox_.empty()) return std::nullopt;  // its end wakes
    return waiter_->Look(*this);
  }

  absl::Status Write(Response message) override {
    outbox_.SetHeartbeat(HeartbeatOf<Response>(message));
    return outbox_.Write(std::move(message));
  }

  GrpcPeer peer_;
  Call call_;
  Outbox<Response> outbox_;
  Alarm pulse_;
  std::unique_ptr<Waiter<StreamWriter<Response>&>> waiter_;
  std::optional<absl::Status> result_;
};

template <typename Request, typename Response>
class ClientStreamReactor : public grpc::ServerReadReactor<Request>,
                            private ReadTransport<Request> {
 public:
  ClientStreamReactor(CallRuntime* runtime, const Method* method,
                      grpc::CallbackServerContext* context, Response* response,
                      const ClientStreamHandler<Request, Response>* handler)
      : peer_(context, [this](grpc::Status status) { this->Finish(std::move(status)); }),
        call_(runtime, method, &peer_),
        inbox_(&call_, this) {
    call_.Start(
        0, [this, response, handler] { return (*handler)(call_.context(), inbox_, response); });
  }

  void OnCancel() override { call_.ClientGone(); }
  void OnDone() override { delete this; }
  void OnReadDone(bool ok) override { inbox_.OnReadDone(ok); }

 private:
  using Reactor = grpc::ServerReadReactor<Request>;
  void StartRead(Request* message) override { Reactor::StartRead(message); }

  GrpcPeer peer_;
  Call call_;
  Inbox<Request> inbox_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_REACTORS_H_
