// Runs that ask about single neurons, pass by pass: what they say of a neuron, what they take, and
// that neither how many neurons share a pass nor where the sequence's tokens stand in the cache
// changes a bit. The numbers of whole families are held against transformers by
// tests/integration/test_single_neurons.py.
#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/neuron_run.h"
#include "tests/engine/engine_harness.h"

namespace valuescope::engine {
namespace {

using model::Site;

// The most bytes that this thread has at once for tensors while it lives, over those before.
class PeakBytes : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
    now_ += bytes;
    most_ = std::max(most_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t most() const { return most_; }

 private:
  int64_t now_ = 0, most_ = 0;
};

std::vector<int32_t> Tokens(int seed, int count) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back(3 + (seed + 7 * i) % 80);
  return ids;
}

SharedFloats Rows(int64_t count, float scale) {
  std::vector<float> rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back(scale * std::cos(static_cast<float>(3 * i)));
  return std::make_shared<const std::vector<float>>(std::move(rows));
}

class NeuronRuns : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto loaded = model::Transformer::Load(Folder(), {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = *std::move(loaded);
  }

  static std::string Folder() {
    return std::string(VALUESCOPE_SOURCE_DIR) + "/tests/golden/families/" + GetParam();
  }

  const model::Architecture& architecture() const { return model_->architecture(); }
  int top() const { return architecture().num_layers - 1; }

  // Of every block, what ablation does to a projection behind block `top() - 1`.
  NeuronRequest Projection(int prompt, int response) const {
    NeuronRequest request{.prompt = Tokens(1, prompt), .response = Tokens(5, response)};
    for (int layer = 0; layer < top(); ++layer) request.layers.push_back(layer);
    request.target = ProjectionTarget{.vector = Rows(architecture().hidden, 1), .layer = top() - 1};
    request.question = AblationQuestion();
    return request;
  }

  NeuronRequest Logprob(int prompt, int response) const {
    NeuronRequest request = Projection(prompt, response);
    request.layers.push_back(top());
    request.target = ResponseLogprobTarget();
    return request;
  }

  std::shared_ptr<const model::GradientWeights> WeightsFor(const NeuronRequest& request) const {
    const auto path = GradientPathOf(request);
    return path ? *model_->MakeGradientWeights(*path, {}) : nullptr;
  }

  struct Ran {
    NeuronScores scores;
    int passes = 0;
  };
  Ran Run(const NeuronRequest& request, MemoryLedger memory = MemoryLedger(INT64_MAX)) const {
    EXPECT_EQ(CheckNeuronRequest(request, architecture()), absl::OkStatus());
    auto run = StartNeuronRun(*model_, {&request, 1}, WeightsFor(request), memory);
    EXPECT_TRUE(run.ok()) << run.status();
    Ran ran;
    for (; !(*run)->done(); ++ran.passes) (*run)->Advance();
    ran.scores = std::move((*run)->Take().front());
    return ran;
  }

  // What the run would have at most.
  int64_t BytesOf(const NeuronRequest& request) const {
    MemoryLedger memory(INT64_MAX);
    const auto run = StartNeuronRun(*model_, {&request, 1}, WeightsFor(request), memory);
    EXPECT_TRUE(run.ok()) << run.status();
    return memory.used();
  }

  // A projection as the engine's steps have it under interventions.
  static double TargetIn(Engine& engine, const NeuronRequest& request,
                         std::vector<Intervention> interventions) {
    const auto& target = std::get<ProjectionTarget>(request.target);
    Request capture;
    capture.prompt = request.prompt;
    capture.given_response = request.response;
    capture.interventions = std::move(interventions);
    capture.taps = {
        Read(Site::kResidualPost, {target.layer}, TokenKind::kResponse, Reduction::kMean)};
    const auto completion = RunAll(engine, {std::move(capture)}, {});
    EXPECT_TRUE(completion.ok()) << completion.status();
    const std::vector<float> x = Floats(completion->front().captures.front());
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += double{x[i]} * (*target.vector)[i];
    return sum;
  }

  static void ExpectNear(const std::vector<float>& some, const std::vector<float>& others) {
    ASSERT_EQ(some.size(), others.size());
    double difference = 0, size = 0;
    for (size_t i = 0; i < some.size(); ++i) {
      difference += std::pow(double{some[i]} - others[i], 2);
      size += std::pow(double{others[i]}, 2);
    }
    EXPECT_GT(size, 0);
    EXPECT_LT(std::sqrt(difference), 1e-5 * std::sqrt(size));
  }

  std::unique_ptr<model::Transformer> model_;
};

INSTANTIATE_TEST_SUITE_P(Families, NeuronRuns,
                         ::testing::Values("llama_tied", "llama3_rope", "qwen2", "qwen3", "mistral",
                                           "gemma2"),
                         [](const auto& info) { return std::string(info.param); });

// At prompts that end within a block of the cache, at its end and behind it.
TEST_P(NeuronRuns, AnAblationDoesWhatTheInterventionDoesInTheEngine) {
  const auto engine = StartOwn(Folder(), {.kv_cache_bytes = 32 << 20});
  for (const int prompt : {3, 16, 21}) {
    NeuronRequest request = Projection(prompt, 9);
    const SharedFloats means =
        Rows(static_cast<int64_t>(request.layers.size()) * architecture().intermediate, .3f);
    request.question = AblationQuestion{.base = means};
    const auto scores = engine->NeuronScoresOf({&request, 1}, {});
    ASSERT_TRUE(scores.ok()) << scores.status();
    const double clean = TargetIn(*engine, request, {});
    const auto width = static_cast<size_t>(architecture().intermediate);
    for (size_t block = 0; block < request.layers.size(); ++block) {
      for (const int64_t neuron : {int64_t{0}, architecture().intermediate - 1}) {
        const auto row = means->begin() + static_cast<std::ptrdiff_t>(block * width);
        const double ablated = TargetIn(
            *engine, request,
            {{.site = Site::kMlpNeurons,
              .layers = {request.layers[block]},
              .tokens = {.kind = TokenKind::kResponse, .positions = {}},
              .operation = AblateNeurons{.neurons = {{neuron}},
                                         .means = std::make_shared<const std::vector<float>>(
                                             row, row + static_cast<std::ptrdiff_t>(width))}}});
        EXPECT_NEAR(scores->front().scores[block * width + static_cast<size_t>(neuron)],
                    clean - ablated, 1e-5 * std::max(1.0, std::abs(clean)))
            << prompt << " tokens, block " << block << ", neuron " << neuron;
      }
    }
  }
}

TEST_P(NeuronRuns, FewerNeuronsInAPassGiveTheSameBits) {
  const NeuronRequest request = Logprob(21, 9);
  const Ran whole = Run(request);
  // The clean pass, and as many copies as 256 tokens hold.
  const int64_t width = architecture().intermediate, copies = 256 / 9;
  const auto blocks = static_cast<int64_t>(request.layers.size());
  EXPECT_EQ(whole.passes, 1 + blocks * ((width + copies - 1) / copies));
  int64_t least = BytesOf(request);
  const auto fits = [&](int64_t bytes) {
    MemoryLedger memory(bytes);
    return StartNeuronRun(*model_, {&request, 1}, nullptr, memory).ok();
  };
  while (fits(least * 9 / 10)) least = least * 9 / 10;
  const Ran tight = Run(request, MemoryLedger(least));
  EXPECT_GT(tight.passes, whole.passes);
  EXPECT_EQ(tight.scores.scores, whole.scores.scores);
  MemoryLedger memory(1000);
  EXPECT_EQ(DetailsOf(StartNeuronRun(*model_, {&request, 1}, nullptr, memory).status()).reason,
            "REQUEST_TOO_LARGE");
}

TEST_P(NeuronRuns, ChosenNeuronsScoreAsAmongAll) {
  NeuronRequest request = Logprob(10, 9);
  const std::vector<float> all = Run(request).scores.scores;
  AblationQuestion some;
  some.neurons.resize(request.layers.size());
  some.neurons[1] = NeuronIndices({2, architecture().intermediate - 1});
  request.question = some;
  const Ran chosen = Run(request);
  EXPECT_EQ(chosen.passes, 2);
  const auto width = static_cast<size_t>(architecture().intermediate);
  for (size_t i = 0; i < all.size(); ++i) {
    const bool is_chosen = i == width + 2 || i == 2 * width - 1;
    EXPECT_EQ(chosen.scores.scores[i], is_chosen ? all[i] : 0) << i;
  }
}

TEST_P(NeuronRuns, NoneTakesMoreMemoryThanItsLease) {
  NeuronRequest increase = Logprob(21, 9);
  increase.question = LogprobQuestion{.recomputes_norm_factor = true};
  NeuronRequest held = Logprob(21, 9);
  held.question = AblationQuestion{.holds_norm_factor = true};
  NeuronRequest gradients = Logprob(21, 9), path = Logprob(21, 9), projected = Projection(40, 3);
  gradients.question = GradientQuestion();
  path.question = GradientQuestion{.path = PathNodes{.steps = 30}};
  projected.question = path.question;
  for (const NeuronRequest& request :
       {Projection(21, 9), Logprob(40, 3), held, increase, gradients, path, projected}) {
    const auto peak = std::make_shared<PeakBytes>();
    {
      const c10::DebugInfoGuard follows(c10::DebugInfoKind::PROFILER_STATE, peak);
      Run(request);
    }
    EXPECT_GT(peak->most(), 0);
    EXPECT_LE(peak->most(), BytesOf(request));
  }
}

// Of different lengths and targets of their own, some in one pass and some in the next.
TEST_P(NeuronRuns, GradientsOfSeveralSequencesAreThoseOfEachAlone) {
  std::vector<NeuronRequest> requests;
  for (const int prompt : {3, 30, 16, 70, 21, 5, 60, 40}) {
    requests.push_back(prompt % 2 == 0 ? Projection(prompt, 9) : Projection(prompt, 33));
    requests.back().question = GradientQuestion();
    requests.back().tokens = {.kind = TokenKind::kAll, .positions = {}};
  }
  MemoryLedger memory(INT64_MAX);
  std::vector<NeuronScores> together;
  int runs = 0;
  for (; together.size() < requests.size(); ++runs) {
    const auto rest = std::span<const NeuronRequest>(requests).subspan(together.size());
    const auto run = StartNeuronRun(*model_, rest, WeightsFor(rest[0]), memory);
    ASSERT_TRUE(run.ok()) << run.status();
    while (!(*run)->done()) (*run)->Advance();
    for (NeuronScores& scores : (*run)->Take()) together.push_back(std::move(scores));
  }
  EXPECT_EQ(runs, 2);
  for (size_t i = 0; i < requests.size(); ++i) {
    const Ran alone = Run(requests[i]);
    EXPECT_EQ(alone.passes, 1);
    ExpectNear(together[i].scores, alone.scores.scores);
    ExpectNear(together[i].gradients, alone.scores.gradients);
  }
}

// At prompts that end within a block of the cache, at its end and behind it.
TEST_P(NeuronRuns, APathBeginsAtWhatZeroingTheBlockDoesInTheEngine) {
  const auto engine = StartOwn(Folder(), {.kv_cache_bytes = 32 << 20});
  for (const int prompt : {3, 16, 21}) {
    NeuronRequest request = Projection(prompt, 9);
    request.question = GradientQuestion{.path = PathNodes{.steps = 12}};
    const auto scores = engine->NeuronScoresOf({&request, 1}, {});
    ASSERT_TRUE(scores.ok()) << scores.status();
    const double clean = TargetIn(*engine, request, {});
    std::vector<int64_t> all(static_cast<size_t>(architecture().intermediate));
    std::iota(all.begin(), all.end(), 0);
    for (size_t block = 0; block < request.layers.size(); ++block) {
      const double zeroed = TargetIn(
          *engine, request,
          {{.site = Site::kMlpNeurons,
            .layers = {request.layers[block]},
            .tokens = {.kind = TokenKind::kResponse, .positions = {}},
            .operation = AblateNeurons{.neurons = {NeuronIndices(all)}, .means = nullptr}}});
      EXPECT_NEAR(scores->front().effects[block], clean - zeroed,
                  1e-5 * std::max(1.0, std::abs(clean)))
          << prompt << " tokens, block " << block;
    }
  }
}

class KeptNeuronWeights : public NeuronRuns {
 protected:
  std::unique_ptr<Engine> StartKeeping(absl::Duration how_long) {
    return StartOwn(
        Folder(),
        {.kv_cache_bytes = 32 << 20, .device_memory = &device_, .neuron_weights_kept = how_long});
  }

