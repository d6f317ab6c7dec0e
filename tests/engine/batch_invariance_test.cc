// What a request gives does not depend on who runs beside it, on how its prompt is cut into steps,
// on whose blocks it found in the cache, or on how often it had to give way: the same bits, in
// float32 on a CPU, and elsewhere where batch invariance is asked for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "tests/engine/engine_harness.h"
#include "tests/model/test_device.h"

namespace valuescope::engine {
namespace {

using model::Site;

std::string FolderOf(const std::string& family) {
  return std::string(VALUESCOPE_SOURCE_DIR) + "/tests/golden/families/" + family;
}

// One thread: what is tested does not depend on it, and many small steps are faster so.
EngineOptions Options(int rows, int step_tokens, DType dtype = DType::kFloat32) {
  const std::string& device = model::TestDeviceName();
  return {.device = device,
          .dtype = dtype,
          .batch_invariant = dtype != DType::kFloat32 || device != "cpu",
          .threads = 1,
          .kv_cache_bytes = 32 << 20,
          .max_batch_rows = rows,
          .max_step_tokens = step_tokens};
}

// One of a few texts up to `length` tokens.
std::vector<int32_t> Text(int which, int64_t length) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < length; ++i) {
    ids.push_back(static_cast<int32_t>(6 + (i * i + 11 * i * which + 5 * which) % 80));
  }
  return ids;
}

// Requests of every kind, many of which begin alike, with interventions and taps of every scope.
class Mix {
 public:
  explicit Mix(const model::Architecture& architecture) : architecture_(architecture) {}

  std::vector<Request> Of(int count) {
    std::vector<Request> requests;
    for (int i = 0; i < count; ++i) requests.push_back(One(i));
    return requests;
  }

 private:
  int64_t Draw(int64_t lowest, int64_t highest) {
    return std::uniform_int_distribution<int64_t>(lowest, highest)(random_);
  }

  Request One(int i) {
    Request request;
    request.prompt = Text(static_cast<int>(Draw(0, 2)), Draw(1, 75));
    if (i % 4 == 3) {
      request.given_response = Text(3, Draw(1, 20));
      request.score_response = i % 8 == 3;
      request.top_logprobs = 2;
    } else {
      request.sampling = Sampling();
      request.sampling->max_tokens = static_cast<int>(Draw(2, 12));
      request.sampling->temperature = i % 2 == 0 ? 0.0f : 1.0f;
      request.sampling->repetition_penalty = i % 5 == 0 ? 1.2f : 1.0f;
      request.sampling->seed = static_cast<uint64_t>(i);
      request.sampling->ignore_eos = true;
      request.sampling->top_logprobs = 2;
      // Ends many answers early, in the middle of what taps read.
      if (i % 3 == 1) request.sampling->stop = {"a", "e", "o"};
    }
    if (i % 3 != 0) Steer(request, i);
    if (i % 5 < 3) Tap(request, i);
    return request;
  }

  void Steer(Request& request, int i) {
    const TokenKind scopes[] = {TokenKind::kAll, TokenKind::kFromLastPrompt, TokenKind::kPrompt,
                                TokenKind::kLastPrompt, TokenKind::kPositions};
    const int layer = static_cast<int>(Draw(0, architecture_.num_layers - 1));
    Intervention one = engine::Steer(layer, Direction(i % 4, architecture_.hidden),
                                     static_cast<float>(Draw(-2, 3)), scopes[i % 5]);
    if (one.tokens.kind == TokenKind::kPositions) {
      one.tokens.positions = {static_cast<int64_t>(request.prompt.size()) / 2};
    }
    request.interventions.push_back(std::move(one));
  }

  void Tap(Request& request, int i) {
    const TokenKind scopes[] = {
        TokenKind::kFromLastPrompt, TokenKind::kLastPrompt, TokenKind::kAll,
        TokenKind::kLast,           TokenKind::kPrompt,     TokenKind::kResponse};
    const Reduction reductions[] = {Reduction::kMean, Reduction::kNone, Reduction::kMax,
                                    Reduction::kSum};
    request.taps = {
        Read(i % 2 == 0 ? Site::kResidualPost : Site::kMlpNeurons,
             {0, architecture_.num_layers - 1}, scopes[Draw(0, 5)], reductions[Draw(0, 3)]),
        Read(Site::kResidualMid, {1}, TokenKind::kAll, Reduction::kMeanNorm),
        Read(Site::kMlpGate, {1}, TokenKind::kAll, Reduction::kMeanPositive),
        Read(Site::kMlpNeurons, {1}, TokenKind::kAllButFirst, Reduction::kMeanMagnitude),
        Read(Site::kMlpWritten, {0, 1}, TokenKind::kAll, Reduction::kMean)};
  }

