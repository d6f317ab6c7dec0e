// A call's life and its streams where threads meet: handlers, reactions, cancels and drains beside
// each other, over a transport that keeps gRPC's promises and no others.
#include "rpc/call.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/tenant_policy.h"
#include "observability/log.h"
#include "tests/rpc/fake_stream.h"

namespace valuescope::rpc {
namespace {

constexpr absl::Duration kNever = absl::Hours(1);

class CallTest : public testing::Test {
 protected:
  CallTest() { observability::SetLogLevel(observability::LogLevel::kError); }

  void Open(CallRuntimeOptions options) {
    runtime_ = std::make_unique<CallRuntime>(&authenticator_, /*metrics=*/nullptr, options);
  }
  std::unique_ptr<FakeStream> NewStream(absl::Time deadline = absl::InfiniteFuture()) {
    if (runtime_ == nullptr) Open({.stall_timeout = kNever});
    return std::make_unique<FakeStream>(runtime_.get(), &reactions_, deadline);
  }

  static void WaitForStop(const CallContext& context) {
    absl::Notification stopped;
    StopCallback stop(&context, [&] { stopped.Notify(); });
    stopped.WaitForNotification();
  }
  // A handler that writes for as long as anybody reads.
  static absl::Status WriteOn(FakeStream& stream, size_t size = 1) {
    for (int64_t id = 0;; ++id) VS_RETURN_IF_ERROR(stream.outbox().Write({id, size}));
  }
  static absl::Status WriteSome(FakeStream& stream, int64_t count) {
    for (int64_t id = 0; id < count; ++id) VS_RETURN_IF_ERROR(stream.outbox().Write({id}));
    return absl::OkStatus();
  }
  static std::vector<int64_t> UpTo(int64_t count) {
    std::vector<int64_t> ids(count);
    std::iota(ids.begin(), ids.end(), 0);
    return ids;
  }

