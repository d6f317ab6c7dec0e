// The engine with SmolLM2-135M-Instruct: what comes out does not depend on who else is in the
// batch, steering adds what it says and nothing else, and every request ends exactly once.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "engine/model_registry.h"
#include "engine/served_model.h"
#include "tests/engine/engine_harness.h"

namespace valuescope::engine {
namespace {

using model::Site;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kModel[] = "SmolLM2-135M-Instruct";

std::string ModelRoot() { return std::string(VALUESCOPE_CACHE_DIR) + "/models"; }

// Generates until somebody stops it.
Request Endless() {
  Request request = Generation({504, 2229}, 3000);
  request.sampling->ignore_eos = true;
  return request;
}

class EngineTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    registry_ = ModelRegistry::Create(ModelRoot(), {.kv_cache_bytes = 512 << 20});
    ASSERT_TRUE(registry_->StartLoading(kModel).ok()) << "run docker/setup";
    registry_->WaitUntilSettled();
    const auto served = registry_->Get(kModel);
    ASSERT_TRUE(served.ok()) << served.status();
    served_ = *served;
    std::ifstream(std::string(VALUESCOPE_SOURCE_DIR) + "/tests/golden/smollm2/served.json") >>
        golden_;
  }
  static void TearDownTestSuite() {
    served_.reset();
    registry_.reset();
  }

  static Engine& engine() { return *served_->engine; }
  static int64_t hidden() { return served_->architecture.hidden; }

  static std::vector<int32_t> Prompt(size_t example) {
    return golden_["cases"][example]["prompt_ids"].get<std::vector<int32_t>>();
  }
  static std::vector<int32_t> Greedy(size_t example) {
    return golden_["cases"][example]["greedy_ids"].get<std::vector<int32_t>>();
  }

  static Completion Run(Request request, Recorder* keep = nullptr) {
    auto recorder = keep == nullptr ? std::make_shared<Recorder>()
                                    : std::shared_ptr<Recorder>(keep, [](Recorder*) {});
    const auto running = engine().Submit(std::move(request), recorder);
    EXPECT_TRUE(running.ok()) << running.status();
    if (!running.ok()) return {};
    auto completion = recorder->Await();
    EXPECT_TRUE(completion.ok()) << completion.status();
    return completion.ok() ? *std::move(completion) : Completion();
  }

  static absl::Status Refusal(Request request) {
    return engine().Submit(std::move(request), std::make_shared<Recorder>()).status();
  }

  static std::string Decoded(const std::vector<int32_t>& ids) {
    return *served_->text->tokenizer().Decode(ids, /*skip_special_tokens=*/true);
  }

  // The given-response request that reads what `generation` should have read.
  static Completion CaptureOf(Request generation, const std::vector<int32_t>& response) {
    generation.sampling.reset();
    generation.given_response = response;
    return Run(std::move(generation));
  }

  // Makes the greedy tokens of a generation the given ones, by what it adds to the logits.
  static void Force(Request& request, const std::vector<int32_t>& ids) {
    const int64_t last = static_cast<int64_t>(request.prompt.size()) - 1;
    for (size_t i = 0; i < ids.size(); ++i) {
      std::vector<float> row(static_cast<size_t>(served_->architecture.vocabulary));
      row[static_cast<size_t>(ids[i])] = 10000;
      request.interventions.push_back(
          {.site = Site::kLogits,
           .layers = {},
           .tokens = {.kind = TokenKind::kPositions, .positions = {last + static_cast<int64_t>(i)}},
           .operation =
               AddVector{.rows = std::make_shared<const std::vector<float>>(std::move(row)),
                         .coefficient = 1}});
    }
  }

  static inline std::unique_ptr<ModelRegistry> registry_;
  static inline std::shared_ptr<const ServedModel> served_;
  static inline json golden_;
};

TEST_F(EngineTest, GreedyTokensAndLogProbabilitiesEqualTransformers) {
  for (size_t i = 0; i < golden_["cases"].size(); ++i) {
    Request request = Generation(Prompt(i), 32);
    request.sampling->top_logprobs = 1;
    const Completion completion = Run(request);
    EXPECT_EQ(completion.token_ids, Greedy(i)) << "example " << i;
    EXPECT_EQ(completion.text, Decoded(Greedy(i)));
    EXPECT_EQ(completion.finish_reason, FinishReason::kLength);
    EXPECT_EQ(completion.prompt_tokens, static_cast<int64_t>(Prompt(i).size()));
    EXPECT_EQ(completion.generated_tokens, 32);
    const auto logprobs = golden_["cases"][i]["greedy_logprobs"].get<std::vector<double>>();
    ASSERT_EQ(completion.logprobs.size(), logprobs.size());
    for (size_t t = 0; t < logprobs.size(); ++t) {
      EXPECT_NEAR(completion.logprobs[t].logprob, logprobs[t], 1e-4);
      EXPECT_EQ(completion.logprobs[t].top[0].first, completion.token_ids[t]);
    }
  }
}

TEST_F(EngineTest, SteeredGreedyTokensEqualTransformersWithAHook) {
  const json& steering = golden_["steering"];
  const auto vector =
      std::make_shared<const std::vector<float>>(steering["vector"].get<std::vector<float>>());
  for (const json& example : steering["cases"]) {
    const auto expected = example["greedy_ids"].get<std::vector<int32_t>>();
    Request request = Generation(example["prompt_ids"].get<std::vector<int32_t>>(),
                                 static_cast<int>(expected.size()));
    request.interventions = {
        Steer(steering["layer"].get<int>(), vector, steering["coefficient"].get<float>())};
    request.sampling->ignore_eos = true;
    EXPECT_EQ(Run(request).token_ids, expected);
  }
}