  const model::Architecture& architecture_;
  std::mt19937_64 random_{7};
};

// Under a tenant of its own a request finds nothing of others in the cache.
std::vector<Request> Apart(std::vector<Request> requests) {
  for (size_t i = 0; i < requests.size(); ++i) requests[i].tenant = absl::StrCat("tenant ", i);
  return requests;
}

std::vector<Completion> RunTogether(Engine& engine, const std::vector<Request>& requests) {
  auto completions = RunAll(engine, requests, Cancellation(), static_cast<int>(requests.size()));
  EXPECT_TRUE(completions.ok()) << completions.status();
  return completions.ok() ? *std::move(completions) : std::vector<Completion>(requests.size());
}

void ExpectAllSame(const std::vector<Completion>& a, const std::vector<Completion>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("request ", i));
    ExpectSame(a[i], b[i]);
    EXPECT_EQ(a[i].prompt_tokens, b[i].prompt_tokens);
    EXPECT_EQ(a[i].generated_tokens, b[i].generated_tokens);
  }
}

void ExpectNothingHeld(const Engine& engine) {
  EXPECT_TRUE(Becomes([&] { return engine.statistics().running == 0; }));
  EXPECT_EQ(engine.statistics().waiting, 0);
  EXPECT_EQ(engine.statistics().cache_used_ratio, 0);
  EXPECT_EQ(engine.statistics().cache_promised_ratio, 0);
}

struct Case {
  std::string family;
  DType dtype = DType::kFloat32;
};

class BatchInvariance : public ::testing::TestWithParam<Case> {
 protected:
  static EngineOptions Options(int rows, int step_tokens) {
    return engine::Options(rows, step_tokens, GetParam().dtype);
  }
  std::unique_ptr<Engine> Start(const EngineOptions& options) {
    return StartOwn(FolderOf(GetParam().family), options);
  }
  // What each request gives alone, its prompt in one step, with nothing in the cache.
  std::vector<Completion> Alone(const std::vector<Request>& requests) {
    return RunTogether(*Start(Options(1, 256)), Apart(requests));
  }
  std::vector<Request> Requests(int count) {
    const auto engine = Start(Options(1, 256));
    return Mix(engine->architecture()).Of(count);
  }
};

TEST_P(BatchInvariance, HoldsAtEveryBatchSizeInAnyChunksWithAndWithoutReuse) {
  const std::vector<Request> requests = Requests(64);
  const std::vector<Completion> alone = Alone(requests);
  for (const int rows : {1, 2, 5, 16, 64}) {
    for (const int step_tokens : {std::max(rows, 7), 256}) {
      const auto engine = Start(Options(rows, step_tokens));
      SCOPED_TRACE(absl::StrCat(rows, " rows, ", step_tokens, " tokens a step"));
      ExpectAllSame(RunTogether(*engine, Apart(requests)), alone);
      EXPECT_EQ(engine->statistics().prefix_hit_tokens, 0);
      ExpectAllSame(RunTogether(*engine, requests), alone);
      EXPECT_GT(engine->statistics().prefix_hit_tokens, 500);
      ExpectNothingHeld(*engine);
    }
  }
}

// Keeps the work itself: what a repetition finds and leaves is a matter of addresses, as on a GPU.
class KeptWork : public RecordedWork {
 public:
  explicit KeptWork(std::function<void()> work) : work_(std::move(work)) {}
  void Repeat() override { work_(); }

 private:
  std::function<void()> work_;
};

class WorkKeeper : public WorkRecorder {
 public:
  std::unique_ptr<RecordedWork> Record(const std::function<void()>& work) override {
    return std::make_unique<KeptWork>(work);
  }
};

std::unique_ptr<WorkRecorder> MakeRecorder() {
  const cuda::Devices* gpus = model::TestGpus(model::TestDeviceName());
  if (gpus == nullptr) return std::make_unique<WorkKeeper>();
  return gpus->MakeRecorder();
}

