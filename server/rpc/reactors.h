// One reactor for each RPC shape: what gRPC says becomes what a Call, a ReceiveGate, an Outbox and
// an Inbox hear, and back. gRPC owns the threads on which the On... reactions run, and they never
// block; the handler runs on a thread of the call's lane. Calls that wait (waiter.h) have reactors
// of their own, by whose steps they are started, asked and ended. A reactor deletes itself in
// OnDone, which gRPC calls last: after Finish and after every other reaction has returned.
#ifndef VALUESCOPE_RPC_REACTORS_H_
#define VALUESCOPE_RPC_REACTORS_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <cstdint>
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
#include "rpc/message_bytes.h"
#include "rpc/outbox.h"
#include "rpc/peer.h"
#include "rpc/receive_gate.h"
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
  std::optional<std::string> certificate_uri() const override;
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

// A call of any shape as gRPC sees it: bytes come, bytes go. So a message is asked for when there
// is room for it, and becomes one of the contract's on the thread of a handler, once it is known
// how much memory that takes.
class Reactor : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Reactor(CallRuntime* runtime, const Method* method, grpc::CallbackServerContext* context)
      : peer_(context, [this](grpc::Status status) { End(std::move(status)); }),
        call_(runtime, method, &peer_) {}

  // Once it is made, by whoever made it.
  virtual void Open() = 0;

  void OnDone() final { delete this; }

 protected:
  // What goes before an OK, where a handler answers with one message: the call's last, so all that
  // it still holds. The errors of CallContext::Hold.
  absl::Status SetReply(const google::protobuf::Message& message);

  GrpcPeer peer_;
  Call call_;

 private:
  void End(grpc::Status status);

  std::optional<grpc::ByteBuffer> reply_;
  std::optional<Alarm> patience_;  // with a client that does not take it
};

// A call whose client sends one message.
class OneRequestReactor : public Reactor, private ReceiveGate::Reception {
 public:
  OneRequestReactor(CallRuntime* runtime, const Method* method,
                    grpc::CallbackServerContext* context)
      : Reactor(runtime, method, context), gate_(runtime->gate()), sender_(context->peer()) {}

  void Open() final;
  void OnCancel() final;
  void OnReadDone(bool ok) final;

 protected:
  // The message is here: Start or StartWaiting.
  virtual void Received() = 0;

  // On the handler's thread, once. The errors of ParseMessage, Call::CheckModel and
  // CallContext::Hold.
  absl::Status TakeRequest(google::protobuf::Message& request);

 private:
  void Begin() final { StartRead(&bytes_); }
  void Refuse(const absl::Status& why) final { call_.Refuse(why); }

  ReceiveGate* const gate_;
  const std::string sender_;
  grpc::ByteBuffer bytes_;
};

template <typename Request, typename Response>
class UnaryReactor : public OneRequestReactor {
 public:
  using Handler = UnaryHandler<Request, Response>;

  UnaryReactor(CallRuntime* runtime, const Method* method, grpc::CallbackServerContext* context,
               const Handler* handler)
      : OneRequestReactor(runtime, method, context), handler_(handler) {}

 private:
  void Received() override {
    call_.Start([this]() -> absl::Status {
      Request request;
      VS_RETURN_IF_ERROR(TakeRequest(request));
      Response response;
      VS_RETURN_IF_ERROR((*handler_)(call_.context(), request, &response));
      return SetReply(response);
    });
  }

  const Handler* const handler_;
};

// What writes a handler's messages, one at a time.
template <typename Response>
class WritingReactor : public OneRequestReactor, private WriteTransport<Response> {
 public:
  WritingReactor(CallRuntime* runtime, const Method* method, grpc::CallbackServerContext* context)
      : OneRequestReactor(runtime, method, context),
        outbox_(&call_, this),
        pulse_(call_.clock(), [this] { return outbox_.Pulse(); }) {}

  void OnWriteDone(bool ok) override { outbox_.OnWriteDone(ok); }

 protected:
  Outbox<Response> outbox_;
  Alarm pulse_;

 private:
  void StartWrite(const Response* message) override {
    written_ = BytesOf(*message);
    Reactor::StartWrite(&written_);
  }

  grpc::ByteBuffer written_;
};

template <typename Request, typename Response>
class ServerStreamReactor : public WritingReactor<Response> {
 public:
  using Handler = ServerStreamHandler<Request, Response>;

  ServerStreamReactor(CallRuntime* runtime, const Method* method,
                      grpc::CallbackServerContext* context, const Handler* handler)
      : WritingReactor<Response>(runtime, method, context), handler_(handler) {}

 private:
  void Received() override {
    this->outbox_.SetHeartbeat(HeartbeatOf<Response>());
    this->pulse_.RingAt(absl::Now() + this->call_.heartbeat());
    this->call_.Start(
        [this]() -> absl::Status {
          Request request;
          VS_RETURN_IF_ERROR(this->TakeRequest(request));
          return (*handler_)(this->call_.context(), request, this->outbox_);
        },
        [this] {
          this->pulse_.Cancel();
          this->outbox_.Flush();
        });
  }

  const Handler* const handler_;
};

template <typename Request, typename Response>
class WaitingUnaryReactor : public OneRequestReactor {
 public:
  using Handler = WaitingHandler<Request, Response*>;