TEST_F(EngineTest, ScoresEqualTheLogProbabilitiesOfTheGeneration) {
  Request generation = Generation(Prompt(1), 12);
  generation.sampling->top_logprobs = 3;
  generation.interventions = {Steer(9, Direction(1, hidden()), 3)};
  const Completion generated = Run(generation);
  Request scoring = generation;
  scoring.sampling.reset();
  scoring.given_response = generated.token_ids;
  scoring.score_response = true;
  scoring.top_logprobs = 3;
  ExpectSameLogprobs(Run(scoring).logprobs, generated.logprobs);
}

TEST_F(EngineTest, SixteenDifferentSteeringsTogetherEqualEachAloneBitForBit) {
  const TokenKind scopes[] = {TokenKind::kAll, TokenKind::kFromLastPrompt, TokenKind::kResponse};
  std::vector<Request> requests;
  for (int i = 0; i < 18; ++i) {
    Request request = Generation(Prompt(static_cast<size_t>(i) % 5), 12);
    request.sampling->ignore_eos = true;
    request.sampling->top_logprobs = 2;
    if (i % 2 == 1) {
      request.sampling->temperature = 0.9f;
      request.sampling->seed = static_cast<uint64_t>(i);
    }
    const float coefficient = (i % 3 == 0 ? -1.0f : 1.0f) * (2.0f + static_cast<float>(i) / 2);
    request.interventions = {
        Steer((i * 7) % 30, Direction(i, hidden()), coefficient, scopes[i % 3])};
    if (i % 4 == 0) {
      request.interventions.push_back(
          Steer((i * 5 + 3) % 30, Direction(i + 100, hidden()), 1.5f, TokenKind::kPrompt));
    }
    if (i % 5 == 0) {
      request.interventions.push_back(
          {.site = Site::kMlpNeurons,
           .layers = {2, 20},
           .tokens = {.kind = TokenKind::kFromLastPrompt, .positions = {}},
           .operation = AddVector{.rows = Direction(i, served_->architecture.intermediate, 2),
                                  .coefficient = 2}});
    }
    request.taps = {Read(Site::kResidualPost, {0, 15, 29}, TokenKind::kResponse, Reduction::kMean),
                    Read(Site::kMlpNeurons, {i % 30}, TokenKind::kAll, Reduction::kNone),
                    Read(Site::kAttentionOutput, {8}, TokenKind::kFromLastPrompt, Reduction::kMax),
                    Read(Site::kResidualMid, {11}, TokenKind::kPrompt, Reduction::kSum)};
    requests.push_back(std::move(request));
  }
  std::vector<Completion> alone;
  for (const Request& request : requests) alone.push_back(Run(request));
  EXPECT_LT(engine().statistics().distinct_rows_max, 16);
  const auto together = RunAll(engine(), requests, Cancellation());
  ASSERT_TRUE(together.ok()) << together.status();
  EXPECT_GE(engine().statistics().distinct_rows_max, 16);
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("request ", i));
    ExpectSame((*together)[i], alone[i]);
  }
  // The steerings do something: no two of one prompt give the same activations.
  EXPECT_NE(alone[0].captures[0].tensor.bytes, alone[5].captures[0].tensor.bytes);
}

TEST_F(EngineTest, ReceiptsCountTheTokensThatWereTouched) {
  const int64_t prompt = static_cast<int64_t>(Prompt(0).size());
  Request request = Generation(Prompt(0), 9);
  const std::vector<std::pair<TokenKind, int64_t>> expected = {
      {TokenKind::kAll, prompt + 9 - 1},  // the last token is not fed
      {TokenKind::kFromLastPrompt, 9},
      {TokenKind::kPrompt, prompt},
      {TokenKind::kResponse, 8},
      {TokenKind::kLastPrompt, 1}};
  for (const auto& [kind, count] : expected) {
    request.interventions.push_back(Steer(3, Direction(1, hidden()), 0.5f, kind));
  }
  const Completion completion = Run(request);
  ASSERT_EQ(completion.token_ids.size(), 9u);
  ASSERT_EQ(completion.receipts.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(completion.receipts[i].intervention_index, static_cast<int>(i));
    EXPECT_EQ(completion.receipts[i].layers, std::vector<int>{3});
    EXPECT_EQ(completion.receipts[i].positions, expected[i].second) << "intervention " << i;
  }
}

TEST_F(EngineTest, TheLastScoredTokenIsNotFedHoweverTheLengthMeetsTheCacheBlocks) {
  for (size_t length = 1; length <= 34; ++length) {
    Request request;
    request.prompt = Prompt(0);
    request.given_response.assign(length, 1000);
    request.score_response = true;
    request.interventions = {Steer(3, Direction(1, hidden()), 0.5f, TokenKind::kAll)};
    const Completion completion = Run(request);
    EXPECT_EQ(completion.logprobs.size(), length);
    EXPECT_EQ(completion.receipts.front().positions,
              static_cast<int64_t>(Prompt(0).size() + length - 1));
  }
}

TEST_F(EngineTest, CoefficientsOfOneVectorAddUp) {
  const auto vector = Direction(4, hidden());
  Request twice = Generation(Prompt(2), 10);
  twice.taps = {Read(Site::kResidualPost, {12, 29}, TokenKind::kAll, Reduction::kNone)};
  Request once = twice;
  twice.interventions = {Steer(12, vector, 2), Steer(12, vector, 4)};
  once.interventions = {Steer(12, vector, 6)};
  const Completion a = Run(twice), b = Run(once);
  EXPECT_EQ(a.token_ids, b.token_ids);
  // Each is rounded on its own, as the elements of a row whose norm is some hundreds.
  const std::vector<float> two = Floats(a.captures[0]), one = Floats(b.captures[0]);
  ASSERT_EQ(two.size(), one.size());
  const auto width = static_cast<size_t>(hidden());
  for (size_t row = 0; row < one.size() / width; ++row) {
    double norm = 0, difference = 0;
    for (size_t i = row * width; i < (row + 1) * width; ++i) {
      norm += std::pow(one[i], 2.0);
      difference += std::pow(two[i] - one[i], 2.0);
    }
    EXPECT_LT(std::sqrt(difference / norm), 5e-6) << row;
  }
}

