// One reactor for each RPC shape: what gRPC says becomes what a Call, an Outbox and an Inbox hear,
// and back. gRPC owns the threads on which the On... reactions run, and they never block; the
// handler runs on a thread of the call's lane. A reactor deletes itself in OnDone, which gRPC calls
// last: after Finish and after every other reaction has returned.
#ifndef VALUESCOPE_RPC_REACTORS_H_
#define VALUESCOPE_RPC_REACTORS_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "rpc/call.h"
#include "rpc/inbox.h"
#include "rpc/outbox.h"
#include "rpc/peer.h"
#include "rpc/request_check.h"
#include "rpc/stream.h"

namespace valuescope::rpc {

template <typename Request, typename Response>
using UnaryHandler = std::function<absl::Status(const CallContext&, const Request&, Response*)>;

template <typename Request, typename Response>
using ServerStreamHandler =
    std::function<absl::Status(const CallContext&, const Request&, StreamWriter<Response>&)>;

template <typename Request, typename Response>
using ClientStreamHandler =
    std::function<absl::Status(const CallContext&, StreamReader<Request>&, Response*)>;

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
        outbox_(&call_, this) {
    call_.Start(
        request->SpaceUsedLong(),
        [this, request, handler]() -> absl::Status {
          VS_RETURN_IF_ERROR(CheckEnums(*request));
          return (*handler)(call_.context(), *request, outbox_);
        },
        [this] { outbox_.Flush(); });
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
