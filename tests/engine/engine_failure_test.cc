// What an engine does when a step fails or does not end.
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "tests/engine/engine_harness.h"
#include "tests/engine/fake_transformer.h"

namespace valuescope::engine {
namespace {

// Throws what it was armed with, once.
class Fault {
 public:
  using Throw = void (*)();

  void Arm(Throw fault) {
    absl::MutexLock lock(&mutex_);
    fault_ = fault;
  }
  void Strike() {
    Throw fault = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      std::swap(fault, fault_);
    }
    if (fault != nullptr) fault();
  }

 private:
  absl::Mutex mutex_;
  Throw fault_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

class EngineFailure : public testing::Test {
 protected:
  std::unique_ptr<Engine> Start(std::function<void()> before_step) {
    return StartFake({.threads = 1,
                      .kv_cache_bytes = 1 << 16,
                      .max_batch_rows = 2,
                      .max_step_tokens = 16,
                      .max_waiting = 6},
                     [before_step](const model::StepBatch&) { before_step(); });
  }
  std::unique_ptr<Engine> StartFaulty() {
    return Start([this] { fault_.Strike(); });
  }

  static std::vector<std::shared_ptr<Recorder>> Submit(Engine& engine, int count) {
    std::vector<std::shared_ptr<Recorder>> recorders;
    for (int i = 0; i < count; ++i) {
      Request request = Generation({3 + i, 40, 50}, 60);
      request.sampling->ignore_eos = true;
      recorders.push_back(std::make_shared<Recorder>());
      const auto running = engine.Submit(std::move(request), recorders.back());
      EXPECT_TRUE(running.ok()) << running.status();
    }
    return recorders;
  }

  static absl::Status OneAfterwards(Engine& engine) {
    auto recorder = std::make_shared<Recorder>();
    const auto running = engine.Submit(Generation({5, 6, 7}, 3), recorder);
    return running.ok() ? recorder->Await().status() : running.status();
  }

  static bool Empty(const Engine& engine) {
    const EngineStatistics now = engine.statistics();
    return now.running == 0 && now.waiting == 0 && now.cache_used_ratio == 0;
  }

  Fault fault_;
};

TEST_F(EngineFailure, AnOperatorThatThrowsEndsItsStepsRequestsAndTheNextOnesAreServed) {
  const auto engine = StartFaulty();
  fault_.Arm([] { throw std::runtime_error("of an operator"); });
  const auto recorder = Submit(*engine, 1)[0];
  const absl::Status status = recorder->Await().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(DetailsOf(status).reason, "STEP_FAILED");
  EXPECT_EQ(status.message().find("of an operator"), absl::string_view::npos);
  EXPECT_TRUE(OneAfterwards(*engine).ok());
  EXPECT_TRUE(Becomes([&] { return Empty(*engine); }));
  EXPECT_FALSE(engine->statistics().device_failed);
}

TEST_F(EngineFailure, ThoseThatWaitedWhenAStepFailedAreServed) {
  absl::Notification all_submitted;
  const auto engine = Start([&] {
    all_submitted.WaitForNotification();
    fault_.Strike();
  });
  fault_.Arm([] { throw std::runtime_error("of an operator"); });
  const auto recorders = Submit(*engine, 4);
  all_submitted.Notify();
  int served = 0, failed = 0;
  for (const auto& recorder : recorders) {
    const absl::Status status = recorder->Await().status();
    served += static_cast<int>(status.ok());
    failed += static_cast<int>(DetailsOf(status).reason == "STEP_FAILED");
  }
  EXPECT_GE(failed, 1);
  EXPECT_GE(served, 2);  // a step has room for two
  EXPECT_EQ(served + failed, 4);
}

TEST_F(EngineFailure, ADeviceWithoutMemoryRefusesTheStepsRequestsAndGoesOn) {
  const auto engine = StartFaulty();
  fault_.Arm([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "no memory"); });
  const absl::Status status = Submit(*engine, 1)[0]->Await().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(status).reason, "DEVICE_OUT_OF_MEMORY");
  EXPECT_TRUE(OneAfterwards(*engine).ok());
}

TEST_F(EngineFailure, ADeviceThatFailedServesNobodyAnyMoreAndKeepsNobodyWaiting) {
  absl::Notification all_submitted;
  auto engine = Start([&] {
    all_submitted.WaitForNotification();
    fault_.Strike();
  });
  fault_.Arm([] { throw c10::AcceleratorError({"kernel", "file", 1}, 700, "illegal address"); });
  const auto recorders = Submit(*engine, 4);
  all_submitted.Notify();
  for (const auto& recorder : recorders) {
    const absl::Status status = recorder->Await().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(DetailsOf(status).reason, "DEVICE_FAILED");
  }
  EXPECT_TRUE(Becomes([&] { return engine->statistics().device_failed; }));
  EXPECT_EQ(DetailsOf(OneAfterwards(*engine)).reason, "DEVICE_FAILED");
  EXPECT_EQ(engine->statistics().step_began, absl::InfiniteFuture());
  EXPECT_TRUE(Empty(*engine));
  engine->Drain(absl::InfiniteFuture());
}