TEST_F(EngineTest, CoefficientZeroIsNoSteering) {
  Request request = Generation(Prompt(2), 10);
  request.taps = {Read(Site::kResidualPost, {29}, TokenKind::kAll, Reduction::kNone)};
  const Completion plain = Run(request);
  request.interventions = {Steer(12, Direction(4, hidden()), 0)};
  const Completion zero = Run(request);
  EXPECT_EQ(zero.token_ids, plain.token_ids);
  ExpectSameCaptures(zero.captures, plain.captures);
}

TEST_F(EngineTest, SteeringShiftsItsLayerByExactlyTheVectorAndNoLayerBefore) {
  constexpr int kLayer = 10;
  constexpr float kCoefficient = 2.5f;
  const auto vector = Direction(5, hidden());
  Request request;
  request.prompt = Prompt(3);
  request.given_response = Greedy(3);
  for (const int layer : {0, kLayer - 1, kLayer, kLayer + 1}) {
    request.taps.push_back(Read(Site::kResidualPost, {layer}, TokenKind::kAll, Reduction::kNone));
  }
  const Completion plain = Run(request);
  request.interventions = {Steer(kLayer, vector, kCoefficient)};
  const Completion steered = Run(request);
  for (const size_t before : {0, 1}) {
    EXPECT_EQ(steered.captures[before].tensor.bytes, plain.captures[before].tensor.bytes);
  }
  std::vector<float> expected = Floats(plain.captures[2]);
  const size_t width = static_cast<size_t>(hidden());
  for (size_t token = request.prompt.size() - 1; token < expected.size() / width; ++token) {
    for (size_t i = 0; i < width; ++i) {
      expected[token * width + i] += kCoefficient * (*vector)[i];
    }
  }
  EXPECT_EQ(Floats(steered.captures[2]), expected);
  EXPECT_NE(steered.captures[3].tensor.bytes, plain.captures[3].tensor.bytes);
}

TEST_F(EngineTest, TheInputOfABlockIsTheOutputOfTheOneBefore) {
  Request request;
  request.prompt = Prompt(3);
  request.interventions = {Steer(7, Direction(5, hidden()), 3, TokenKind::kAll)};
  request.taps = {Read(Site::kResidualPost, {7}, TokenKind::kAll, Reduction::kNone)};
  const Completion post = Run(request);
  request.interventions[0].site = Site::kResidualPre;
  request.interventions[0].layers = {8};
  request.taps[0].site = Site::kResidualPre;
  request.taps[0].layers = {8};
  EXPECT_EQ(Run(request).captures[0].tensor.bytes, post.captures[0].tensor.bytes);
}

TEST_F(EngineTest, AMeanNormIsThatOfTheTokensThemselves) {
  Request request;
  request.prompt = Prompt(1);
  request.given_response = Prompt(0);
  request.taps = {Read(Site::kResidualPost, {2, 15}, TokenKind::kResponse, Reduction::kNone),
                  Read(Site::kResidualPost, {2, 15}, TokenKind::kResponse, Reduction::kMeanNorm)};
  request.taps[1].dtype = DType::kFloat64;
  const Completion completion = Run(request);
  const HostTensor& rows = completion.captures[0].tensor;
  const HostTensor& norms = completion.captures[1].tensor;
  EXPECT_EQ(norms.shape, (std::vector<int64_t>{2, 1, 1}));
  const int64_t tokens = rows.shape[1];
  const auto values = rows.As<float>();
  for (int64_t layer = 0; layer < 2; ++layer) {
    double sum = 0;
    for (int64_t token = 0; token < tokens; ++token) {
      double squares = 0;
      for (int64_t i = 0; i < hidden(); ++i) {
        const double x = values[static_cast<size_t>((layer * tokens + token) * hidden() + i)];
        squares += x * x;
      }
      sum += std::sqrt(squares);
    }
    const double expected = sum / static_cast<double>(tokens);
    EXPECT_NEAR(norms.As<double>()[static_cast<size_t>(layer)] / expected, 1, 1e-12);
  }
}

TEST_F(EngineTest, AMeanMagnitudeIsThatOfEveryElementAndLeavesOutTheFirstTokenWhereAsked) {
  Request request;
  request.prompt = Prompt(1);
  request.given_response = Prompt(0);
  request.taps = {Read(Site::kMlpNeurons, {2}, TokenKind::kAll, Reduction::kNone),
                  Read(Site::kMlpNeurons, {2}, TokenKind::kAllButFirst, Reduction::kMeanMagnitude)};
  request.taps[1].dtype = DType::kFloat64;
  const Completion completion = Run(request);
  const HostTensor& rows = completion.captures[0].tensor;
  const int64_t tokens = rows.shape[1], width = rows.shape[2];
  EXPECT_EQ(completion.captures[1].positions.front(), 1);
  EXPECT_EQ(static_cast<int64_t>(completion.captures[1].positions.size()), tokens - 1);
  const auto values = rows.As<float>();
  const auto magnitudes = completion.captures[1].tensor.As<double>();
  ASSERT_EQ(static_cast<int64_t>(magnitudes.size()), width);
  for (int64_t i = 0; i < width; ++i) {
    double sum = 0;
    for (int64_t token = 1; token < tokens; ++token) {
      sum += std::abs(double{values[static_cast<size_t>(token * width + i)]});
    }
    EXPECT_NEAR(magnitudes[static_cast<size_t>(i)] / (sum / static_cast<double>(tokens - 1)), 1,
                1e-12);
  }
}