TEST_P(BatchInvariance, HoldsForStepsThatAreRepeatedFromARecording) {
  std::vector<Request> requests = Requests(48);
  for (Request& request : requests) {
    request.taps.clear();
    if (request.sampling) request.sampling->max_tokens = 24;
  }
  const std::vector<Completion> alone = Alone(requests);
  EngineOptions options = Options(11, 64);
  options.make_recorder = MakeRecorder;
  const auto engine = Start(options);
  for (int round = 0; round < 2; ++round) {
    ExpectAllSame(RunTogether(*engine, requests), alone);
    EXPECT_GT(engine->statistics().repeated_steps, 20 * (round + 1));
  }
  EXPECT_LT(engine->statistics().repeated_steps, engine->statistics().steps);
  ExpectNothingHeld(*engine);
}

TEST_P(BatchInvariance, HoldsWhileRequestsComeAndAreCancelledAndBlocksAreFew) {
  const std::vector<Request> requests = Requests(48);
  const std::vector<Completion> alone = Alone(requests);
  EngineOptions options = Options(6, 24);
  options.kv_cache_bytes = 200 << 10;  // 20 blocks or so
  const auto engine = Start(options);
  std::mt19937_64 random(11);
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<std::unique_ptr<Running>> running;
  for (size_t i = 0; i < requests.size(); ++i) {
    Request request = requests[i];
    request.background = i % 2 == 0;
    request.client = 1 + i % 3;
    recorders.push_back(std::make_shared<Recorder>());
    auto handle = engine->Submit(request, recorders.back());
    ASSERT_TRUE(handle.ok()) << handle.status();
    running.push_back(*std::move(handle));
    if (random() % 4 == 0) running[random() % running.size()]->Cancel();
    if (random() % 8 == 0) recorders[random() % recorders.size()]->Await().status().IgnoreError();
  }
  int ended = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("request ", i));
    const auto completion = recorders[i]->Await();
    if (!completion.ok()) {
      EXPECT_EQ(completion.status().code(), absl::StatusCode::kCancelled) << completion.status();
      continue;
    }
    ++ended;
    ExpectSame(*completion, alone[i]);
  }
  EXPECT_GT(ended, 24);
  ExpectNothingHeld(*engine);
}

TEST_P(BatchInvariance, AJobThatGaveWayGivesWhatItWouldHaveGivenAndTellsNothingTwice) {
  std::vector<Request> jobs = Requests(40);
  std::erase_if(jobs, [](const Request& job) { return !job.sampling; });
  for (Request& job : jobs) job.sampling->max_tokens = 30;
  const std::vector<Completion> alone = Alone(jobs);
  const auto engine = Start(Options(4, 32));
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<std::unique_ptr<Running>> running;
  for (Request job : jobs) {
    job.background = true;
    recorders.push_back(std::make_shared<Recorder>());
    auto handle = engine->Submit(std::move(job), recorders.back());
    ASSERT_TRUE(handle.ok()) << handle.status();
    running.push_back(*std::move(handle));
  }
  // People come in one after the other, each as soon as the one before has its answer.
  Request person;
  person.prompt = Text(5, 20);
  for (int i = 0; i < 12; ++i) RunTogether(*engine, {person, person, person});
  for (size_t i = 0; i < jobs.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("job ", i));
    const auto completion = recorders[i]->Await();
    ASSERT_TRUE(completion.ok()) << completion.status();
    ExpectSame(*completion, alone[i]);
    std::string text;
    std::vector<int32_t> ids;
    for (const Delta& delta : recorders[i]->deltas()) {
      text += delta.text;
      ids.insert(ids.end(), delta.token_ids.begin(), delta.token_ids.end());
    }
    EXPECT_EQ(text, completion->text);
    EXPECT_EQ(ids, completion->token_ids);
  }
  EXPECT_GT(engine->statistics().preemptions, 3);
  ExpectNothingHeld(*engine);
}

// Half types take two to three times as long, which under a sanitizer is minutes; kernels_test and
// cuda_kernels_test run their operators there.
std::vector<Case> Cases() {
  std::vector<Case> cases = {{"gemma2"}, {"llama3_rope"}, {"mistral"}, {"qwen2"}, {"qwen3"}};
#ifndef __SANITIZE_ADDRESS__
  cases.push_back({"gemma2", DType::kBFloat16});
  cases.push_back({"qwen3", DType::kFloat16});
#endif
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Families, BatchInvariance, ::testing::ValuesIn(Cases()),
                         [](const auto& each) {
                           return absl::StrCat(each.param.family, "_", NameOf(each.param.dtype));
                         });

// --- Reuse on one family
// ---------------------------------------------------------------------------------

class PrefixReuse : public ::testing::Test {
 protected:
  void SetUp() override { engine_ = StartOwn(FolderOf("qwen3"), Options(16, 64)); }

