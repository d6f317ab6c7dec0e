// What a handler wrote and the client has not taken yet: a bounded queue between the handler's
// thread, which may wait, and the transport, which has one write in flight and never waits.
//
// The clock looks at it now and then (Pulse). Where nothing is on its way it sends a heartbeat, so
// that nobody in between takes a stream that waits for a dead one; where the client does not take
// what is, heartbeats too, the stream ends. A heartbeat never waits behind another message, so it
// keeps no stalled stream alive.
#ifndef VALUESCOPE_RPC_OUTBOX_H_
#define VALUESCOPE_RPC_OUTBOX_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/memory_ledger.h"
#include "rpc/call.h"
#include "rpc/stream.h"

namespace valuescope::rpc {

// How long a stopped stream may take to hand over what was already written.
inline constexpr absl::Duration kStoppedFlush = absl::Seconds(1);

template <typename Response>
class WriteTransport {
 public:
  virtual ~WriteTransport() = default;

  // Begins to send `*message`, which stays where it is until the outbox hears OnWriteDone, from any
  // thread, once. Peer::TryCancel makes that happen soon. Does not block.
  virtual void StartWrite(const Response* message) = 0;
};

// The response that only says that the stream lives; nothing where its type has none.
template <typename Response>
std::optional<Response> HeartbeatOf(Response response = {}) {
  if constexpr (requires { response.mutable_heartbeat(); }) {
    response.mutable_heartbeat();
    return response;
  }
  return std::nullopt;
}

// Write, Flush, Close and SetHeartbeat are called by the handler's thread alone, Pulse by the
// clock's. Response has ByteSizeLong().
template <typename Response>
class Outbox : public StreamWriter<Response> {
 public:
  // Both outlive the outbox.
  Outbox(Call* call, WriteTransport<Response>* transport) : call_(call), transport_(transport) {}
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  absl::Status Write(Response message) override {
    StopCallback wake(&call_->context(), [this] { Wake(); });
    const size_t bytes = message.ByteSizeLong();
    // Where all calls hold too much already, little waits here but what is on its way.
    auto room = TakeRoom(bytes);
    const Response* first = nullptr;
    bool moves;
    {
      absl::MutexLock lock(&mutex_);
      const auto has_room = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        const bool may_wait = room.ok() || bytes_ + bytes <= kAlwaysInOutbox;
        return Stopped() || messages_.empty() ||
               (may_wait && messages_.size() <= kMaxOutboxMessages &&
                bytes_ + bytes <= kMaxOutboxBytes);
      };
      moves = AwaitMoving(has_room);
      if (!moves) {
        broken_ = true;
      } else if (!Stopped()) {
        first = Add({.message = std::move(message),
                     .bytes = bytes,
                     .room = room.ok() ? *std::move(room) : nullptr});
      }
    }
    if (!moves) call_->Abort(StalledStream());
    if (first != nullptr) transport_->StartWrite(first);
    return WhyNoMore();
  }