std::vector<Tap> EveryKindOfTap() {
  return {Read(Site::kResidualPost, {0, 15, 29}, TokenKind::kResponse, Reduction::kNone),
          Read(Site::kResidualPost, {15}, TokenKind::kResponse, Reduction::kMean),
          Read(Site::kMlpNeurons, {3, 28}, TokenKind::kAll, Reduction::kSum),
          Read(Site::kMlpNeurons, {3}, TokenKind::kFromLastPrompt, Reduction::kMax),
          Read(Site::kResidualMid, {29}, TokenKind::kResponse, Reduction::kLast),
          Read(Site::kResidualPost, {29}, TokenKind::kLast, Reduction::kNone),
          Read(Site::kResidualPost, {29}, TokenKind::kLast, Reduction::kMean),
          Read(Site::kAttentionHeads, {5}, TokenKind::kPrompt, Reduction::kMean),
          Read(Site::kResidualPost, {3, 15}, TokenKind::kResponse, Reduction::kMeanNorm),
          Read(Site::kMlpNeurons, {3, 15}, TokenKind::kResponse, Reduction::kMeanPositive),
          Read(Site::kMlpGate, {3, 15}, TokenKind::kResponse, Reduction::kMeanPositive),
          Read(Site::kMlpNeurons, {3, 15}, TokenKind::kAllButFirst, Reduction::kMeanMagnitude),
          Read(Site::kFinalNorm, {}, TokenKind::kLastPrompt, Reduction::kNone)};
}

TEST_F(EngineTest, TapsOfAGenerationEqualTheCaptureOfWhatItReturned) {
  Request request = Generation(Prompt(0), 14);
  request.interventions = {Steer(14, Direction(2, hidden()), 3)};
  request.taps = EveryKindOfTap();
  const Completion generated = Run(request);
  ASSERT_EQ(generated.finish_reason, FinishReason::kLength);
  ASSERT_EQ(generated.captures[0].positions.size(), 14u);
  const int64_t last = static_cast<int64_t>(request.prompt.size()) + 13;
  EXPECT_EQ(generated.captures[5].positions, std::vector<int64_t>{last});
  EXPECT_EQ(generated.captures[5].tensor.shape, (std::vector<int64_t>{1, 1, hidden()}));
  ExpectSameCaptures(generated.captures, CaptureOf(request, generated.token_ids).captures);
}

TEST_F(EngineTest, TapsOnThePositionOfTheLastGeneratedTokenReadIt) {
  Request request = Generation(Prompt(0), 5);
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  request.taps = {Read(Site::kResidualPost, {29}, TokenKind::kPositions, Reduction::kNone)};
  request.taps[0].tokens.positions = {0, prompt + 4};
  const Completion generated = Run(request);
  EXPECT_EQ(generated.captures[0].positions, (std::vector<int64_t>{0, prompt + 4}));
  ExpectSameCaptures(generated.captures, CaptureOf(request, generated.token_ids).captures);
}

// A stop string that begins and ends within tokens of the greedy text.
std::string StopAcross(const std::vector<std::string>& pieces, size_t first, size_t last) {
  std::string stop = pieces[first].substr(pieces[first].size() / 2);
  for (size_t i = first + 1; i < last; ++i) stop += pieces[i];
  return stop + pieces[last].substr(0, (pieces[last].size() + 1) / 2);
}

TEST_F(EngineTest, StopStringsAcrossTokensEndTheTextAndAreNeverSent) {
  const std::vector<int32_t> greedy = Greedy(0);
  std::vector<std::string> pieces;
  for (size_t i = 0; i < greedy.size(); ++i) pieces.push_back(Decoded({greedy[i]}));
  const std::string whole = Decoded(greedy);
  for (const auto& [first, last] : {std::pair<size_t, size_t>{6, 7}, {6, 9}, {1, 5}}) {
    const std::string stop = StopAcross(pieces, first, last);
    SCOPED_TRACE(stop);
    Request request = Generation(Prompt(0), 32);
    request.sampling->stop = {"never in the text", stop};
    request.sampling->top_logprobs = 0;
    request.taps = EveryKindOfTap();
    Recorder recorder;
    const Completion completion = Run(request, &recorder);
    EXPECT_EQ(completion.finish_reason, FinishReason::kStop);
    EXPECT_EQ(completion.text, whole.substr(0, whole.find(stop)));
    EXPECT_EQ(completion.logprobs.size(), completion.token_ids.size());
    EXPECT_LT(completion.token_ids.size(), static_cast<size_t>(completion.generated_tokens));
    std::string text;
    std::vector<int32_t> ids;
    for (const Delta& delta : recorder.deltas()) {
      text += delta.text;
      ids.insert(ids.end(), delta.token_ids.begin(), delta.token_ids.end());
      EXPECT_THAT(text, Not(HasSubstr(stop)));
      EXPECT_EQ(text, completion.text.substr(0, text.size()));
      EXPECT_EQ(delta.logprobs.size(), delta.token_ids.size());
    }
    EXPECT_EQ(text, completion.text);
    EXPECT_EQ(ids, completion.token_ids);
    const std::vector<int32_t> expected(
        greedy.begin(), greedy.begin() + static_cast<std::ptrdiff_t>(completion.token_ids.size()));
    EXPECT_EQ(completion.token_ids, expected);
    ExpectSameCaptures(completion.captures, CaptureOf(request, completion.token_ids).captures);
  }
}

TEST_F(EngineTest, AStopStringAtTheVeryBeginningLeavesNothing) {
  Request request = Generation(Prompt(0), 32);
  request.sampling->stop = {Decoded({Greedy(0)[0]}).substr(0, 1)};
  request.taps = {Read(Site::kResidualPost, {4}, TokenKind::kResponse, Reduction::kMean),
                  Read(Site::kResidualPost, {4}, TokenKind::kPrompt, Reduction::kMean)};
  Recorder recorder;
  const Completion completion = Run(request, &recorder);
  EXPECT_EQ(completion.text, "");
  EXPECT_TRUE(completion.token_ids.empty());
  EXPECT_EQ(completion.generated_tokens, 1);
  EXPECT_TRUE(recorder.deltas().empty());
  EXPECT_EQ(completion.captures[0].tensor.shape, (std::vector<int64_t>{1, 0, hidden()}));
  EXPECT_TRUE(completion.captures[0].positions.empty());
  EXPECT_EQ(completion.captures[1].positions.size(), request.prompt.size());
}