  WaitingUnaryReactor(CallRuntime* runtime, const Method* method,
                      grpc::CallbackServerContext* context, const Handler* handler)
      : OneRequestReactor(runtime, method, context), handler_(handler) {}

 private:
  void Received() override {
    call_.StartWaiting([this] { return CatchExceptions([this] { return Step(); }); });
  }

  std::optional<absl::Status> Step() {
    VS_RETURN_IF_ERROR(call_.context().Why());
    if (waiter_ == nullptr) {
      Request request;
      VS_RETURN_IF_ERROR(TakeRequest(request));
      VS_ASSIGN_OR_RETURN(waiter_, (*handler_)(call_.context(), request, call_.wake()));
    }
    Response response;
    const std::optional<absl::Status> result = waiter_->Look(&response);
    if (result && result->ok()) return SetReply(response);
    return result;
  }

  const Handler* const handler_;
  std::unique_ptr<Waiter<Response*>> waiter_;
};

template <typename Request, typename Response>
class WaitingStreamReactor : public WritingReactor<Response>, private StreamWriter<Response> {
 public:
  using Handler = WaitingHandler<Request, StreamWriter<Response>&>;

  WaitingStreamReactor(CallRuntime* runtime, const Method* method,
                       grpc::CallbackServerContext* context, const Handler* handler)
      : WritingReactor<Response>(runtime, method, context), handler_(handler) {}

  void OnWriteDone(bool ok) override {
    this->outbox_.OnWriteDone(ok);
    this->call_.wake()();
  }

 private:
  void Received() override {
    this->call_.StartWaiting([this] { return Step(); });
  }

  // Over once there is a result and the client has taken what was written before it, or has taken
  // nothing for too long.
  std::optional<absl::Status> Step() {
    if (!result_) result_ = CatchExceptions([this] { return Look(); });
    if (!result_) return std::nullopt;
    waiter_.reset();
    this->pulse_.RingAt(this->outbox_.Close());
    if (!this->outbox_.empty()) return std::nullopt;
    this->pulse_.Cancel();
    return result_;
  }

  std::optional<absl::Status> Look() {
    const CallContext& context = this->call_.context();
    VS_RETURN_IF_ERROR(context.Why());
    if (waiter_ == nullptr) {
      Request request;
      VS_RETURN_IF_ERROR(this->TakeRequest(request));
      VS_ASSIGN_OR_RETURN(waiter_, (*handler_)(context, request, this->call_.wake()));
      // Whoever waits may have nothing to say for long, and nothing said to repeat.
      this->outbox_.SetHeartbeat(HeartbeatOf<Response>());
      this->pulse_.RingAt(absl::Now() + this->call_.heartbeat());
    }
    if (!this->outbox_.empty()) return std::nullopt;  // its end wakes
    return waiter_->Look(*this);
  }

  absl::Status Write(Response message) override {
    this->outbox_.SetHeartbeat(HeartbeatOf<Response>(message));
    return this->outbox_.Write(std::move(message));
  }

  const Handler* const handler_;
  std::unique_ptr<Waiter<StreamWriter<Response>&>> waiter_;
  std::optional<absl::Status> result_;
};

// Its messages pass no gate: as many clients as there are threads may send one, each of which has
// the room for it before it is asked for.
template <typename Request, typename Response>
class ClientStreamReactor : public Reactor, private ReadTransport<Request> {
 public:
  using Handler = ClientStreamHandler<Request, Response>;

  ClientStreamReactor(CallRuntime* runtime, const Method* method,
                      grpc::CallbackServerContext* context, const Handler* handler)
      : Reactor(runtime, method, context),
        room_(2 * method->message_bytes),
        handler_(handler),
        inbox_(&call_, this) {}

  void Open() override {
    if (const absl::Status entered = call_.Enter(); !entered.ok()) return call_.Refuse(entered);
    call_.Start([this]() -> absl::Status {
      VS_RETURN_IF_ERROR(call_.context().Hold(room_));
      Response response;
      VS_RETURN_IF_ERROR((*handler_)(call_.context(), inbox_, &response));
      return SetReply(response);
    });
  }

  void OnCancel() override { call_.ClientGone(); }
  void OnReadDone(bool ok) override { inbox_.OnReadDone(ok); }

 private:
  void StartRead() override { Reactor::StartRead(&bytes_); }

  // The bytes and what they become share the room. A message that is longer than any of the
  // method's takes more, so that whoever reads it can say what is wrong with it.
  absl::Status TakeMessage(Request& message) override {
    const CallContext& context = call_.context();
    VS_ASSIGN_OR_RETURN(const int64_t size, SizeOnceParsed(bytes_, *Request::descriptor()));
    context.GiveBack(std::exchange(extra_, 0));
    const int64_t extra =
        std::max<int64_t>(0, static_cast<int64_t>(bytes_.Length()) + size - room_);
    VS_RETURN_IF_ERROR(context.Hold(extra));
    extra_ = extra;
    VS_RETURN_IF_ERROR(ParseMessage(bytes_, message));
    return call_.CheckModel(message);
  }

  const int64_t room_;
  int64_t extra_ = 0;  // for the message before
  const Handler* const handler_;
  Inbox<Request> inbox_;
  grpc::ByteBuffer bytes_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_REACTORS_H_