  static Request OfSeventyTokens() {
    Request request = Generation(Text(1, 70), 5);
    request.sampling->ignore_eos = true;
    return request;
  }
  Completion Run(const Request& request) { return RunTogether(*engine_, {request})[0]; }
  int64_t CachedOf(const Request& request) { return Run(request).cached_prompt_tokens; }

  std::unique_ptr<Engine> engine_;
};

TEST_F(PrefixReuse, TheSamePromptOfTheSameTenantIsNotRunAgain) {
  Request request = OfSeventyTokens();
  EXPECT_EQ(CachedOf(request), 0);
  EXPECT_EQ(CachedOf(request), 64);
  EXPECT_EQ(engine_->statistics().prefix_hit_tokens, 64);
  EXPECT_TRUE(Becomes([&] { return engine_->statistics().cache_cached_ratio > 0; }));
  request.tenant = "another";
  EXPECT_EQ(CachedOf(request), 0);
  request.tenant = "default";
  request.prompt[40] = 6 + (request.prompt[40] + 1) % 80;
  EXPECT_EQ(CachedOf(request), 32);
}

TEST_F(PrefixReuse, AConversationGoesOnFromItsAnswer) {
  Request request = OfSeventyTokens();
  request.sampling->max_tokens = 20;
  const Completion first = Run(request);
  request.prompt.insert(request.prompt.end(), first.token_ids.begin(), first.token_ids.end());
  for (const int32_t id : Text(2, 10)) request.prompt.push_back(id);
  EXPECT_EQ(CachedOf(request), 80);  // of 89 tokens that were fed
}

TEST_F(PrefixReuse, WhatSomebodyMustSeeRuns) {
  Request request = OfSeventyTokens();
  Run(request);
  request.taps = {Read(Site::kResidualPost, {1}, TokenKind::kResponse, Reduction::kMean)};
  EXPECT_EQ(CachedOf(request), 64);
  request.taps = {Read(Site::kResidualPost, {1}, TokenKind::kLast, Reduction::kNone)};
  EXPECT_EQ(CachedOf(request), 64);
  request.taps = {Read(Site::kResidualPost, {1}, TokenKind::kPrompt, Reduction::kMean)};
  EXPECT_EQ(CachedOf(request), 0);
  request.taps[0].tokens = {.kind = TokenKind::kPositions, .positions = {-20}};
  EXPECT_EQ(CachedOf(request), 48);
  Request scored;
  scored.prompt = Text(1, 40);
  scored.given_response = {request.prompt.begin() + 40, request.prompt.end()};
  EXPECT_EQ(CachedOf(scored), 64);
  scored.score_response = true;
  EXPECT_EQ(CachedOf(scored), 32);
}

TEST_F(PrefixReuse, ASteeredPrefixIsNeverTakenForAnother) {
  Request request = OfSeventyTokens();
  Run(request);
  const auto vector = Direction(1, engine_->architecture().hidden);
  request.interventions = {Steer(1, vector, 2, TokenKind::kFromLastPrompt)};
  EXPECT_EQ(CachedOf(request), 64);
  request.interventions = {Steer(1, vector, 2, TokenKind::kAll)};
  EXPECT_EQ(CachedOf(request), 0);
  request.interventions = {Steer(1, vector, 3, TokenKind::kAll)};
  EXPECT_EQ(CachedOf(request), 0);
  request.interventions[0].tokens = {.kind = TokenKind::kPositions, .positions = {50}};
  EXPECT_EQ(CachedOf(request), 48);
  request.interventions = {Steer(0, vector, 3, TokenKind::kAll)};
  EXPECT_EQ(CachedOf(request), 0);
  request.interventions.push_back(Steer(1, vector, 2, TokenKind::kAll));
  EXPECT_EQ(CachedOf(request), 0);
  std::swap(request.interventions[0], request.interventions[1]);
  EXPECT_EQ(CachedOf(request), 0);
}

TEST_F(PrefixReuse, APrefixSteeredAlikeIsNotRunAgainAndChangesNothing) {
  Request request = OfSeventyTokens();
  const auto vector = Direction(1, engine_->architecture().hidden);
  request.interventions = {Steer(1, vector, 2, TokenKind::kAll)};
  const Completion first = Run(request);
  EXPECT_EQ(first.cached_prompt_tokens, 0);
  const Completion second = Run(request);
  EXPECT_EQ(second.cached_prompt_tokens, 64);
  EXPECT_EQ(second.token_ids, first.token_ids);
  request.interventions[0].tokens = {.kind = TokenKind::kPrompt};
  EXPECT_EQ(CachedOf(request), 64);  // on the prompt it is the same
  request.tenant = "another";
  EXPECT_EQ(CachedOf(request), 0);
}