TEST_F(EngineTest, CharactersOfSeveralTokensAreSentWholeAndStopWhole) {
  const auto smile = served_->text->EncodeText("\xF0\x9F\x98\x80", false);
  ASSERT_TRUE(smile.ok());
  ASSERT_GT(smile->size(), 1u);
  const auto word = served_->text->EncodeText("ok", false);
  std::vector<int32_t> ids = *word;
  ids.insert(ids.end(), smile->begin(), smile->end());
  ids.insert(ids.end(), word->begin(), word->end());

  Request request = Generation(Prompt(3), static_cast<int>(ids.size()));
  Force(request, ids);
  Recorder plain;
  const Completion completion = Run(request, &plain);
  EXPECT_EQ(completion.token_ids, ids);
  EXPECT_EQ(completion.text, "ok\xF0\x9F\x98\x80ok");
  for (const Delta& delta : plain.deltas()) EXPECT_THAT(delta.text, Not(HasSubstr("\xEF\xBF\xBD")));

  request.sampling->stop = {"\xF0\x9F\x98\x80"};
  Recorder stopped;
  const Completion cut = Run(request, &stopped);
  EXPECT_EQ(cut.text, "ok");
  EXPECT_EQ(cut.token_ids, *word);
  std::vector<int32_t> sent;
  for (const Delta& delta : stopped.deltas()) {
    sent.insert(sent.end(), delta.token_ids.begin(), delta.token_ids.end());
  }
  EXPECT_EQ(sent, *word);
}

// An answer that ends within a character ends with the sign for that.
TEST_F(EngineTest, AStopStringThatOnlyTheEndCompletesIsCutToo) {
  const auto smile = served_->text->EncodeText("\xF0\x9F\x98\x80", false);
  ASSERT_GT(smile->size(), 1u);
  Request request = Generation(Prompt(3), 1);
  Force(request, {smile->front()});
  EXPECT_EQ(Run(request).text, "\xEF\xBF\xBD");
  request.sampling->stop = {"\xEF\xBF\xBD"};
  const Completion cut = Run(request);
  EXPECT_EQ(cut.text, "");
  EXPECT_TRUE(cut.token_ids.empty());
  EXPECT_EQ(cut.finish_reason, FinishReason::kStop);
}

TEST_F(EngineTest, AStopTokenEndsTheGenerationAndIsNotReturned) {
  const int32_t eos = served_->text->eos_ids().front();
  Request request = Generation(Prompt(3), 10);
  Force(request, {753, 3987, eos});
  const Completion completion = Run(request);
  EXPECT_EQ(completion.token_ids, (std::vector<int32_t>{753, 3987}));
  EXPECT_EQ(completion.finish_reason, FinishReason::kStop);
  EXPECT_EQ(completion.generated_tokens, 3);
  request.sampling->ignore_eos = true;
  const Completion ignoring = Run(request);
  EXPECT_EQ(ignoring.finish_reason, FinishReason::kLength);
  EXPECT_EQ(ignoring.token_ids.size(), 10u);
}

TEST_F(EngineTest, FurtherStopTokensEndItWhateverBecomesOfTheModelsOwn) {
  const int32_t eos = served_->text->eos_ids().front();
  Request request = Generation(Prompt(3), 4);
  Force(request, {753, eos, 3987, 753});
  request.sampling->ignore_eos = true;
  for (const auto& [stops, count] : {std::pair<std::vector<int32_t>, size_t>{{}, 4},
                                     {{3987}, 2},
                                     {{12, 3987, eos}, 1},
                                     {{753}, 0}}) {
    request.sampling->stop_token_ids = stops;
    const Completion completion = Run(request);
    EXPECT_EQ(completion.token_ids.size(), count);
    EXPECT_EQ(completion.finish_reason, count == 4 ? FinishReason::kLength : FinishReason::kStop);
    EXPECT_EQ(completion.generated_tokens, static_cast<int64_t>(std::min<size_t>(count + 1, 4)));
  }
  request.sampling->stop_token_ids = {static_cast<int32_t>(served_->architecture.vocabulary)};
  EXPECT_EQ(DetailsOf(engine().Check(request)).field, "sampling.stop_token_ids");
}

// Special tokens are not shown; stop strings are found in them.
TEST_F(EngineTest, AStopStringMayBeASpecialToken) {
  const int32_t end = *served_->text->tokenizer().AddedTokenId("<|im_end|>");
  Request request = Generation(Prompt(3), 4);
  Force(request, {753, 3987, end, 753});
  request.sampling->ignore_eos = true;
  EXPECT_EQ(Run(request).text, Decoded({753, 3987, 753}));
  request.sampling->stop = {"<|im_end|>"};
  const Completion completion = Run(request);
  EXPECT_EQ(completion.text, Decoded({753, 3987}));
  EXPECT_EQ(completion.token_ids, (std::vector<int32_t>{753, 3987}));
  EXPECT_EQ(completion.generated_tokens, 3);
}

// Positions that only trimmed tokens stood at count for nothing, whether taps look on or not.
TEST_F(EngineTest, ReceiptsCountNoTokenThatAStopStringTrimmed) {
  Request request = Generation(Prompt(3), 4);
  Force(request, {753, 3987, 504, 2229});
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  request.interventions.push_back(Steer(3, Direction(1, hidden()), 0, TokenKind::kAll));
  request.sampling->stop = {Decoded({3987, 504, 2229})};
  for (const bool tapped : {false, true}) {
    if (tapped) request.taps = EveryKindOfTap();
    const Completion completion = Run(request);
    EXPECT_EQ(completion.token_ids, std::vector<int32_t>{753});
    EXPECT_EQ(completion.receipts.back().positions, prompt + 1);
  }
}

