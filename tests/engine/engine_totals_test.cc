// What an engine counts, held against what the model was really given.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/error.h"
#include "tests/engine/engine_harness.h"
#include "tests/engine/fake_transformer.h"

namespace valuescope::engine {
namespace {

constexpr int64_t kPrompt = 40;  // tokens of every request here

std::vector<int32_t> Prompt(int32_t seed) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < kPrompt; ++i) ids.push_back(3 + (seed * 31 + i * 7) % 90);
  return ids;
}

Request Endless(int32_t seed) {
  Request request = Generation(Prompt(seed), 80);
  request.sampling->ignore_eos = true;
  return request;
}

int64_t Tokens(Recorder& recorder) {
  int64_t tokens = 0;
  for (const Delta& delta : recorder.deltas()) {
    tokens += static_cast<int64_t>(delta.token_ids.size());
  }
  return tokens;
}

// An engine whose step number kHeld waits until it is let go on, and may then fail.
class EngineTotalsTest : public testing::Test {
 protected:
  static constexpr int64_t kHeld = 10;

  void Start(int max_batch_rows) {
    engine_ = StartFake({.threads = 1,
                         .kv_cache_bytes = 1 << 16,
                         .max_batch_rows = max_batch_rows,
                         .max_step_tokens = 16,
                         .usage = &usage_},
                        [this](const model::StepBatch& batch) { BeforeStep(batch); });
  }

  void BeforeStep(const model::StepBatch& batch) {
    if (++steps_ == kHeld) {
      held_.Notify();
      go_on_.WaitForNotification();
      if (fails_) throw std::runtime_error("of an operator");
    }
    const auto* positions = batch.positions.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < batch.positions.numel(); ++i) {
      prompt_tokens_ += positions[i] < kPrompt ? 1 : 0;
    }
  }

  std::shared_ptr<Recorder> Run(Request request) {
    auto recorder = std::make_shared<Recorder>();
    auto running = engine_->Submit(std::move(request), recorder);
    EXPECT_TRUE(running.ok()) << running.status();
    if (running.ok()) running_ = *std::move(running);
    return recorder;
  }

  int64_t steps_ = 0;                       // the engine's thread alone
  absl::Notification held_;                 // the step is reached
  absl::Notification go_on_;                // from the step that is held
  std::atomic<bool> fails_ = false;         // that step
  std::atomic<int64_t> prompt_tokens_ = 0;  // as the model was given them
  UsageTally usage_;
  std::unique_ptr<Running> running_;  // what was submitted last
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTotalsTest, WhatRanForACancelledRequestCounts) {
  Start(2);
  const auto recorder = Run(Endless(1));
  held_.WaitForNotification();
  running_->Cancel();
  go_on_.Notify();
  EXPECT_EQ(recorder->Await().status().code(), absl::StatusCode::kCancelled);
  const EngineTotals totals = engine_->statistics();
  EXPECT_EQ(totals.prompt_tokens, kPrompt);
  // The prompt takes three steps of 16 tokens, of which the last gives a token; then one a step.
  EXPECT_EQ(totals.generated_tokens, kHeld - 2);
  EXPECT_EQ(totals.prompt_step_tokens, kPrompt);
  EXPECT_GT(totals.prompt_step_time, absl::ZeroDuration());
  EXPECT_EQ(totals.generated_tokens, Tokens(*recorder));
}

TEST_F(EngineTotalsTest, AStepThatFailsHasRunNothingAndThoseBeforeItCount) {
  Start(2);
  const auto recorder = Run(Endless(1));
  fails_ = true;
  go_on_.Notify();
  EXPECT_EQ(recorder->Await().status().code(), absl::StatusCode::kInternal);
  const EngineTotals totals = engine_->statistics();
  EXPECT_EQ(totals.steps, kHeld - 1);
  EXPECT_EQ(totals.prompt_tokens, kPrompt);
  EXPECT_EQ(totals.generated_tokens, kHeld - 3);
  EXPECT_EQ(totals.generated_tokens, Tokens(*recorder));
}

TEST_F(EngineTotalsTest, PromptTokensFromTheCacheCountApart) {
  Start(2);
  go_on_.Notify();
  EXPECT_TRUE(Run(Generation(Prompt(1), 1))->Await().ok());
  const EngineTotals before = engine_->statistics();
  EXPECT_EQ(before.prompt_tokens, kPrompt);
  const auto again = Run(Generation(Prompt(1), 1))->Await();
  ASSERT_TRUE(again.ok());
  ASSERT_GT(again->cached_prompt_tokens, 0);
  const EngineTotals after = engine_->statistics();
  EXPECT_EQ(after.prefix_hit_tokens, again->cached_prompt_tokens);
  EXPECT_EQ(after.prompt_tokens - before.prompt_tokens, kPrompt - again->cached_prompt_tokens);
}

