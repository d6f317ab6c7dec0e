#include "services/label_reading.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "tests/store/temporary_folder.h"
#include "tests/studies/fake_engine.h"
#include "tests/text/small_tokenizers.h"

namespace valuescope::services {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pointwise;

using Sequences = std::vector<std::vector<int32_t>>;

// A model over the fake engine, whose logit of token d is t (d + 1) with t the last token of the
// prompt, and whose log-probability of a given token t is -t / 64.
class Model {
 public:
  explicit Model(const std::string& tokenizer) {
    std::filesystem::create_directories(folder_ / "model");
    std::ofstream(folder_ / "model/tokenizer.json") << tokenizer;
    auto text = text::TextModel::Load(folder_ / "model");
    EXPECT_TRUE(text.ok()) << text.status();
    engine = models_.Add("m", std::string(64, 'a'), *std::move(text));
    model = *models_.Get("m");
  }

  LabelTokens Tokens(const std::vector<Spellings>& labels,
                     UnspelledLabels unspelled = UnspelledLabels::kBySequences) const {
    auto tokens = LabelTokens::Of(labels, *model, unspelled);
    EXPECT_TRUE(tokens.ok()) << tokens.status();
    return *std::move(tokens);
  }

  std::shared_ptr<FakeEngine> engine;
  std::shared_ptr<const engine::ServedModel> model;