TEST_F(PrefixReuse, ACoefficientOfZeroLeavesThePrefixUnsteered) {
  Request request = OfSeventyTokens();
  Run(request);
  request.interventions = {
      Steer(1, Direction(1, engine_->architecture().hidden), 0, TokenKind::kAll)};
  EXPECT_EQ(CachedOf(request), 64);
}

TEST_F(PrefixReuse, SamplesOfOnePromptRunItOnce) {
  std::vector<Request> samples(8, OfSeventyTokens());
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i].sampling->temperature = 1;
    samples[i].sampling->seed = i;
  }
  const std::vector<Completion> apart =
      RunTogether(*StartOwn(FolderOf("qwen3"), Options(16, 64)), Apart(samples));
  ExpectAllSame(RunTogether(*engine_, samples), apart);
  EXPECT_EQ(engine_->statistics().prefix_hit_tokens, 7 * 64);
  EXPECT_EQ(engine_->statistics().steered_prefix_hit_tokens, 0);
}

TEST_F(PrefixReuse, SamplesOfOneSteeredPromptRunItOnceBesideThoseOfAnother) {
  std::vector<Request> samples(8, OfSeventyTokens());
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i].sampling->temperature = 1;
    samples[i].sampling->seed = i;
    samples[i].interventions = {Steer(1, Direction(1, engine_->architecture().hidden),
                                      i % 2 == 0 ? 2 : 3, TokenKind::kAll)};
  }
  const std::vector<Completion> apart =
      RunTogether(*StartOwn(FolderOf("qwen3"), Options(16, 64)), Apart(samples));
  ExpectAllSame(RunTogether(*engine_, samples), apart);
  EXPECT_EQ(engine_->statistics().prefix_hit_tokens, 2 * 3 * 64);
  EXPECT_EQ(engine_->statistics().steered_prefix_hit_tokens, 2 * 3 * 64);
}

TEST_F(PrefixReuse, ReceiptsCountTheTokensOfAReusedPrefix) {
  Request request = OfSeventyTokens();
  request.interventions = {
      Steer(1, Direction(1, engine_->architecture().hidden), 2, TokenKind::kAll)};
  const Completion first = Run(request), second = Run(request);
  ASSERT_EQ(first.receipts.size(), 1u);
  EXPECT_EQ(first.receipts[0].positions, 74);
  EXPECT_EQ(second.receipts[0].positions, 74);
}

TEST_F(PrefixReuse, TapsOfATrimmedAnswerStartOverWithoutWhatOthersHold) {
  Request request = OfSeventyTokens();
  request.prompt = Text(1, 35);
  request.sampling->max_tokens = 40;
  const Completion whole = Run(request);
  request.taps = {Read(Site::kResidualPost, {0, 1}, TokenKind::kResponse, Reduction::kSum)};
  for (const size_t stop : {whole.text.size() / 3, whole.text.size() / 2}) {
    request.sampling->stop = {whole.text.substr(stop, 4)};
    const Completion cut = Run(request);
    ASSERT_LT(cut.token_ids.size(), whole.token_ids.size());
    EXPECT_EQ(cut.cached_prompt_tokens, 32);
    Request given = request;
    given.sampling.reset();
    given.given_response = cut.token_ids;
    given.tenant = "another";
    ExpectSameCaptures(cut.captures, Run(given).captures);
  }
}

TEST_F(PrefixReuse, AWaitingRequestLeavesWithItsDeadline) {
  const auto engine = StartOwn(FolderOf("qwen3"), Options(1, 64));
  Request running = Generation(Text(1, 4), 120);
  running.sampling->ignore_eos = true;
  Request waiting = running;
  waiting.deadline = absl::Now() + absl::Milliseconds(1);
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (const Request& request : {running, running, waiting}) {
    recorders.push_back(std::make_shared<Recorder>());
    ASSERT_TRUE(engine->Submit(request, recorders.back()).ok());
  }
  EXPECT_EQ(recorders[2]->Await().status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(recorders[2]->deltas().empty());
  EXPECT_TRUE(recorders[1]->Await().ok());
  ExpectNothingHeld(*engine);
}

}  // namespace
}  // namespace valuescope::engine
