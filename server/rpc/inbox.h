// What a client streams to a handler: one message at a time, asked for by the handler's thread,
// which waits, and delivered by the transport, which never does.
#ifndef VALUESCOPE_RPC_INBOX_H_
#define VALUESCOPE_RPC_INBOX_H_

#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/status_macros.h"
#include "rpc/call.h"
#include "rpc/stream.h"

namespace valuescope::rpc {

template <typename Request>
class ReadTransport {
 public:
  virtual ~ReadTransport() = default;

  // Asks for the next message: the inbox hears OnReadDone, from any thread, once. The end of the
  // call makes that happen soon. Does not block.
  virtual void StartRead() = 0;

  // The message that came, which fits what the call may hold and is one of the method's; otherwise
  // an error. On the handler's thread.
  virtual absl::Status TakeMessage(Request& message) = 0;
};

// Read is called by the handler's thread alone. After an error a read may still be in flight: the
// transport ends it, and keeps the inbox until then.
template <typename Request>
class Inbox : public StreamReader<Request> {
 public:
  // Both outlive the inbox.
  Inbox(Call* call, ReadTransport<Request>* transport) : call_(call), transport_(transport) {}
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  absl::StatusOr<std::optional<Request>> Read() override {
    VS_RETURN_IF_ERROR(call_->context().Why());
    {
      absl::MutexLock lock(&mutex_);
      if (ended_) return std::optional<Request>();
      reading_ = true;
    }
    transport_->StartRead();
    if (!AwaitRead()) call_->Stop(StalledStream());
    VS_RETURN_IF_ERROR(call_->context().Why());
    {
      absl::MutexLock lock(&mutex_);
      if (ended_) return std::optional<Request>();
    }
    std::optional<Request> message(std::in_place);
    VS_RETURN_IF_ERROR(transport_->TakeMessage(*message));
    return message;
  }

  // The transport's reaction; `ok` false at the end of the stream, or where it broke.
  void OnReadDone(bool ok) {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    ended_ = !ok;
  }

 private:
  // Waits for the read in flight or the end of the call; false when neither came for the stall
  // timeout.
  bool AwaitRead() {
    StopCallback wake(&call_->context(), [this] { Wake(); });
    absl::MutexLock lock(&mutex_);
    const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !reading_ || call_->context().cancellation.cancelled();
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&done), call_->stall_timeout());
  }

  // Makes the reader look at the cancellation: absl::Mutex evaluates conditions when it is
  // unlocked.
  void Wake() { absl::MutexLock lock(&mutex_); }

  Call* const call_;
  ReadTransport<Request>* const transport_;
  absl::Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_INBOX_H_