 private:
  const TemporaryFolder folder_;
  FakeModels models_;
};

engine::Request Asked(std::vector<int32_t> prompt) {
  engine::Request request;
  request.prompt = std::move(prompt);
  return request;
}

// Of log-probabilities, one a label.
std::vector<double> Shares(const std::vector<double>& probabilities) {
  double all = 0;
  for (const double one : probabilities) all += one;
  std::vector<double> shares;
  for (const double one : probabilities) shares.push_back(one / all);
  return shares;
}

TEST(LabelTokens, AreThoseThatSpellALabelWithASpaceOrWithout) {
  const Model words(text::WordTokenizer({"b", "c", "e", "d", "B"}));
  const LabelTokens tokens = words.Tokens({{"b", "B"}, {"d"}});
  EXPECT_FALSE(tokens.by_sequences());
  EXPECT_THAT(tokens.tokens(), ElementsAre(ElementsAre(1, 5), ElementsAre(4)));
  EXPECT_EQ(tokens.CostOfPrompt().passes, 1);
  EXPECT_EQ(tokens.CostOfPrompt().tokens, 0);
}

// As bytes "1" is a token, "10" is two, and a space is one of its own, which comes first in order.
TEST(LabelTokens, AreSequencesOfAllLabelsWhereNoTokenSpellsOne) {
  const Model bytes(text::ByteLevelTokenizer());
  const LabelTokens tokens = bytes.Tokens({{"1"}, {"10"}});
  EXPECT_TRUE(tokens.by_sequences());
  EXPECT_THAT(tokens.tokens(), IsEmpty());
  EXPECT_THAT(tokens.sequences(),
              ElementsAre(Sequences{{' ', '1'}, {'1'}}, Sequences{{' ', '1', '0'}, {'1', '0'}}));
  EXPECT_EQ(tokens.CostOfPrompt().passes, 4);
  EXPECT_EQ(tokens.CostOfPrompt().tokens, 8);
  EXPECT_EQ(tokens.CostOfPrompt().longest, 3);
}

TEST(LabelTokens, LabelsThatNothingTellsApartAreNamed) {
  const Model words(text::WordTokenizer({"b"}));
  for (const UnspelledLabels how :
       {UnspelledLabels::kBySequences, UnspelledLabels::kByFirstTokens}) {
    const absl::Status status = LabelTokens::Of({{"b"}, {"x"}, {"y"}}, *words.model, how).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(DetailsOf(status).reason, "UNREADABLE_LABELS");
    EXPECT_THAT(status.message(), HasSubstr("models/m"));
  }
}

TEST(LabelTokens, FirstTokensAreReadOnlyWhereThatIsAskedFor) {
  const Model bytes(text::ByteLevelTokenizer());
  const LabelTokens tokens =
      bytes.Tokens({{"Yes"}, {"No"}, {"A", "Any"}}, UnspelledLabels::kByFirstTokens);
  EXPECT_THAT(tokens.tokens(), ElementsAre(ElementsAre('Y'), ElementsAre('N'), ElementsAre('A')));
  EXPECT_EQ(LabelTokens::Of({{"Yes"}, {"Yap"}}, *bytes.model, UnspelledLabels::kByFirstTokens)
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(LabelReading, ProbabilitiesAreSumsOverTokensAndTheMassIsOfAllTokens) {
  const Model words(text::WordTokenizer({"b", "c", "e", "d", "B"}));
  const std::vector<float> logits = {.5f, 1, -2, 3, .25f, 4};
  const LabelReading reading = ReadTokens(logits, words.Tokens({{"b", "B"}, {"d"}}));
  double all = 0;
  for (const float logit : logits) all += std::exp(double{logit});
  const double b = std::exp(1.0) + std::exp(4.0), d = std::exp(.25);
  EXPECT_THAT(reading.probabilities, Pointwise(DoubleNear(1e-14), Shares({b, d})));
  EXPECT_NEAR(reading.mass, (b + d) / all, 1e-14);
}

TEST(LabelReading, LogitsFarApartLoseNothing) {
  const Model words(text::WordTokenizer({"b", "d"}));
  const LabelReading reading =
      ReadTokens(std::vector<float>{-3000, 2000, 2001}, words.Tokens({{"b"}, {"d"}}));
  EXPECT_NEAR(reading.probabilities[0], 1 / (1 + std::exp(1.0)), 1e-14);
  EXPECT_EQ(reading.mass, 1);
}

// p("1") holds p("10"), which holds p("100").
TEST(LabelReading, OfSequencesThatBeginAnotherTheLongerIsTakenOut) {
  const Model bytes(text::ByteLevelTokenizer());
  const LabelTokens tokens = bytes.Tokens({{"1"}, {"10"}, {"100"}, {"2"}});
  std::vector<std::vector<double>> logprobs;
  for (const double p : {.5, .3, .1, .25}) logprobs.push_back({std::log(p / 100), std::log(p)});
  const LabelReading reading = ReadSequences(logprobs, tokens);
  EXPECT_THAT(reading.probabilities, Pointwise(DoubleNear(1e-14), Shares({.2, .2, .1, .25})));
  EXPECT_NEAR(reading.mass, .75, 1e-14);
}

TEST(LabelReading, RoundingMakesNothingNegativeAndNoMassAboveOne) {
  const Model bytes(text::ByteLevelTokenizer());
  const LabelTokens tokens = bytes.Tokens({{"1"}, {"10"}});
  const LabelReading reading = ReadSequences({{-50, -1e-9}, {-50, 1e-9}}, tokens);
  EXPECT_THAT(reading.probabilities, ElementsAre(0, 1));
  EXPECT_EQ(reading.mass, 1);
}

TEST(LabelReading, OfSpellingsTheLikeliestCounts) {
  const Model bytes(text::ByteLevelTokenizer());
  const LabelTokens tokens = bytes.Tokens({{"AB", "XY"}, {"CD"}});
  const auto logs = [](std::vector<double> probabilities) {
    for (double& one : probabilities) one = std::log(one);
    return probabilities;
  };
  const LabelReading reading = ReadSequences({logs({.1, .05, .01, .3}), logs({.2, .01})}, tokens);
  EXPECT_THAT(reading.probabilities, Pointwise(DoubleNear(1e-14), Shares({.3, .2})));
}

TEST(ReadLabels, ReadsTheLogitsBehindThePromptAndWhatIsSampledThere) {
  const Model words(text::WordTokenizer({"b", "c", "d"}));
  const LabelTokens two = words.Tokens({{"b"}, {"d"}}), three = words.Tokens({{"b"}, {"c"}, {"d"}});
  std::vector<LabelQuestion> questions = {{Asked({9, 2}), &two}, {Asked({9, 1}), &three}};
  questions[1].request.sampling.emplace().seed = 5;
  v1::Usage usage;
  const auto readings = ReadLabels(*words.engine, questions, {}, usage);
  ASSERT_TRUE(readings.ok()) << readings.status();
  EXPECT_THAT((*readings)[0].probabilities,
              Pointwise(DoubleNear(1e-14), Shares({std::exp(4), std::exp(8)})));
  EXPECT_THAT((*readings)[1].probabilities,
              Pointwise(DoubleNear(1e-14), Shares({std::exp(2), std::exp(3), std::exp(4)})));
  EXPECT_EQ((*readings)[0].text, "");
  EXPECT_EQ((*readings)[1].text, "t5 t5 t5 t5");
  EXPECT_EQ(usage.prompt_tokens(), 4);
  EXPECT_EQ(usage.generated_tokens(), 4);
  EXPECT_EQ(words.engine->submitted, 2);
}

TEST(ReadLabels, ScoresEverySequenceAndSumsItsTokens) {
  const Model bytes(text::ByteLevelTokenizer());
  bytes.engine->before_submit = [](const engine::Request& request) {
    EXPECT_TRUE(request.taps.empty());
    EXPECT_EQ(request.sampling.has_value(), request.given_response.empty());
    return absl::OkStatus();
  };
  const LabelTokens labels = bytes.Tokens({{"12"}, {"1"}, {"3"}});
  std::vector<LabelQuestion> questions = {{Asked({9}), &labels}, {Asked({8}), &labels}};
  questions[1].request.sampling.emplace().seed = 5;
  v1::Usage usage;
  const auto readings = ReadLabels(*bytes.engine, questions, {}, usage);
  ASSERT_TRUE(readings.ok()) << readings.status();
  const auto p = [](int token) { return std::exp(-token / 64.0); };
  const std::vector<double> expected = {p('1') * p('2'), p('1') - p('1') * p('2'), p('3')};
  for (const LabelReading& reading : *readings) {
    EXPECT_THAT(reading.probabilities, Pointwise(DoubleNear(1e-12), Shares(expected)));
    EXPECT_NEAR(reading.mass, std::min(1.0, expected[0] + expected[1] + expected[2]), 1e-12);
  }
  EXPECT_EQ((*readings)[0].text, "");
  EXPECT_EQ((*readings)[1].text, "t5 t5 t5 t5");
  EXPECT_EQ(bytes.engine->submitted, 13);
}

TEST(ReadLabels, ReceiptsAreSummedOverThePassesOfAQuestion) {
  const Model bytes(text::ByteLevelTokenizer());
  bytes.engine->receipts = {{.intervention_index = 0, .layers = {1}, .positions = 2}};
  const LabelTokens labels = bytes.Tokens({{"12"}, {"3"}});
  v1::Usage usage;
  const auto readings = ReadLabels(*bytes.engine, {{Asked({9}), &labels}}, {}, usage);
  ASSERT_TRUE(readings.ok()) << readings.status();
  ASSERT_EQ(readings->front().receipts.size(), 1u);
  EXPECT_EQ(readings->front().receipts.front().positions, 8);
  EXPECT_THAT(readings->front().receipts.front().layers, ElementsAre(1));
}

TEST(ReadLabels, LogitsThatAreNoNumbersAreAnError) {
  const Model words(text::WordTokenizer({"b", "d"}));
  const LabelTokens labels = words.Tokens({{"b"}, {"d"}});
  words.engine->scale = INFINITY;
  v1::Usage usage;
  const absl::Status status =
      ReadLabels(*words.engine, {{Asked({1}), &labels}}, {}, usage).status();
  EXPECT_EQ(DetailsOf(status).reason, "LOGITS_NOT_FINITE");
}

}  // namespace
}  // namespace valuescope::services