TEST_F(EngineFailure, AStepTellsSinceWhenItRunsAndAnIdleEngineThatNoneDoes) {
  absl::Notification stuck, go_on;
  const auto engine = Start([&] {
    if (!stuck.HasBeenNotified()) stuck.Notify();
    go_on.WaitForNotification();
  });
  EXPECT_TRUE(Becomes([&] { return engine->statistics().step_began == absl::InfiniteFuture(); }));
  const absl::Time before = absl::Now();
  const auto recorder = Submit(*engine, 1)[0];
  stuck.WaitForNotification();
  const absl::Time began = engine->statistics().step_began;
  EXPECT_GE(began, before);
  EXPECT_LE(began, absl::Now());
  EXPECT_EQ(engine->statistics().step_began, began);
  go_on.Notify();
  EXPECT_TRUE(recorder->Await().ok());
  EXPECT_TRUE(Becomes([&] { return engine->statistics().step_began == absl::InfiniteFuture(); }));
}

// Two different ways in which its tokens are steered: before and behind the end of the prompt.
Request SteeredTwice(float value = 1) {
  Request request = Generation({3, 40, 50}, 60);
  request.sampling->ignore_eos = true;
  for (const TokenKind kind : {TokenKind::kPrompt, TokenKind::kResponse}) {
    value += kind == TokenKind::kResponse;
    const auto row = std::make_shared<const std::vector<float>>(4, value);
    request.interventions.push_back({.site = model::Site::kResidualPost,
                                     .layers = {0},
                                     .tokens = {.kind = kind, .positions = {}},
                                     .operation = AddVector{.rows = row, .coefficient = 1}});
  }
  return request;
}

// Of a request with two rows: a table of four rows of four numbers; row 0 is nothing and the last
// nobody's.
constexpr int64_t kTableOfTwo = 4 * (4 * 4 + 1);

TEST_F(EngineFailure, WhoFindsTheInterventionTablesFullWaitsForThemAndOthersGoOn) {
  absl::Notification all;
  const auto engine = StartFake({.threads = 1,
                                 .kv_cache_bytes = 1 << 16,
                                 .max_batch_rows = 4,
                                 .max_step_tokens = 16,
                                 .intervention_memory_bytes = kTableOfTwo + 64},
                                [&](const model::StepBatch&) { all.WaitForNotification(); });
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<std::unique_ptr<Running>> running;
  const auto submit = [&](Request request) {
    recorders.push_back(std::make_shared<Recorder>());
    auto one = engine->Submit(std::move(request), recorders.back());
    ASSERT_TRUE(one.ok()) << one.status();
    running.push_back(*std::move(one));
  };
  submit(SteeredTwice(1));
  submit(SteeredTwice(10));  // finds no room beside the first
  submit(SteeredTwice(20));
  Request plain = Generation({3, 40, 50}, 8);
  plain.sampling->ignore_eos = true;
  submit(std::move(plain));
  all.Notify();
  ASSERT_TRUE(recorders[3]->Await().ok());
  for (const auto& recorder : recorders) {
    const auto completion = recorder->Await();
    EXPECT_TRUE(completion.ok()) << completion.status();
  }
  EXPECT_TRUE(Becomes([&] { return engine->statistics().intervention_bytes == 0; }));
  EXPECT_LE(engine->statistics().distinct_rows_max, 2);
}

TEST_F(EngineFailure, CompletionsOfOneCallShareTheirRows) {
  const auto engine = StartFake({.threads = 1,
                                 .kv_cache_bytes = 1 << 20,
                                 .max_batch_rows = 64,
                                 .max_step_tokens = 64,
                                 .intervention_memory_bytes = kTableOfTwo},
                                [](const model::StepBatch&) {});
  Request request = SteeredTwice();
  request.prepared = *engine->Prepare(std::exchange(request.interventions, {}));
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (int i = 0; i < 64; ++i) {
    recorders.push_back(std::make_shared<Recorder>());
    const auto running = engine->Submit(request, recorders.back());
    ASSERT_TRUE(running.ok()) << running.status();
  }
  for (const auto& recorder : recorders) EXPECT_TRUE(recorder->Await().ok());
}