TEST_F(EngineTest, DeltasJoinToTheCompletion) {
  Request request = Generation(Prompt(1), 20);
  request.sampling->temperature = 1;
  request.sampling->seed = 11;
  Recorder recorder;
  const Completion completion = Run(request, &recorder);
  std::string text;
  std::vector<int32_t> ids;
  for (const Delta& delta : recorder.deltas()) {
    text += delta.text;
    ids.insert(ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  }
  EXPECT_EQ(text, completion.text);
  EXPECT_EQ(ids, completion.token_ids);
  EXPECT_GT(recorder.deltas().size(), 5u);
}

TEST_F(EngineTest, LongPromptsInChunksGiveTheSameBits) {
  // More tokens than one step takes, beside a request that decodes all the while.
  std::vector<int32_t> prompt;
  for (int i = 0; i < 700; ++i) prompt.push_back(100 + (i * 37) % 4000);
  Request request;
  request.prompt = prompt;
  request.taps = {Read(Site::kResidualPost, {29}, TokenKind::kAll, Reduction::kMean)};
  const Completion alone = Run(request);
  auto endless = std::make_shared<Recorder>();
  const auto running = engine().Submit(Endless(), endless);
  ASSERT_TRUE(running.ok());
  ASSERT_TRUE(endless->AwaitDelta());
  ExpectSameCaptures(Run(request).captures, alone.captures);
  (*running)->Cancel();
  EXPECT_EQ(endless->Await().status().code(), absl::StatusCode::kCancelled);
}

TEST_F(EngineTest, CancelEndsARequestAsCancelled) {
  auto recorder = std::make_shared<Recorder>();
  const auto running = engine().Submit(Endless(), recorder);
  ASSERT_TRUE(running.ok()) << running.status();
  ASSERT_TRUE(recorder->AwaitDelta());
  (*running)->Cancel();
  (*running)->Cancel();
  const auto completion = recorder->Await();
  EXPECT_EQ(completion.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(DetailsOf(completion.status()).reason, "CANCELLED");
}

TEST_F(EngineTest, AnExpiredDeadlineEndsARequestBeforeAndWhileItRuns) {
  Request late = Endless();
  late.deadline = absl::Now() - absl::Seconds(1);
  auto before = std::make_shared<Recorder>();
  ASSERT_TRUE(engine().Submit(late, before).ok());
  EXPECT_EQ(before->Await().status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(before->deltas().empty());

  Request slow = Endless();
  slow.deadline = absl::Now() + absl::Milliseconds(500);
  auto meanwhile = std::make_shared<Recorder>();
  ASSERT_TRUE(engine().Submit(slow, meanwhile).ok());
  EXPECT_EQ(meanwhile->Await().status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(meanwhile->deltas().empty());
}

TEST_F(EngineTest, NamesTheFieldOfWhatItRefuses) {
  const auto expect = [](const absl::Status& status, const std::string& field,
                         const std::string& said) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(DetailsOf(status).field, field);
    EXPECT_THAT(DetailsOf(status).description, HasSubstr(said));
  };
  expect(Refusal(Generation({}, 4)), "prompt", "at least one");
  expect(Refusal(Generation({1, 49152}, 4)), "prompt[1]", "allowed range is 0 to 49151");
  expect(Refusal(Generation({-1}, 4)), "prompt[0]", "allowed range is 0 to 49151");
  expect(Refusal(Generation(std::vector<int32_t>(8192, 1), 1)), "prompt", "allowed are 1 to 8191");
  expect(Refusal(Generation({1, 2}, 8191)), "sampling.max_tokens", "1 to 8190");
  expect(Refusal(Generation({1, 2}, 0)), "sampling.max_tokens", "1 to 8190");
  Request request;
  request.prompt = {1, 2};
  request.given_response = {3, 50000};
  expect(Refusal(request), "given_response[1]", "0 to 49151");
  request.given_response.assign(8192, 1);
  expect(Refusal(request), "given_response", "at most 8190 behind a prompt of 2");
  request.given_response = {3};
  request.top_logprobs = 21;
  expect(Refusal(request), "top_logprobs", "0 to 20");

  request = Generation({1, 2}, 4);
  request.sampling->top_p = 0;
  expect(Refusal(request), "sampling.top_p", "above 0");
  request = Generation({1, 2}, 4);
  request.interventions = {Steer(30, Direction(0, hidden()), 1)};
  expect(Refusal(request), "interventions[0].layers[0]", "0 to 29");
  request = Generation({1, 2}, 1);
  request.interventions = {Steer(3, Direction(0, hidden()), 1, TokenKind::kResponse)};
  expect(Refusal(request), "interventions[0].tokens.kind", "touch nothing");
  EXPECT_EQ(DetailsOf(Refusal(request)).reason, "INTERVENTION_TOUCHES_NOTHING");
  // What is read of the prompt makes no generated token run.
  request.taps = {Read(Site::kResidualPost, {3}, TokenKind::kPrompt, Reduction::kMean)};
  EXPECT_EQ(DetailsOf(Refusal(request)).reason, "INTERVENTION_TOUCHES_NOTHING");
  request = Generation({1, 2}, 4);
  request.taps = {Read(Site::kResidualPost, {3}, TokenKind::kAll, Reduction::kNone),
                  Read(Site::kResidualPost, {4, 4}, TokenKind::kAll, Reduction::kNone)};
  expect(Refusal(request), "taps[1].layers[1]", "above");
}

TEST_F(EngineTest, RefusesCapturesBeyondItsMemoryBeforeAllocatingThem) {
  Request request = Generation({1, 2}, 8000);
  request.taps = {Read(Site::kLogits, {}, TokenKind::kAll, Reduction::kNone)};
  const absl::Status status = Refusal(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(status).reason, "CAPTURE_TOO_LARGE");
  EXPECT_FALSE(DetailsOf(status).retry_after.has_value());
}

TEST_F(EngineTest, RunAllKeepsTheOrderAndNamesTheRequestThatFailed) {
  std::vector<Request> requests;
  for (size_t i = 0; i < 6; ++i) requests.push_back(Generation(Prompt(i), 2 + static_cast<int>(i)));
  const auto completions = RunAll(engine(), requests, Cancellation(), 2);
  ASSERT_TRUE(completions.ok()) << completions.status();
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ((*completions)[i].token_ids.size(), 2 + i);

  requests[4].prompt = {1, -5};
  const auto failed = RunAll(engine(), requests, Cancellation(), 2);
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(failed.status()).field, "[4].prompt[1]");
  EXPECT_TRUE(RunAll(engine(), {}, Cancellation())->empty());
}

TEST_F(EngineTest, RunAllStopsWhenItIsCancelled) {
  Cancellation cancellation;
  absl::StatusOr<std::vector<Completion>> result;
  const int64_t before = engine().statistics().steps;
  std::thread runs([&] { result = RunAll(engine(), {Endless(), Endless()}, cancellation); });
  const absl::Time latest = absl::Now() + kPatience;
  while (engine().statistics().steps == before && absl::Now() < latest) std::this_thread::yield();
  cancellation.Cancel();
  runs.join();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
}

// Engines of their own, with limits of their own.
std::unique_ptr<Engine> StartOwn(const EngineOptions& options) {
  return StartOwn(ModelRoot() + "/" + kModel, options);
}

TEST(SmallEngine, RefusesWhatDoesNotFitAndDrainsWhatRuns) {
  const std::unique_ptr<Engine> engine =
      StartOwn({.kv_cache_bytes = 256 << 20, .max_batch_rows = 1, .max_waiting = 2});
  ASSERT_NE(engine, nullptr);

  const absl::Status too_large =
      engine->Submit(Generation({1, 2}, 8000), std::make_shared<Recorder>()).status();
  EXPECT_EQ(too_large.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(too_large).reason, "KV_CACHE_TOO_SMALL");
  EXPECT_FALSE(DetailsOf(too_large).retry_after.has_value());

  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<std::unique_ptr<Running>> running;
  for (int i = 0; i < 3; ++i) {
    recorders.push_back(std::make_shared<Recorder>());
    auto handle = engine->Submit(Endless(), recorders.back());
    ASSERT_TRUE(handle.ok()) << handle.status();
    running.push_back(*std::move(handle));
    ASSERT_TRUE(i > 0 || recorders[0]->AwaitDelta());
  }
  const absl::Status full = engine->Submit(Endless(), std::make_shared<Recorder>()).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(full).reason, "QUEUE_FULL");
  EXPECT_EQ(DetailsOf(full).retry_after, absl::Seconds(1));
  EXPECT_EQ(engine->statistics().running, 1);
  EXPECT_EQ(engine->statistics().waiting, 2);
  for (const auto& handle : running) handle->Cancel();
  for (const auto& recorder : recorders) {
    EXPECT_EQ(recorder->Await().status().code(), absl::StatusCode::kCancelled);
  }

  // A list longer than the queue waits for its turns.
  const auto list =
      RunAll(*engine, std::vector<Request>(6, Generation({504, 2229}, 2)), Cancellation());
  ASSERT_TRUE(list.ok()) << list.status();
  for (const Completion& completion : *list) EXPECT_EQ(completion.token_ids.size(), 2u);

  auto last = std::make_shared<Recorder>();
  ASSERT_TRUE(engine->Submit(Generation({504, 2229}, 12), last).ok());
  ASSERT_TRUE(last->AwaitDelta());
  engine->Drain(absl::Now() + kPatience);
  const auto completion = last->Await();
  ASSERT_TRUE(completion.ok()) << completion.status();
  EXPECT_EQ(completion->token_ids.size(), 12u);
  engine->Drain(absl::Now());
  const absl::Status after =
      engine->Submit(Generation({1, 2}, 2), std::make_shared<Recorder>()).status();
  EXPECT_EQ(after.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(DetailsOf(after).reason, "DRAINING");
}

TEST(SmallEngine, EndsWhatOutlastsTheDrainingAsUnavailable) {
  std::vector<std::shared_ptr<Recorder>> recorders;
  const std::unique_ptr<Engine> engine =
      StartOwn({.kv_cache_bytes = 256 << 20, .max_batch_rows = 1});
  ASSERT_NE(engine, nullptr);
  for (int i = 0; i < 2; ++i) {
    recorders.push_back(std::make_shared<Recorder>());
    ASSERT_TRUE(engine->Submit(Endless(), recorders.back()).ok());
  }
  ASSERT_TRUE(recorders[0]->AwaitDelta());
  engine->Drain(absl::Now() + absl::Milliseconds(100));
  for (const auto& recorder : recorders) {
    EXPECT_EQ(recorder->Await().status().code(), absl::StatusCode::kUnavailable);
  }
}

TEST(SmallEngine, OfDrainsThatMeetTheOneThatEndsRequestsFirstSaysWhy) {
  const std::unique_ptr<Engine> engine = StartOwn({.kv_cache_bytes = 256 << 20});
  ASSERT_NE(engine, nullptr);
  const auto recorder = std::make_shared<Recorder>();
  ASSERT_TRUE(engine->Submit(Endless(), recorder).ok());
  ASSERT_TRUE(recorder->AwaitDelta());
  std::thread sooner([&] { engine->Drain(absl::Now() + absl::Milliseconds(300)); });
  EXPECT_TRUE(Becomes([&] { return !engine->CheckAccepts().ok(); }));
  engine->Drain(absl::InfiniteFuture(), absl::UnavailableError("later, and of no hurry"));
  sooner.join();
  EXPECT_EQ(DetailsOf(recorder->Await().status()).reason, "DRAINING");
}

// A client that keeps its handle must not keep what the engine gave away.
TEST_F(EngineTest, AFinishedRequestIsLetGoOfWhileItsHandleIsKept) {
  auto recorder = std::make_shared<Recorder>();
  const std::weak_ptr<Recorder> watched = recorder;
  Request request = Generation(Prompt(0), 3);
  request.taps = {Read(Site::kResidualPost, {3}, TokenKind::kAll, Reduction::kNone)};
  const auto handle = engine().Submit(std::move(request), recorder);
  ASSERT_TRUE(handle.ok()) << handle.status();
  ASSERT_TRUE(recorder->Await().ok());
  recorder.reset();
  EXPECT_TRUE(Becomes([&] { return watched.expired(); }));
  (*handle)->Cancel();
}

TEST_F(EngineTest, CapturesThatNobodyTookMakeOthersWait) {
  EXPECT_TRUE(Becomes([&] { return engine().statistics().capture_memory_bytes == 0; }));
  Request large;
  large.prompt = Prompt(0);
  large.given_response.assign(1200, 100);
  large.taps = {Read(Site::kMlpNeurons, {}, TokenKind::kAll, Reduction::kNone)};
  for (int layer = 0; layer < 30; ++layer) large.taps[0].layers.push_back(layer);
  // Over 1200 tokens x 30 layers x 1536 neurons, captured and copied: more than half of 1 GiB.
  auto recorder = std::make_shared<Recorder>();
  const auto handle = engine().Submit(large, recorder);
  ASSERT_TRUE(handle.ok()) << handle.status();
  EXPECT_GT(engine().statistics().capture_memory_bytes, int64_t{400} << 20);
  large.given_response.resize(1700, 100);
  const absl::Status refused = Refusal(large);
  EXPECT_EQ(DetailsOf(refused).reason, "CAPTURE_MEMORY_FULL");
  EXPECT_TRUE(DetailsOf(refused).retry_after.has_value());
  (*handle)->Cancel();
  EXPECT_EQ(recorder->Await().status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(Becomes([&] { return engine().statistics().capture_memory_bytes == 0; }));
}

TEST_F(EngineTest, ACaptureOfSomeNeuronsTakesMemoryForTheseOnly) {
  Request request;
  request.prompt = Prompt(0);
  Tap some = Read(Site::kMlpNeurons, {3, 7}, TokenKind::kAll, Reduction::kNone);
  const Tap all = some;
  some.columns = {{5, 1535}, {0}};
  request.taps = {all, some};
  const auto tokens = static_cast<int64_t>(request.prompt.size());
  Completion both = Run(request);
  both.memory.reset();
  request.taps = {some};
  const Completion one = Run(request);
  ASSERT_EQ(one.captures.size(), 2u);  // one a layer
  const std::span<const float> whole = both.captures[0].tensor.As<float>();
  for (size_t layer = 0; layer < 2; ++layer) {
    const auto& columns = some.columns[layer].values();
    EXPECT_EQ(one.captures[layer].columns, columns);
    const std::span<const float> chosen = one.captures[layer].tensor.As<float>();
    ASSERT_EQ(chosen.size(), columns.size() * request.prompt.size());
    for (size_t i = 0; i < chosen.size(); ++i) {
      const size_t token = i / columns.size();
      const auto column = static_cast<size_t>(columns[i % columns.size()]);
      EXPECT_EQ(chosen[i], whole[(layer * request.prompt.size() + token) * 1536 + column]);
    }
  }
  // Captured and copied: 3 neurons of every token, 4 bytes each.
  EXPECT_EQ(engine().statistics().capture_memory_bytes, 2 * 3 * tokens * 4);
}

TEST_F(EngineTest, SomeTokensLogitsAreThoseOfAll) {
  Request request;
  request.prompt = Prompt(0);
  Tap some = Read(Site::kLogits, {}, TokenKind::kLastPrompt, Reduction::kMean);
  const Tap all = some;
  some.columns = {{7, 400}};
  request.taps = {all, some};
  const Completion both = Run(request);
  ASSERT_EQ(both.captures.size(), 2u);
  EXPECT_EQ(both.captures[1].columns, (std::vector<int64_t>{7, 400}));
  EXPECT_TRUE(both.captures[1].layers.empty());
  const auto whole = both.captures[0].tensor.As<float>();
  EXPECT_EQ(Floats(both.captures[1]), (std::vector<float>{whole[7], whole[400]}));
}

TEST_F(EngineTest, ADeliveredCaptureHoldsItsMemoryUntilItIsDropped) {
  Request request = Generation(Prompt(0), 2);
  request.taps = {Read(Site::kResidualPost, {3}, TokenKind::kAll, Reduction::kNone)};
  {
    const Completion kept = Run(request);
    EXPECT_GT(engine().statistics().capture_memory_bytes, 0);
  }
  EXPECT_TRUE(Becomes([&] { return engine().statistics().capture_memory_bytes == 0; }));
}

TEST_F(EngineTest, SteeringBeyondTheRangeOfNumbersIsAnErrorAndNotAToken) {
  Request request = Generation(Prompt(0), 3);
  const auto huge =
      std::make_shared<const std::vector<float>>(static_cast<size_t>(hidden()), 3e38f);
  request.interventions = {Steer(5, huge, 1), Steer(5, huge, 1)};
  auto recorder = std::make_shared<Recorder>();
  const auto handle = engine().Submit(std::move(request), recorder);
  ASSERT_TRUE(handle.ok()) << handle.status();
  const auto completion = recorder->Await();
  EXPECT_EQ(completion.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(completion.status()).reason, "LOGITS_NOT_FINITE");
  EXPECT_EQ(Run(Generation(Prompt(0), 3)).token_ids.size(), 3u);
}

}  // namespace
}  // namespace valuescope::engine