  NeuronRequest Path() const {
    NeuronRequest request = Projection(3, 4);
    request.question = GradientQuestion{.path = PathNodes{.steps = 1}};
    return request;
  }

  void Ask(Engine& engine) const {
    const NeuronRequest request = Path();
    const auto scores = engine.NeuronScoresOf({&request, 1}, {});
    EXPECT_TRUE(scores.ok()) << scores.status();
  }

  MemoryLedger device_{1 << 30};
};

INSTANTIATE_TEST_SUITE_P(Families, KeptNeuronWeights, ::testing::Values("llama_tied"));

TEST_P(KeptNeuronWeights, StayForTheNextCallUntilSomebodyNeedsTheirRoom) {
  const auto engine = StartKeeping(absl::InfiniteDuration());
  const int64_t at_rest = device_.used();
  Ask(*engine);
  const int64_t kept = device_.used();
  EXPECT_GT(kept, at_rest);
  Ask(*engine);
  EXPECT_EQ(device_.used(), kept);
  EXPECT_TRUE(device_.Take(device_.capacity() - at_rest).ok());
  EXPECT_EQ(device_.used(), at_rest);
  Ask(*engine);
  EXPECT_EQ(device_.used(), kept);
}

TEST_P(KeptNeuronWeights, GoWhenNobodyAskedForAWhile) {
  const auto engine = StartKeeping(absl::Milliseconds(20));
  const int64_t at_rest = device_.used();
  auto weights = engine->KeepNeuronWeights(Path(), {});
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_GT(device_.used(), at_rest);
  *weights = nullptr;
  EXPECT_TRUE(Becomes([&] { return device_.used() == at_rest; }));
}

TEST_P(NeuronRuns, NothingIsHeldOnceARunIsGone) {
  MemoryLedger memory(INT64_MAX);
  const NeuronRequest request = Projection(5, 4);
  {
    const auto run = StartNeuronRun(*model_, {&request, 1}, nullptr, memory);
    ASSERT_TRUE(run.ok());
    EXPECT_GT(memory.used(), 0);
  }
  EXPECT_EQ(memory.used(), 0);
}

TEST_P(NeuronRuns, AnIncreaseReadsTheTokensThatPredict) {
  // A prompt of one token, the sequence's first.
  NeuronRequest request = Logprob(1, 1);
  request.question = LogprobQuestion();
  const std::vector<float> scores = Run(request).scores.scores;
  EXPECT_EQ(scores.size(),
            request.layers.size() * static_cast<size_t>(architecture().intermediate));
  EXPECT_TRUE(std::any_of(scores.begin(), scores.end(), [](float score) { return score != 0; }));
}

TEST_P(NeuronRuns, WhatCannotBeAskedIsRefused) {
  const auto field = [&](const NeuronRequest& request) {
    return DetailsOf(CheckNeuronRequest(request, architecture())).field;
  };
  NeuronRequest request = Projection(4, 3);
  EXPECT_EQ(field(request), "");
  request.layers.push_back(top());
  EXPECT_EQ(field(request), "layers");
  request = Projection(4, 3);
  request.prompt[2] = static_cast<int32_t>(architecture().vocabulary);
  EXPECT_EQ(field(request), "prompt[2]");
  request = Projection(4, 3);
  request.question = AblationQuestion{.neurons = {NeuronIndices({0})}};
  EXPECT_EQ(field(request), "question.neurons");
  request.question = AblationQuestion{.neurons = ChosenNeurons(request.layers.size())};
  EXPECT_EQ(field(request), "question.neurons");
  ChosenNeurons outside(request.layers.size());
  outside[1] = NeuronIndices({architecture().intermediate});
  request.question = AblationQuestion{.neurons = outside};
  EXPECT_EQ(field(request), "question.neurons[1]");
  request.question = AblationQuestion{.base = Rows(5, 1)};
  EXPECT_EQ(field(request), "question.base");
  request.question = GradientQuestion{.path = PathNodes{.steps = kMostGradientSteps + 1}};
  EXPECT_EQ(field(request), "question.steps");
  request.question = LogprobQuestion();
  EXPECT_EQ(field(request), "target");
  request = Logprob(4, 1);
  request.tokens = {.kind = TokenKind::kResponse, .positions = {}};
  EXPECT_EQ(DetailsOf(CheckNeuronRequest(request, architecture())).reason, "READS_NOTHING");
}

}  // namespace
}  // namespace valuescope::engine