TEST_F(EngineFailure, WhatRequestsHoldIsBoundedAndGivenBack) {
  absl::Notification go_on;
  const auto engine = StartFake({.threads = 1,
                                 .kv_cache_bytes = 1 << 16,
                                 .max_batch_rows = 2,
                                 .max_step_tokens = 16,
                                 .request_memory_bytes = 1 << 16},
                                [&](const model::StepBatch&) { go_on.WaitForNotification(); });
  Request request = Generation({3, 40, 50}, 60);
  request.sampling->ignore_eos = true;
  absl::Status refused;
  std::vector<std::shared_ptr<Recorder>> recorders;
  while (refused.ok() && recorders.size() < 1000) {
    recorders.push_back(std::make_shared<Recorder>());
    refused = engine->Submit(request, recorders.back()).status();
  }
  recorders.pop_back();
  EXPECT_EQ(DetailsOf(refused).reason, "REQUEST_MEMORY_FULL") << refused;
  EXPECT_TRUE(DetailsOf(refused).retry_after.has_value());
  EXPECT_GT(recorders.size(), 1u);
  EXPECT_LE(engine->statistics().request_memory_bytes, 1 << 16);
  go_on.Notify();
  for (const auto& recorder : recorders) EXPECT_TRUE(recorder->Await().ok());
  EXPECT_TRUE(Becomes([&] { return engine->statistics().request_memory_bytes == 0; }));
  const absl::Status never = engine->TakeRequestMemory((1 << 16) + 1).status();
  EXPECT_EQ(DetailsOf(never).reason, "REQUEST_TOO_LARGE");
  EXPECT_FALSE(DetailsOf(never).retry_after.has_value());
}

TEST_F(EngineFailure, WhatRequestsHoldIsAPartOfTheirPlacesMemory) {
  MemoryLedger host(1 << 20), device(1 << 20);
  absl::Notification go_on;
  const auto engine = StartFake({.threads = 1,
                                 .kv_cache_bytes = 1 << 16,
                                 .max_batch_rows = 2,
                                 .max_step_tokens = 16,
                                 .host_memory = &host,
                                 .device_memory = &device},
                                [&](const model::StepBatch&) { go_on.WaitForNotification(); });
  Request request = SteeredTwice();
  request.taps = {{.site = model::Site::kResidualPost, .layers = {0}}};
  const auto recorder = std::make_shared<Recorder>();
  ASSERT_TRUE(engine->Submit(request, recorder).ok());
  EXPECT_TRUE(Becomes([&] { return engine->statistics().batch_rows > 0 || device.used() > 0; }));
  const EngineStatistics running = engine->statistics();
  EXPECT_GT(running.request_memory_bytes, 0);
  EXPECT_GT(running.capture_memory_bytes, 0);
  EXPECT_EQ(host.used(), running.request_memory_bytes + running.capture_memory_bytes);
  EXPECT_GT(device.used(), 0);
  // What the host lends to others is not there for requests, whatever their own bound is.
  auto others = *host.Take((1 << 20) - host.used());
  const absl::Status refused = engine->Submit(request, std::make_shared<Recorder>()).status();
  EXPECT_EQ(DetailsOf(refused).reason, "REQUEST_MEMORY_FULL") << refused;
  EXPECT_TRUE(DetailsOf(refused).retry_after.has_value());
  others = nullptr;
  go_on.Notify();
  EXPECT_TRUE(recorder->Await().ok());
  recorder->Forget();
  EXPECT_TRUE(Becomes([&] { return host.used() == 0 && device.used() == 0; }));
}

// It may be a long time until there is, and nobody of this engine makes it.
TEST_F(EngineFailure, WhoSteersWhereTheDeviceHasNoMemoryHearsItAndOthersGoOn) {
  MemoryLedger device(kTableOfTwo);
  const auto engine = StartFake({.threads = 1,
                                 .kv_cache_bytes = 1 << 16,
                                 .max_batch_rows = 2,
                                 .max_step_tokens = 16,
                                 .device_memory = &device},
                                [](const model::StepBatch&) {});
  auto others = *device.Take(kTableOfTwo);
  const auto recorder = std::make_shared<Recorder>();
  ASSERT_TRUE(engine->Submit(SteeredTwice(), recorder).ok());
  const absl::Status refused = recorder->Await().status();
  EXPECT_EQ(DetailsOf(refused).reason, "INTERVENTION_MEMORY_FULL") << refused;
  EXPECT_TRUE(DetailsOf(refused).retry_after.has_value());
  EXPECT_TRUE(OneAfterwards(*engine).ok());
  others = nullptr;
  const auto again = std::make_shared<Recorder>();
  ASSERT_TRUE(engine->Submit(SteeredTwice(), again).ok());
  EXPECT_TRUE(again->Await().ok());
}

TEST_F(EngineFailure, InterventionsThatTheTablesCanNeverHoldNeverRun) {
  const auto engine = StartFake({.threads = 1,
                                 .kv_cache_bytes = 1 << 16,
                                 .max_batch_rows = 2,
                                 .max_step_tokens = 16,
                                 .intervention_memory_bytes = kTableOfTwo - 1},
                                [](const model::StepBatch&) {});
  const auto refused = engine->Submit(SteeredTwice(), std::make_shared<Recorder>()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(refused).reason, "INTERVENTIONS_TOO_LARGE");
  EXPECT_FALSE(DetailsOf(refused).retry_after.has_value());
  EXPECT_TRUE(OneAfterwards(*engine).ok());
}

}  // namespace
}  // namespace valuescope::engine
