// The transport and the client of one call, as gRPC's callback API promises them, without gRPC:
// reactions come from other threads, one write and one read are in flight at most, cancelling ends
// both, and the call is done once it was finished and every reaction has returned.
#ifndef VALUESCOPE_TESTS_RPC_FAKE_STREAM_H_
#define VALUESCOPE_TESTS_RPC_FAKE_STREAM_H_

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "rpc/alarm_clock.h"
#include "rpc/call.h"
#include "rpc/inbox.h"
#include "rpc/outbox.h"
#include "rpc/worker_pool.h"

namespace valuescope::rpc {

struct FakeMessage {
  int64_t id = 0;
  size_t size = 1;
  size_t ByteSizeLong() const { return size; }
};

class FakeStream : public Peer,
                   public WriteTransport<FakeMessage>,
                   public ReadTransport<FakeMessage> {
 public:
  // Reactions run on `threads`, which outlives the stream.
  FakeStream(CallRuntime* runtime, WorkerPool* threads, absl::Time deadline)
      : threads_(threads), deadline_(deadline), call_(runtime, &method_, this) {}
  ~FakeStream() override { WaitUntilDone().IgnoreError(); }

  Call& call() { return call_; }
  Outbox<FakeMessage>& outbox() { return outbox_; }
  Inbox<FakeMessage>& inbox() { return inbox_; }

  // The call's request takes `request_bytes`.
  void Start(std::function<absl::Status()> handler, int64_t request_bytes = 0) {
    absl::Status admitted = call_.Enter();
    if (admitted.ok()) admitted = call_.context().Hold(request_bytes);
    if (!admitted.ok()) return call_.Refuse(admitted);
    pulse_.RingAt(absl::Now() + call_.heartbeat());
    call_.Start(std::move(handler), [this] {
      pulse_.Cancel();
      outbox_.Flush();
    });
  }
  // `step` as in Call::StartWaiting.
  void StartWaiting(std::function<std::optional<absl::Status>()> step) {
    method_.lane = Lane::kWaiting;
    if (const absl::Status entered = call_.Enter(); !entered.ok()) return call_.Refuse(entered);
    call_.StartWaiting(std::move(step));
  }

  // --- The client ---

  // Takes the message in flight, waiting for one; nullopt once the call is over.
  std::optional<FakeMessage> Take() {
    absl::MutexLock lock(&mutex_);
    const auto ready = [this] { return writing_ != nullptr || finished_; };
    mutex_.Await(absl::Condition(&ready));
    if (writing_ == nullptr) return std::nullopt;
    const FakeMessage message = *writing_;
    EndWrite(/*ok=*/true);
    return message;
  }
  std::vector<int64_t> TakeAll() {
    std::vector<int64_t> ids;
    while (const std::optional<FakeMessage> message = Take()) ids.push_back(message->id);
    return ids;
  }
  // Sends a message, or with nullopt ends its stream.
  void Send(std::optional<FakeMessage> message) {
    absl::MutexLock lock(&mutex_);
    sent_.push_back(message);
    Deliver();
  }
  void Cancel() {
    absl::MutexLock lock(&mutex_);
    CancelLocked();
  }
  // The connection is gone: what is in flight fails, and nobody says that the call is cancelled.
  void Cut() {
    absl::MutexLock lock(&mutex_);
    cut_ = true;
    EndBoth();
  }

  // --- What came of it ---

  void WaitUntilWriting() {
    absl::MutexLock lock(&mutex_);
    const auto writing = [this] { return writing_ != nullptr; };
    mutex_.Await(absl::Condition(&writing));
  }
  void WaitUntilReading() {
    absl::MutexLock lock(&mutex_);
    const auto reading = [this] { return reading_; };
    mutex_.Await(absl::Condition(&reading));
  }
  // gRPC's OnDone; the call's status.
  absl::Status WaitUntilDone() {
    absl::MutexLock lock(&mutex_);
    const auto done = [this] {
      return finished_ && reactions_ == 0 && writing_ == nullptr && !reading_;
    };
    mutex_.Await(absl::Condition(&done));
    return status_;
  }
  int started_writes() {
    absl::MutexLock lock(&mutex_);
    return started_writes_;
  }
  bool server_cancelled() {
    absl::MutexLock lock(&mutex_);
    return server_cancelled_;
  }

  // --- Peer and transports ---

  CallMetadata metadata() const override { return {}; }
  std::optional<std::string> certificate_uri() const override { return std::nullopt; }
  absl::Time deadline() const override { return deadline_; }
  void AddInitialMetadata(const std::string&, const std::string&) override {}
  void AddTrailingMetadata(const std::string&, const std::string&) override {}

  void TryCancel() override {
    absl::MutexLock lock(&mutex_);
    server_cancelled_ = true;
    CancelLocked();
  }

  void Finish(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    EXPECT_FALSE(finished_) << "finished twice";
    EXPECT_EQ(writing_, nullptr) << "finished over a write in flight";
    finished_ = true;
    status_ = status;
    if (reading_) EndRead(std::nullopt);
  }

  void StartWrite(const FakeMessage* message) override {
    absl::MutexLock lock(&mutex_);
    EXPECT_EQ(writing_, nullptr) << "two writes in flight";
    EXPECT_FALSE(finished_) << "a write after the end";
    ++started_writes_;
    writing_ = message;
    if (cancelled_ || cut_) EndWrite(/*ok=*/false);
  }

  void StartRead() override {
    absl::MutexLock lock(&mutex_);
    EXPECT_FALSE(reading_) << "two reads in flight";
    EXPECT_FALSE(finished_) << "a read after the end";
    reading_ = true;
    Deliver();
  }

  absl::Status TakeMessage(FakeMessage& message) override {
    message = read_;
    return absl::OkStatus();
  }

 private:
  void React(std::function<void()> reaction) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ++reactions_;
    std::function<void()> work = [this, reaction = std::move(reaction)] {
      reaction();
      absl::MutexLock lock(&mutex_);
      --reactions_;
    };
    ASSERT_TRUE(threads_->TrySubmit(work));
  }
  void EndWrite(bool ok) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = nullptr;
    React([this, ok] { outbox_.OnWriteDone(ok); });
  }
  // The message is filled in by the thread that reacts, as a decoder does.
  void EndRead(std::optional<FakeMessage> message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    reading_ = false;
    React([this, message] {
      if (message) read_ = *message;
      inbox_.OnReadDone(message.has_value());
    });
  }
  void EndBoth() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ != nullptr) EndWrite(/*ok=*/false);
    if (reading_) EndRead(std::nullopt);
  }
  void CancelLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (cancelled_ || finished_) return;
    cancelled_ = true;
    EndBoth();
    React([this] { call_.ClientGone(); });
  }
  void Deliver() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!reading_) return;
    if (cancelled_ || cut_) {
      EndRead(std::nullopt);
    } else if (!sent_.empty()) {
      const std::optional<FakeMessage> message = sent_.front();
      sent_.pop_front();
      EndRead(message);
    }
  }

  WorkerPool* const threads_;
  const absl::Time deadline_;
  Method method_ = {.name = "FakeService.Stream", .lane = Lane::kLong};
  absl::Mutex mutex_;
  const FakeMessage* writing_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  FakeMessage read_;  // written by the reaction that tells of it
  std::deque<std::optional<FakeMessage>> sent_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool cut_ ABSL_GUARDED_BY(mutex_) = false;
  bool server_cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int started_writes_ ABSL_GUARDED_BY(mutex_) = 0;
  int reactions_ ABSL_GUARDED_BY(mutex_) = 0;  // that have not returned
  Call call_;
  Outbox<FakeMessage> outbox_{&call_, this};
  Inbox<FakeMessage> inbox_{&call_, this};
  Alarm pulse_{call_.clock(), [this] { return outbox_.Pulse(); }};
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_TESTS_RPC_FAKE_STREAM_H_
