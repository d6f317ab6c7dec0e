// The engine's own thread beside those that submit, cancel, read statistics and drain, over a model
// that answers at once: every request that was taken ends exactly once and nothing stays behind.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "tests/engine/fake_transformer.h"

namespace valuescope::engine {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

class Recorder : public Observer {
 public:
  void OnDelta(const Delta&) override {
    absl::MutexLock lock(&mutex_);
    began_ = true;
  }
  void OnFinish(absl::StatusOr<Completion> completion) override {
    absl::MutexLock lock(&mutex_);
    ++finished_;
    code_ = completion.status().code();
    if (completion.ok()) tokens_ = completion->token_ids;
  }
  // Until it began or ended.
  void AwaitBeginning() {
    absl::MutexLock lock(&mutex_);
    const auto any = [this] { return began_ || finished_ > 0; };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&any), kPatience));
  }
  absl::StatusCode Await() {
    absl::MutexLock lock(&mutex_);
    const auto ended = [this] { return finished_ > 0; };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&ended), kPatience));
    EXPECT_EQ(finished_, 1);
    return code_;
  }
  std::vector<int32_t> tokens() {
    absl::MutexLock lock(&mutex_);
    return tokens_;
  }
  int finished() {
    absl::MutexLock lock(&mutex_);
    return finished_;
  }

 private:
  absl::Mutex mutex_;
  bool began_ ABSL_GUARDED_BY(mutex_) = false;
  int finished_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::StatusCode code_ ABSL_GUARDED_BY(mutex_) = absl::StatusCode::kUnknown;
  std::vector<int32_t> tokens_ ABSL_GUARDED_BY(mutex_);
};

class EngineThreads : public testing::Test {
 protected:
  void SetUp() override {
    engine_ = StartFake({.threads = 1,
                         .kv_cache_bytes = 1 << 16,
                         .max_batch_rows = 4,
                         .max_step_tokens = 16,
                         .max_waiting = 6});
    ASSERT_NE(engine_, nullptr);
  }

  static Request Random(std::mt19937& random) {
    Request request;
    request.client = random() % 4;
    request.background = random() % 4 == 0;
    for (size_t i = 1 + random() % 20; i > 0; --i) {
      request.prompt.push_back(static_cast<int32_t>(3 + random() % 90));
    }
    request.sampling = Sampling();
    request.sampling->temperature = 0;
    request.sampling->max_tokens = static_cast<int>(1 + random() % 40);
    request.sampling->ignore_eos = true;
    if (random() % 4 == 0) request.deadline = absl::Now() + absl::Microseconds(random() % 3000);
    return request;
  }

  // What a greedy generation of this request says.
  static std::vector<int32_t> Expected(const Request& request) {
    std::vector<int32_t> tokens;
    int32_t last = request.prompt.back();
    for (int i = 0; i < request.sampling->max_tokens; ++i) tokens.push_back(last = After(last));
    return tokens;
  }

  bool Empty() {
    const EngineStatistics now = engine_->statistics();
    return now.running == 0 && now.waiting == 0 && now.cache_used_ratio == 0 &&
           now.capture_memory_bytes == 0;
  }

  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineThreads, RequestsThatAreSubmittedAndCancelledFromManyThreadsLeaveNothing) {
  constexpr int kThreads = 6, kRequests = 80;
  std::atomic<int> taken = 0, whole = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(thread);
      for (int i = 0; i < kRequests; ++i) {
        const Request request = Random(random);
        const auto recorder = std::make_shared<Recorder>();
        auto running = engine_->Submit(request, recorder);
        if (!running.ok()) {
          EXPECT_EQ(DetailsOf(running.status()).reason, "QUEUE_FULL");
          EXPECT_TRUE(DetailsOf(running.status()).retry_after.has_value());
          EXPECT_EQ(recorder->finished(), 0);
          continue;
        }
        ++taken;
        const int end = static_cast<int>(random() % 4);
        if (end == 1) recorder->AwaitBeginning();
        std::thread canceller;
        if (end == 1 || end == 2) canceller = std::thread([&] { (*running)->Cancel(); });
        const absl::StatusCode code = recorder->Await();
        if (canceller.joinable()) canceller.join();
        if (code == absl::StatusCode::kOk) {
          ++whole;
          EXPECT_EQ(recorder->tokens(), Expected(request));
        } else if (code == absl::StatusCode::kCancelled) {
          EXPECT_TRUE(end == 1 || end == 2);
        } else {
          EXPECT_EQ(code, absl::StatusCode::kDeadlineExceeded);
          EXPECT_LT(request.deadline, absl::InfiniteFuture());
        }
        engine_->statistics();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(taken, 0);
  EXPECT_GT(whole, 0);
  const absl::Time until = absl::Now() + absl::Seconds(2);
  while (!Empty() && absl::Now() < until) std::this_thread::yield();
  EXPECT_TRUE(Empty());
}

TEST_F(EngineThreads, ADrainBesideSubmittersEndsEveryRequestThatWasTaken) {
  std::vector<std::thread> threads;
  std::atomic<int> taken = 0;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(100 + thread);
      while (true) {
        const auto recorder = std::make_shared<Recorder>();
        const auto running = engine_->Submit(Random(random), recorder);
        if (absl::IsUnavailable(running.status())) return;
        if (!running.ok()) continue;  // the queue is full
        ++taken;
        recorder->Await();
      }
    });
  }
  while (taken < 20) std::this_thread::yield();
  engine_->Drain(absl::Now());
  // A request that was taken and never ended would keep its thread.
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(taken, 20);
}

}  // namespace
}  // namespace valuescope::engine