  // Waits until no write is in flight: the client took everything, or will take nothing more. A
  // call that was stopped gives a client that still reads a moment for what is in the outbox.
  void Flush() {
    StopCallback wake(&call_->context(), [this] { Wake(); });
    const auto sent = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return messages_.empty(); };
    {
      absl::MutexLock lock(&mutex_);
      const auto sent_or_stopped = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return messages_.empty() || Stopped();
      };
      AwaitMoving(sent_or_stopped);
      if (Stopped()) mutex_.AwaitWithTimeout(absl::Condition(&sent), kStoppedFlush);
      if (messages_.empty()) return;
      broken_ = true;
    }
    call_->Abort(StalledStream());
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&sent));
  }

  // Nothing waits for the client: a Write now does not block.
  bool empty() {
    absl::MutexLock lock(&mutex_);
    return messages_.empty();
  }

  // For a handler that holds no thread and so cannot Flush: no heartbeat is sent any more. Returns
  // when Pulse ends the call where the client has not taken what is in the outbox by then. May be
  // called again, as the end of the call shortens that.
  absl::Time Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    if (Stopped()) flushed_by_ = std::min(flushed_by_, absl::Now() + kStoppedFlush);
    return Patience();
  }

  // What Pulse sends; nothing at first.
  void SetHeartbeat(std::optional<Response> heartbeat) {
    absl::MutexLock lock(&mutex_);
    heartbeat_ = std::move(heartbeat);
  }

  // Sends a heartbeat, or ends a stream whose client takes nothing, where it is time to. Returns
  // when it is time next.
  absl::Time Pulse() {
    const absl::Time now = absl::Now();
    const Response* first = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (messages_.empty()) {
        if (closed_ || Stopped()) return absl::InfiniteFuture();
        if (!heartbeat_) return now + call_->heartbeat();
        if (now < moved_ + call_->heartbeat()) return moved_ + call_->heartbeat();
        first = Add({.message = *heartbeat_, .bytes = heartbeat_->ByteSizeLong()});
      } else if (now < Patience()) {
        return std::min(Patience(), now + call_->heartbeat());
      }
    }
    if (first == nullptr) {
      call_->Abort(StalledStream());
      return absl::InfiniteFuture();
    }
    transport_->StartWrite(first);
    return now + std::min(call_->heartbeat(), call_->stall_timeout());
  }

  // The transport's reaction; `ok` false where the message cannot reach the client any more.
  void OnWriteDone(bool ok) {
    const Response* next = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      bytes_ -= messages_.front().bytes;
      messages_.pop_front();
      ++written_;
      moved_ = absl::Now();
      if (!ok) broken_ = true;
      if (broken_) {
        messages_.clear();
        bytes_ = 0;
      }
      if (!messages_.empty()) next = &messages_.front().message;
    }
    if (next != nullptr) transport_->StartWrite(next);
  }

 private:
  struct Waiting {
    Response message;
    size_t bytes;
    std::shared_ptr<MemoryLedger::Lease> room = nullptr;
  };

  // The message if it is to be sent now.
  const Response* Add(Waiting message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    bytes_ += message.bytes;
    messages_.push_back(std::move(message));
    if (messages_.size() > 1) return nullptr;
    moved_ = absl::Now();
    return &messages_.front().message;
  }

  // For a message and the bytes that it is sent as.
  absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> TakeRoom(size_t bytes) {
    return call_->context().memory->Take(2 * static_cast<int64_t>(bytes));
  }

  // How long the client may take for the message in flight.
  absl::Time Patience() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return std::min(moved_ + call_->stall_timeout(), flushed_by_);
  }

  // OK while more can be written. A write that failed says that the client left, often before the
  // transport does.
  absl::Status WhyNoMore() {
    bool broken;
    {
      absl::MutexLock lock(&mutex_);
      broken = broken_;
    }
    if (broken) call_->ClientGone();
    return call_->context().Why();
  }

  bool Stopped() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return broken_ || call_->context().cancellation.cancelled();
  }

  // Waits for `condition`; false when no write ended for the stall timeout.
  template <typename Condition>
  bool AwaitMoving(Condition condition) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (!condition()) {
      const uint64_t written = written_;
      const auto moved = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return condition() || written_ != written;
      };
      if (!mutex_.AwaitWithTimeout(absl::Condition(&moved), call_->stall_timeout())) return false;
    }
    return true;
  }

  // Makes waiters look at the cancellation: absl::Mutex evaluates conditions when it is unlocked.
  void Wake() { absl::MutexLock lock(&mutex_); }

  Call* const call_;
  WriteTransport<Response>* const transport_;
  absl::Mutex mutex_;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // nothing more can be written
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;  // nothing more is written but what is in it
  absl::Time flushed_by_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  uint64_t written_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time moved_ ABSL_GUARDED_BY(mutex_) = absl::Now();  // last start or end of a write
  std::optional<Response> heartbeat_ ABSL_GUARDED_BY(mutex_);
  // The front is in flight. A deque keeps its elements where they are while others come and go.
  std::deque<Waiting> messages_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_OUTBOX_H_