  OpenAuthenticator authenticator_;
  // As many as a machine may have; made before the runtime, whose threads use them.
  WorkerPool reactions_{{.max_threads = 3, .max_queued = 100'000}};
  std::unique_ptr<CallRuntime> runtime_;
};

TEST_F(CallTest, ATenantHasNoMoreCallsAtATimeThanItMay) {
  TenantPolicySource tenants;
  const auto allow = [&](int64_t calls) {
    TenantPolicies policies;
    policies.others.max_calls = calls;
    tenants.Set(policies);
  };
  allow(2);
  FakeClock clock;
  Open({.tenants = &tenants, .clock = &clock, .stall_timeout = kNever});
  absl::Notification release;
  const auto wait = [&] {
    release.WaitForNotification();
    return absl::OkStatus();
  };
  const auto begin = [&] {
    auto stream = NewStream();
    stream->Start(wait);
    return stream;
  };
  const auto first = begin(), second = begin(), third = begin();
  const ErrorDetails refused = DetailsOf(third->WaitUntilDone());
  EXPECT_EQ(refused.reason, "CALL_QUOTA");
  EXPECT_EQ(refused.retry_after, absl::Seconds(1));
  // Nothing has ended in all this time.
  clock.Advance(absl::Seconds(40));
  EXPECT_EQ(DetailsOf(begin()->WaitUntilDone()).retry_after, absl::Seconds(40));
  const auto watch = NewStream();
  watch->StartWaiting([] { return absl::OkStatus(); });
  EXPECT_TRUE(watch->WaitUntilDone().ok());
  allow(3);
  const auto fourth = begin();
  release.Notify();
  for (const auto* stream : {&first, &second, &fourth}) {
    EXPECT_TRUE((*stream)->WaitUntilDone().ok());
  }
  // Those that were answered count no longer, although nobody has taken them away.
  allow(1);
  const auto last = begin();
  EXPECT_TRUE(last->WaitUntilDone().ok());
}

TEST_F(CallTest, WhoMayNotRunModelsNowHearsOfADrainFirst) {
  Open({.may_run_models =
            [](const std::string& tenant) {
              return RetryLater("TOKEN_QUOTA", tenant, absl::Seconds(30));
            },
        .stall_timeout = kNever});
  EXPECT_EQ(DetailsOf(runtime_->CheckMayRunModels("lab")).reason, "TOKEN_QUOTA");
  runtime_->StopAccepting();
  EXPECT_EQ(DetailsOf(runtime_->CheckMayRunModels("lab")).reason, "DRAINING");
}

TEST_F(CallTest, WhatIsWrittenArrivesInOrderAndTheEndComesLast) {
  const auto stream = NewStream();
  stream->Start([&] { return WriteSome(*stream, 500); });
  EXPECT_EQ(stream->TakeAll(), UpTo(500));
  EXPECT_TRUE(stream->WaitUntilDone().ok());
}

TEST_F(CallTest, AnOutboxHoldsABoundedNumberOfMessagesAndBytes) {
  for (const size_t size : {size_t{1}, size_t{1} << 20, size_t{64} << 20}) {
    Open({.stall_timeout = absl::Milliseconds(50)});
    const auto stream = NewStream();
    std::atomic<int> written = 0;
    stream->Start([&]() -> absl::Status {
      while (true) {
        VS_RETURN_IF_ERROR(stream->outbox().Write({written, size}));
        ++written;
      }
    });
    EXPECT_EQ(DetailsOf(stream->WaitUntilDone()).reason, "STREAM_STALLED");
    EXPECT_TRUE(stream->server_cancelled());
    EXPECT_GE(written, 1);
    EXPECT_LE(written, static_cast<int>(kMaxOutboxMessages) + 1);
    EXPECT_LE(written, std::max<int>(1, static_cast<int>(kMaxOutboxBytes / size)));
  }
}

TEST_F(CallTest, ASlowReaderIsServedUntilItIsCutOff) {
  Open({.stall_timeout = absl::Milliseconds(200)});
  const auto stream = NewStream();
  stream->Start([&] { return WriteOn(*stream); });
  // Each message within the stall timeout, all of them beyond it.
  const absl::Time started = absl::Now();
  int64_t taken = 0;
  while (absl::Now() - started < absl::Milliseconds(500)) {
    const auto message = stream->Take();
    ASSERT_TRUE(message.has_value());
    EXPECT_EQ(message->id, taken++);
    absl::SleepFor(absl::Milliseconds(20));  // what makes it slow
  }
  stream->Cut();
  // Nothing says that the client left but the write that fails.
  EXPECT_EQ(stream->WaitUntilDone().code(), absl::StatusCode::kCancelled);
}

TEST_F(CallTest, NothingIsWrittenAfterAWriteFailed) {
  const auto stream = NewStream();
  absl::Notification written, cut;
  std::vector<absl::Status> statuses;
  stream->Start([&] {
    EXPECT_TRUE(stream->outbox().Write({0}).ok());
    EXPECT_TRUE(stream->outbox().Write({1}).ok());
    written.Notify();
    cut.WaitForNotification();
    // The failure is heard from another thread; from then on every write says it.
    while (statuses.empty() || statuses.back().ok()) {
      statuses.push_back(stream->outbox().Write({2}));
    }
    for (int i = 0; i < 3; ++i) statuses.push_back(stream->outbox().Write({3}));
    return statuses.back();
  });
  written.WaitForNotification();  // the first is in flight, and both were taken
  stream->Cut();
  cut.Notify();
  EXPECT_EQ(stream->WaitUntilDone().code(), absl::StatusCode::kCancelled);
  for (size_t i = statuses.size() - 3; i < statuses.size(); ++i) EXPECT_FALSE(statuses[i].ok());
  EXPECT_EQ(stream->started_writes(), 1);
}

TEST_F(CallTest, ADrainHandsOverWhatWasWrittenToAClientThatReads) {
  const auto stream = NewStream();
  absl::Notification written;
  stream->Start([&] {
    EXPECT_TRUE(WriteSome(*stream, 5).ok());
    written.Notify();
    WaitForStop(stream->call().context());
    return absl::CancelledError();
  });
  written.WaitForNotification();
  runtime_->StopAccepting();
  runtime_->StopRunning();
  EXPECT_EQ(stream->TakeAll(), UpTo(5));
  EXPECT_EQ(DetailsOf(stream->WaitUntilDone()).reason, "DRAINING");
}

TEST_F(CallTest, ADrainWaitsOnlyAMomentForAClientThatDoesNotRead) {
  const auto stream = NewStream();
  absl::Notification written;
  stream->Start([&] {
    EXPECT_TRUE(WriteSome(*stream, 5).ok());
    written.Notify();
    WaitForStop(stream->call().context());
    return absl::CancelledError();
  });
  written.WaitForNotification();
  runtime_->StopRunning();
  EXPECT_EQ(DetailsOf(stream->WaitUntilDone()).reason, "DRAINING");
  EXPECT_TRUE(stream->server_cancelled());
}

TEST_F(CallTest, AReaderThatStopsAfterTheLastWriteIsEndedByTheFlush) {
  Open({.stall_timeout = absl::Milliseconds(50)});
  const auto stream = NewStream();
  stream->Start([&] { return WriteSome(*stream, 5); });
  EXPECT_EQ(stream->Take()->id, 0);
  stream->WaitUntilDone().IgnoreError();  // the handler's, which had ended well
  EXPECT_TRUE(stream->server_cancelled());
  EXPECT_EQ(DetailsOf(stream->call().context().Why()).reason, "STREAM_STALLED");
}

TEST_F(CallTest, ACancelBesideAWriteEndsTheHandlerAndIsFinishedOnce) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const auto stream = NewStream();
    stream->Start([&] { return WriteOn(*stream); });
    const int taken = static_cast<int>(random() % 20);
    for (int i = 0; i < taken; ++i) ASSERT_TRUE(stream->Take().has_value());
    std::thread canceller([&] { stream->Cancel(); });
    const std::vector<int64_t> rest = stream->TakeAll();
    canceller.join();
    if (!rest.empty()) {
      EXPECT_EQ(rest.front(), taken);
    }
    EXPECT_EQ(stream->WaitUntilDone().code(), absl::StatusCode::kCancelled);
  }
}

TEST_F(CallTest, ARefusedCallIsFinishedOnceAndNeverRuns) {
  Open({.long_running = {.max_threads = 1, .max_queued = 0}, .stall_timeout = kNever});
  const auto running = NewStream();
  absl::Notification entered;
  running->Start([&] {
    entered.Notify();
    WaitForStop(running->call().context());
    return absl::CancelledError();
  });
  entered.WaitForNotification();
  const auto never = [] {
    ADD_FAILURE() << "a refused call ran";
    return absl::OkStatus();
  };
  const auto full = NewStream();
  full->Start(never);
  EXPECT_EQ(DetailsOf(full->WaitUntilDone()).reason, "QUEUE_FULL");
  runtime_->StopAccepting();
  const auto late = NewStream();
  late->Start(never);
  EXPECT_EQ(DetailsOf(late->WaitUntilDone()).reason, "DRAINING");
  running->Cancel();
}

TEST_F(CallTest, ACallThatEndedCountsForItsTenantHoweverItEnded) {
  UsageTally usage;
  Open({.usage = &usage, .stall_timeout = kNever});
  const auto good = NewStream();
  good->Start([] { return absl::OkStatus(); });
  EXPECT_TRUE(good->WaitUntilDone().ok());
  const auto bad = NewStream();
  bad->Start([] { return absl::InternalError("of the handler"); });
  EXPECT_FALSE(bad->WaitUntilDone().ok());
  runtime_->StopAccepting();
  const auto refused = NewStream();
  refused->Start([] { return absl::OkStatus(); });
  EXPECT_FALSE(refused->WaitUntilDone().ok());
  const UsageByTenant expected = {{"default", {.calls = 3}}};
  EXPECT_EQ(usage.Take(), expected);
}

TEST_F(CallTest, RequestsHoldABoundedNumberOfBytesUntilTheirCallsEnd) {
  Open({.call_bytes = 1000, .stall_timeout = kNever});
  const auto served = [] { return absl::OkStatus(); };
  {
    const auto running = NewStream();
    running->Start(
        [&] {
          WaitForStop(running->call().context());
          return absl::CancelledError();
        },
        600);
    const auto refused = NewStream(), fits = NewStream();
    refused->Start(served, 401);
    const absl::Status status = refused->WaitUntilDone();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(DetailsOf(status).reason, "REQUEST_MEMORY_FULL");
    EXPECT_TRUE(DetailsOf(status).retry_after.has_value());
    fits->Start(served, 400);
    EXPECT_TRUE(fits->WaitUntilDone().ok());
    running->Cancel();
  }
  // What is too much for one alone is no matter of time.
  const auto too_large = NewStream(), alone = NewStream();
  too_large->Start(served, 1001);
  const absl::Status status = too_large->WaitUntilDone();
  EXPECT_EQ(DetailsOf(status).reason, "REQUEST_TOO_LARGE");
  EXPECT_FALSE(DetailsOf(status).retry_after.has_value());
  alone->Start(served, 1000);
  EXPECT_TRUE(alone->WaitUntilDone().ok());
}

TEST_F(CallTest, ACallThatWasStoppedInTheQueueDoesNotRun) {
  Open({.long_running = {.max_threads = 1, .max_queued = 8}, .stall_timeout = kNever});
  const auto first = NewStream();
  absl::Notification entered, release;
  first->Start([&] {
    entered.Notify();
    release.WaitForNotification();
    return absl::OkStatus();
  });
  entered.WaitForNotification();
  const auto never = [] {
    ADD_FAILURE() << "a stopped call ran";
    return absl::OkStatus();
  };
  const auto cancelled = NewStream();
  cancelled->Start(never);
  cancelled->Cancel();
  WaitForStop(cancelled->call().context());
  const auto late = NewStream(absl::Now());
  late->Start(never);
  release.Notify();
  EXPECT_EQ(cancelled->WaitUntilDone().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(late->WaitUntilDone().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(CallTest, AnExceptionAfterAWriteStillFlushesAndFinishes) {
  const auto stream = NewStream();
  stream->Start([&]() -> absl::Status {
    EXPECT_TRUE(WriteSome(*stream, 3).ok());
    throw std::runtime_error("made for the test");
  });
  EXPECT_EQ(stream->TakeAll(), UpTo(3));
  EXPECT_EQ(stream->WaitUntilDone().code(), absl::StatusCode::kInternal);
}

// Reads to the end; the ids that came.
absl::StatusOr<std::vector<int64_t>> ReadAll(FakeStream& stream) {
  std::vector<int64_t> ids;
  while (true) {
    VS_ASSIGN_OR_RETURN(const std::optional<FakeMessage> message, stream.inbox().Read());
    if (!message) return ids;
    ids.push_back(message->id);
  }
}

TEST_F(CallTest, AnUploadIsReadInOrderToItsEnd) {
  const auto stream = NewStream();
  std::vector<int64_t> read;
  stream->Start([&]() -> absl::Status {
    VS_ASSIGN_OR_RETURN(read, ReadAll(*stream));
    EXPECT_FALSE((*stream->inbox().Read()).has_value());  // the end stays the end
    return absl::OkStatus();
  });
  for (int64_t id = 0; id < 200; ++id) stream->Send(FakeMessage{id});
  stream->Send(std::nullopt);
  EXPECT_TRUE(stream->WaitUntilDone().ok());
  EXPECT_EQ(read, UpTo(200));
}

TEST_F(CallTest, AnUploadThatStallsOrIsCancelledEndsItsReader) {
  Open({.stall_timeout = absl::Milliseconds(50)});
  auto idle = NewStream();
  idle->Start([&] { return ReadAll(*idle).status(); });
  EXPECT_EQ(DetailsOf(idle->WaitUntilDone()).reason, "STREAM_STALLED");
  idle.reset();
  Open({.stall_timeout = kNever});
  const auto cancelled = NewStream();
  cancelled->Start([&] {
    const absl::Status read = ReadAll(*cancelled).status();
    // The read may end before the call is known to be cancelled.
    WaitForStop(cancelled->call().context());
    return read.ok() ? absl::CancelledError() : read;
  });
  cancelled->WaitUntilReading();
  cancelled->Cancel();
  EXPECT_EQ(cancelled->WaitUntilDone().code(), absl::StatusCode::kCancelled);
}

constexpr int64_t kHeartbeat = -1;  // id of the message

TEST_F(CallTest, AStreamWithNothingToSayKeepsSayingSo) {
  Open({.stall_timeout = kNever, .heartbeat = absl::Milliseconds(5)});
  const auto stream = NewStream();
  stream->outbox().SetHeartbeat(FakeMessage{kHeartbeat});
  absl::Notification enough;
  stream->Start([&] {
    enough.WaitForNotification();
    return WriteSome(*stream, 3);
  });
  for (int i = 0; i < 4; ++i) EXPECT_EQ(stream->Take()->id, kHeartbeat);
  enough.Notify();
  std::vector<int64_t> rest = stream->TakeAll();
  std::erase(rest, kHeartbeat);
  EXPECT_EQ(rest, UpTo(3));
  EXPECT_TRUE(stream->WaitUntilDone().ok());
}

TEST_F(CallTest, HeartbeatsKeepNoStreamAliveWhoseClientTakesNothing) {
  Open({.stall_timeout = absl::Milliseconds(50), .heartbeat = absl::Milliseconds(5)});
  const auto stream = NewStream();
  stream->outbox().SetHeartbeat(FakeMessage{kHeartbeat});
  stream->Start([&] {
    WaitForStop(stream->call().context());
    return absl::CancelledError();
  });
  EXPECT_EQ(DetailsOf(stream->WaitUntilDone()).reason, "STREAM_STALLED");
  EXPECT_EQ(stream->started_writes(), 1);
}

// A call that waits until it is told to end.
struct WaitingCall {
  explicit WaitingCall(std::unique_ptr<FakeStream> its_stream) : stream(std::move(its_stream)) {
    stream->StartWaiting([this]() -> std::optional<absl::Status> {
      ++steps;
      if (const absl::Status why = stream->call().context().Why(); !why.ok()) return why;
      if (ended) return absl::OkStatus();
      rests.Notify();
      return std::nullopt;
    });
  }
  void End() {
    ended = true;
    stream->call().wake()();
  }

  std::atomic<bool> ended = false;
  std::atomic<int> steps = 0;
  struct {  // a notification that may come twice
    void Notify() {
      if (!told.exchange(true)) notification.Notify();
    }
    std::atomic<bool> told = false;
    absl::Notification notification;
  } rests;
  std::unique_ptr<FakeStream> stream;
};

TEST_F(CallTest, CallsThatWaitShareOneThreadAndOnlyTheWokenStep) {
  Open({.waiting_threads = 1, .stall_timeout = kNever});
  std::vector<std::unique_ptr<WaitingCall>> calls;
  for (int i = 0; i < 100; ++i) calls.push_back(std::make_unique<WaitingCall>(NewStream()));
  for (const auto& call : calls) call->rests.notification.WaitForNotification();
  calls[7]->End();
  EXPECT_TRUE(calls[7]->stream->WaitUntilDone().ok());
  for (size_t i = 0; i < calls.size(); ++i) EXPECT_EQ(calls[i]->steps, i == 7 ? 2 : 1);
  calls[7]->stream->call().wake()();  // too late, and nothing happens
  for (const auto& call : calls) call->End();
  for (const auto& call : calls) EXPECT_TRUE(call->stream->WaitUntilDone().ok());
}

TEST_F(CallTest, ACallThatWaitsIsEndedByItsClientAndByADrain) {
  WaitingCall left(NewStream());
  left.rests.notification.WaitForNotification();
  left.stream->Cancel();
  EXPECT_EQ(left.stream->WaitUntilDone().code(), absl::StatusCode::kCancelled);
  WaitingCall late(NewStream(absl::Now()));
  EXPECT_EQ(late.stream->WaitUntilDone().code(), absl::StatusCode::kDeadlineExceeded);
  WaitingCall drained(NewStream());
  drained.rests.notification.WaitForNotification();
  runtime_->StopAccepting();
  EXPECT_EQ(DetailsOf(drained.stream->WaitUntilDone()).reason, "DRAINING");
}

TEST_F(CallTest, TheLastPlacesOfCallsThatWaitAreForTenantsWithFew) {
  Open({.max_waiting_calls = 16, .stall_timeout = kNever});
  std::deque<CallContext> calls;
  const auto waits = [&](const std::string& tenant) {
    CallContext& call = calls.emplace_back();
    call.tenant = tenant;
    const bool entered = runtime_->Enter(&call, /*waits=*/true, /*bounded=*/false).ok();
    if (!entered) calls.pop_back();
    return entered;
  };
  for (int i = 0; i < 14; ++i) EXPECT_TRUE(waits("flood")) << i;
  EXPECT_FALSE(waits("flood"));
  EXPECT_TRUE(waits("guest"));
  EXPECT_FALSE(waits("guest"));
  EXPECT_TRUE(waits("other"));
  EXPECT_FALSE(waits("third"));
  runtime_->Leave(&calls.front());
  calls.pop_front();
  EXPECT_FALSE(waits("flood"));
  EXPECT_TRUE(waits("third"));
  for (CallContext& call : calls) runtime_->Leave(&call);
}

TEST_F(CallTest, MoreCallsThanMayWaitAreRefusedAndOthersGoOn) {
  Open({.max_waiting_calls = 2, .stall_timeout = kNever});
  WaitingCall first(NewStream()), second(NewStream());
  first.rests.notification.WaitForNotification();
  WaitingCall third(NewStream());
  const absl::Status refused = third.stream->WaitUntilDone();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(refused).reason, "TOO_MANY_WAITING_CALLS");
  EXPECT_TRUE(DetailsOf(refused).retry_after.has_value());
  EXPECT_EQ(third.steps, 0);
  const auto working = NewStream();
  working->Start([] { return absl::OkStatus(); });
  EXPECT_TRUE(working->WaitUntilDone().ok());
  first.End();
  EXPECT_TRUE(first.stream->WaitUntilDone().ok());
  first.stream.reset();  // and with it its place
  WaitingCall fourth(NewStream());
  fourth.rests.notification.WaitForNotification();
  fourth.End();
  second.End();
  EXPECT_TRUE(fourth.stream->WaitUntilDone().ok());
  EXPECT_TRUE(second.stream->WaitUntilDone().ok());
}

TEST_F(CallTest, WakesAndCancelsFromManyThreadsFinishEachWaitingCallOnce) {
  constexpr int kThreads = 4, kRounds = 50;
  for (int round = 0; round < kRounds; ++round) {
    WaitingCall call(NewStream());
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        for (int j = 0; j < 20; ++j) call.stream->call().wake()();
        if (i == 0) call.End();
        if (i == 1 && round % 2 == 0) call.stream->Cancel();
      });
    }
    for (std::thread& thread : threads) thread.join();
    const absl::Status ended = call.stream->WaitUntilDone();
    EXPECT_TRUE(ended.ok() || (round % 2 == 0 && absl::IsCancelled(ended))) << ended;
  }
}

// What one random client does to its call, and what may come of it.
void ActRandomly(FakeStream& stream, CallRuntime& runtime, uint32_t seed, int64_t messages) {
  std::mt19937 random(seed);
  const int end = static_cast<int>(random() % 4);
  const int64_t before = static_cast<int64_t>(random() % (messages + 5));
  int64_t taken = 0;
  for (; taken < before; ++taken) {
    const std::optional<FakeMessage> message = stream.Take();
    if (!message) break;
    EXPECT_EQ(message->id, taken);
    stream.Send(FakeMessage{taken});
    if (random() % 8 == 0) std::this_thread::yield();
  }
  if (end == 1) stream.Cancel();
  if (end == 2) stream.Cut();
  if (end == 3) runtime.StopRunning();  // everybody's
  while (const std::optional<FakeMessage> message = stream.Take()) {
    EXPECT_EQ(message->id, taken++);
    stream.Send(FakeMessage{taken});
  }
  const absl::Status status = stream.WaitUntilDone();
  EXPECT_LE(taken, messages);
  const bool left = end == 1 || end == 2;
  if (status.ok() && !left) {
    EXPECT_EQ(taken, messages);
  }
}

TEST_F(CallTest, RandomClientsOnManyThreadsLeaveEveryCallFinishedOnce) {
  Open({.long_running = {.max_threads = 8, .max_queued = 256}, .stall_timeout = kNever});
  constexpr int kClients = 6, kRounds = 40;
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&, client] {
      for (int round = 0; round < kRounds; ++round) {
        const uint32_t seed = client * kRounds + round;
        const int64_t messages = seed % 60;
        const auto stream = NewStream(seed % 5 == 0 ? absl::Now() + absl::Milliseconds(seed % 7)
                                                    : absl::InfiniteFuture());
        // What it reads back only races with the rest: it may be ended by any of it.
        stream->Start([&]() -> absl::Status {
          for (int64_t id = 0; id < messages; ++id) {
            VS_RETURN_IF_ERROR(stream->outbox().Write({id, 1 + seed % 3 * (size_t{1} << 20)}));
            if (id % 16 == 15) VS_RETURN_IF_ERROR(stream->inbox().Read().status());
          }
          return absl::OkStatus();
        });
        ActRandomly(*stream, *runtime_, seed, messages);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(runtime_->WaitUntilIdle(absl::Now() + absl::Seconds(20)));
}

}  // namespace
}  // namespace valuescope::rpc
