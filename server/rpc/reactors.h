// One reactor for each RPC shape. gRPC owns the threads on which the On... reactions run, and they
// never block; the handler runs on a thread of the call's lane. A reactor calls Finish exactly
// once, always after its handler has returned (or was refused), also when the client is long gone,
// and deletes itself in OnDone, which gRPC calls last.
#ifndef VALUESCOPE_RPC_REACTORS_H_
#define VALUESCOPE_RPC_REACTORS_H_

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "rpc/call.h"
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

// How long a stopped stream may take to hand over what was already written.
inline constexpr absl::Duration kStoppedFlush = absl::Seconds(1);

inline absl::Status StalledStream() {
  return ErrorWithReason(absl::StatusCode::kDeadlineExceeded, "STREAM_STALLED",
                         "nothing moved on the stream for too long");
}

template <typename Handler>
absl::Status Checked(const google::protobuf::Message& request, Handler handler) {
  VS_RETURN_IF_ERROR(CheckEnums(request));
  return handler();
}

template <typename Request, typename Response>
class UnaryReactor : public grpc::ServerUnaryReactor {
 public:
  UnaryReactor(CallRuntime* runtime, const Method* method, grpc::CallbackServerContext* context,
               const Request* request, Response* response,
               const UnaryHandler<Request, Response>* handler)
      : call_(runtime, method, context) {
    const absl::Status status = call_.Start([this, request, response, handler] {
      const absl::Status result = call_.Run([&] {
        return Checked(*request, [&] { return (*handler)(call_.context(), *request, response); });
      });
      Finish(call_.Conclude(result));
    });
    if (!status.ok()) Finish(call_.Conclude(status));
  }

  void OnCancel() override { call_.ClientGone(); }
  void OnDone() override { delete this; }

 private:
  Call call_;
};

template <typename Request, typename Response>
class ServerStreamReactor : public grpc::ServerWriteReactor<Response>,
                            private StreamWriter<Response> {
 public:
  ServerStreamReactor(CallRuntime* runtime, const Method* method,
                      grpc::CallbackServerContext* context, const Request* request,
                      const ServerStreamHandler<Request, Response>* handler)
      : call_(runtime, method, context) {
    const absl::Status status = call_.Start([this, request, handler] {
      const absl::Status result = call_.Run([&] {
        return Checked(*request, [&] { return (*handler)(call_.context(), *request, *this); });
      });
      Flush();
      this->Finish(call_.Conclude(result));
    });
    if (!status.ok()) this->Finish(call_.Conclude(status));
  }

  void OnCancel() override { call_.ClientGone(); }
  void OnDone() override { delete this; }

  void OnWriteDone(bool ok) override {
    const Response* next = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      outbox_bytes_ -= outbox_.front().ByteSizeLong();
      outbox_.pop_front();
      ++written_;
      if (!ok) broken_ = true;
      if (broken_) {
        outbox_.clear();
        outbox_bytes_ = 0;
      }
      if (!outbox_.empty()) next = &outbox_.front();
    }
    if (next != nullptr) this->StartWrite(next);
  }

 private:
  absl::Status Write(Response message) override {
    StopCallback wake(&call_.context(), [this] { Wake(); });
    const size_t bytes = message.ByteSizeLong();
    const Response* first = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      const auto has_room = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return Stopped() || outbox_.empty() ||
               (outbox_.size() <= kMaxOutboxMessages && outbox_bytes_ + bytes <= kMaxOutboxBytes);
      };
      if (!AwaitMoving(has_room)) {
        broken_ = true;
      } else if (!Stopped()) {
        outbox_.push_back(std::move(message));
        outbox_bytes_ += bytes;
        if (outbox_.size() == 1) first = &outbox_.front();
      }
    }
    if (first != nullptr) {
      this->StartWrite(first);
      return absl::OkStatus();
    }
    return AfterWaiting();
  }

  // Waits until no write is in flight: the client took everything, or will take nothing more. A
  // call that was stopped gives a client that still reads a moment for what is in the outbox.
  void Flush() {
    StopCallback wake(&call_.context(), [this] { Wake(); });
    {
      absl::MutexLock lock(&mutex_);
      const auto sent_or_stopped = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return outbox_.empty() || Stopped();
      };
      const auto sent = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return outbox_.empty(); };
      AwaitMoving(sent_or_stopped);
      if (Stopped()) mutex_.AwaitWithTimeout(absl::Condition(&sent), kStoppedFlush);
      if (outbox_.empty()) return;
      broken_ = true;
    }
    call_.Abort(StalledStream());
    absl::MutexLock lock(&mutex_);
    const auto sent = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return outbox_.empty(); };
    mutex_.Await(absl::Condition(&sent));
  }

  absl::Status AfterWaiting() {
    bool broken;
    {
      absl::MutexLock lock(&mutex_);
      broken = broken_;
    }
    if (!broken && call_.context().Why().ok()) return absl::OkStatus();
    if (call_.context().Why().ok()) call_.Abort(StalledStream());
    return call_.context().Why();
  }

  bool Stopped() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return broken_ || call_.context().cancellation.cancelled();
  }

  // Waits for `condition`; false when no write ended for the stall timeout.
  template <typename Condition>
  bool AwaitMoving(Condition condition) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (!condition()) {
      const uint64_t written = written_;
      const auto moved = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return condition() || written_ != written;
      };
      if (!mutex_.AwaitWithTimeout(absl::Condition(&moved), call_.runtime().stall_timeout())) {
        return false;
      }
    }
    return true;
  }

  // Makes waiters look at the cancellation: absl::Mutex evaluates conditions when it is unlocked.
  void Wake() { absl::MutexLock lock(&mutex_); }

  Call call_;
  absl::Mutex mutex_;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // nothing more can be written
  uint64_t written_ ABSL_GUARDED_BY(mutex_) = 0;
  // The front is in flight. A deque keeps its elements where they are while others come and go.
  std::deque<Response> outbox_ ABSL_GUARDED_BY(mutex_);
  size_t outbox_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