TEST_F(EngineTotalsTest, WhatRunsAgainAfterARequestGaveWayCountsAgain) {
  Start(/*max_batch_rows=*/1);
  Request job = Endless(1);
  job.background = true;
  const auto background = Run(std::move(job));
  held_.WaitForNotification();
  const auto person = Run(Generation(Prompt(2), 2));
  go_on_.Notify();
  EXPECT_TRUE(person->Await().ok());
  EXPECT_TRUE(background->Await().ok());
  const EngineTotals totals = engine_->statistics();
  EXPECT_EQ(totals.preemptions, 1);
  EXPECT_EQ(totals.prompt_tokens, prompt_tokens_);
  EXPECT_GT(totals.prompt_tokens + totals.prefix_hit_tokens, 2 * kPrompt);
  // Tokens are sampled once, however often they are run.
  EXPECT_EQ(totals.generated_tokens, 80 + 2);
}

TEST_F(EngineTotalsTest, WhatATenantUsedCountsOnceWhateverBecameOfItsRequests) {
  Start(/*max_batch_rows=*/1);
  Request job = Endless(1);
  job.background = true;
  job.tenant = "job";
  const auto background = Run(std::move(job));
  held_.WaitForNotification();
  Request asked = Generation(Prompt(2), 2);
  asked.tenant = "person";
  const auto person = Run(std::move(asked));
  go_on_.Notify();
  EXPECT_TRUE(person->Await().ok());
  EXPECT_TRUE(background->Await().ok());
  Request again = Generation(Prompt(2), 1);
  again.tenant = "person";
  const auto cached = Run(std::move(again))->Await();
  ASSERT_TRUE(cached.ok());
  EXPECT_GT(cached->cached_prompt_tokens, 0) << "which count too";
  const UsageByTenant expected = {
      {"job", {.prompt_tokens = kPrompt, .generated_tokens = 80}},
      {"person", {.prompt_tokens = 2 * kPrompt, .generated_tokens = 3}}};
  EXPECT_EQ(usage_.Take(), expected);
  EXPECT_TRUE(usage_.Take().empty());
}

TEST_F(EngineTotalsTest, OfARequestThatIsCancelledWhatItHadByThenIsUsed) {
  Start(2);
  const auto recorder = Run(Endless(1));
  held_.WaitForNotification();
  running_->Cancel();
  go_on_.Notify();
  EXPECT_FALSE(recorder->Await().ok());
  const UsageByTenant expected = {
      {"default", {.prompt_tokens = kPrompt, .generated_tokens = kHeld - 2}}};
  EXPECT_EQ(usage_.Take(), expected);
}

TEST(KeptCapturesTest, AreCountedLikeThoseOfRequestsAndTakeHalfOfTheMemoryAtMost) {
  const auto engine = StartFake({.threads = 1,
                                 .kv_cache_bytes = 1 << 16,
                                 .max_batch_rows = 1,
                                 .max_step_tokens = 16,
                                 .capture_memory_bytes = 1000});
  const auto refusal = [&engine](int64_t bytes) {
    return DetailsOf(engine->KeepCaptures(bytes).status());
  };
  EXPECT_EQ(refusal(501).reason, "CAPTURES_TOO_LARGE");
  EXPECT_FALSE(refusal(501).retry_after.has_value());
  {
    const auto kept = engine->KeepCaptures(400);
    ASSERT_TRUE(kept.ok()) << kept.status();
    EXPECT_EQ(engine->statistics().capture_memory_bytes, 400);
    EXPECT_EQ(refusal(101).reason, "CAPTURE_MEMORY_FULL");
    EXPECT_TRUE(refusal(101).retry_after.has_value());
    EXPECT_EQ(engine->statistics().capture_memory_bytes, 400);
    EXPECT_TRUE(engine->KeepCaptures(100).ok());
  }
  EXPECT_EQ(engine->statistics().capture_memory_bytes, 0);
  EXPECT_TRUE(engine->KeepCaptures(500).ok());
}

}  // namespace
}  // namespace valuescope::engine