template <typename Request, typename Response>
class ClientStreamReactor : public grpc::ServerReadReactor<Request>, private StreamReader<Request> {
 public:
  ClientStreamReactor(CallRuntime* runtime, const Method* method,
                      grpc::CallbackServerContext* context, Response* response,
                      const ClientStreamHandler<Request, Response>* handler)
      : call_(runtime, method, context) {
    const absl::Status status = call_.Start([this, response, handler] {
      const absl::Status result =
          call_.Run([&] { return (*handler)(call_.context(), *this, response); });
      this->Finish(call_.Conclude(result));
    });
    if (!status.ok()) this->Finish(call_.Conclude(status));
  }

  void OnCancel() override { call_.ClientGone(); }
  void OnDone() override { delete this; }

  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    ended_ = !ok;
  }

 private:
  // After an error a read may still be in flight: Finish ends it, and gRPC calls OnDone after its
  // OnReadDone.
  absl::StatusOr<std::optional<Request>> Read() override {
    VS_RETURN_IF_ERROR(call_.context().Why());
    {
      absl::MutexLock lock(&mutex_);
      if (ended_) return std::optional<Request>();
      reading_ = true;
    }
    incoming_.Clear();
    this->StartRead(&incoming_);
    StopCallback wake(&call_.context(), [this] { Wake(); });
    bool moved;
    bool ended;
    {
      absl::MutexLock lock(&mutex_);
      const auto done = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return !reading_ || call_.context().cancellation.cancelled();
      };
      moved = mutex_.AwaitWithTimeout(absl::Condition(&done), call_.runtime().stall_timeout());
      ended = ended_;
    }
    if (!moved) call_.context().Stop(StalledStream());
    VS_RETURN_IF_ERROR(call_.context().Why());
    if (ended) return std::optional<Request>();
    return std::optional<Request>(std::move(incoming_));
  }

  void Wake() { absl::MutexLock lock(&mutex_); }

  Call call_;
  Request incoming_;  // written by gRPC while reading_
  absl::Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_REACTORS_H_
