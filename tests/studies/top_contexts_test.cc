// Texts in which neurons are most active, over an engine whose activations a test can work out:
// neuron i of block l at token t is t (i + 1) + l.
#include "studies/top_contexts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "base/error.h"
#include "tests/studies/fake_engine.h"
#include "tests/text/small_tokenizers.h"

namespace valuescope::studies {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class TopContextsTest : public testing::Test {
 protected:
  TopContextsTest() : tokenizer_(*text::Tokenizer::Load(text::ByteLevelTokenizer())) {}

  static NumberedText Text(int64_t number, std::vector<int32_t> prompt,
                           std::vector<int32_t> response) {
    return {.number = number,
            .tokens = {.prompt = std::move(prompt), .response = std::move(response)}};
  }

  ContextsPlan Plan() const {
    return {
        .tenant = "lab", .neurons = {{1, 2}, {0, 3}}, .tokens = kResponse, .top_k = 2, .window = 1};
  }

  ContextSearch Search(ContextsPlan plan) {
    return ContextSearch(&engine_, tokenizer_.get(), std::move(plan));
  }

  static std::vector<int64_t> TextsOf(const std::vector<NeuronContext>& contexts) {
    std::vector<int64_t> texts;
    for (const NeuronContext& context : contexts) texts.push_back(context.text);
    return texts;
  }

  const engine::TokenSelection kResponse{.kind = engine::TokenKind::kResponse, .positions = {}};
  FakeEngine engine_;
  const std::unique_ptr<text::Tokenizer> tokenizer_;
};

TEST_F(TopContextsTest, EachNeuronHasItsLargestActivationsWithTheTokensAround) {
  ContextSearch search = Search(Plan());
  ASSERT_EQ(
      search.Add(std::vector{Text(0, {50, 60}, {5, 20, 7}), Text(1, {9}, {30, 8})}, Cancellation()),
      absl::OkStatus());
  ASSERT_EQ(search.contexts().size(), 2u);
  const std::vector<NeuronContext>& first = search.contexts()[0];  // neuron 2 of block 1
  ASSERT_THAT(TextsOf(first), ElementsAre(1, 0));
  // At the start of a response the window reaches into the prompt, which is not searched.
  EXPECT_EQ(first[0].position, 1);
  EXPECT_EQ(first[0].activation, 30 * 3 + 1);
  EXPECT_EQ(first[0].center, 1);
  EXPECT_THAT(first[0].token_ids, ElementsAre(9, 30, 8));
  EXPECT_THAT(first[0].activations, ElementsAre(28, 91, 25));
  EXPECT_EQ(first[1].position, 3);
  EXPECT_THAT(first[1].token_ids, ElementsAre(5, 20, 7));
  const std::vector<NeuronContext>& second = search.contexts()[1];  // neuron 3 of block 0
  EXPECT_EQ(second[0].activation, 30 * 4);
  EXPECT_THAT(second[1].activations, ElementsAre(20, 80, 28));
  EXPECT_EQ(search.prompt_tokens(), 8);
}

TEST_F(TopContextsTest, WindowsEndWithTheText) {
  ContextsPlan plan = Plan();
  plan.window = 64;
  ContextSearch search = Search(plan);
  ASSERT_EQ(search.Add(std::vector{Text(0, {1}, {2, 9, 3})}, Cancellation()), absl::OkStatus());
  const NeuronContext& context = search.contexts()[0][0];
  EXPECT_THAT(context.token_ids, ElementsAre(1, 2, 9, 3));
  EXPECT_EQ(context.center, 2);
  plan.window = 0;
  ContextSearch narrow = Search(plan);
  ASSERT_EQ(narrow.Add(std::vector{Text(0, {1}, {2, 9, 3})}, Cancellation()), absl::OkStatus());
  EXPECT_THAT(narrow.contexts()[0][0].token_ids, ElementsAre(9));
}

TEST_F(TopContextsTest, OfEqualActivationsTheEarlierTextAndTokenComeFirst) {
  ContextSearch search = Search(Plan());
  ASSERT_EQ(
      search.Add(std::vector{Text(0, {1}, {4, 20}), Text(1, {1}, {20, 3, 20})}, Cancellation()),
      absl::OkStatus());
  ASSERT_EQ(search.Add(std::vector{Text(2, {1}, {20}), Text(3, {1}, {21})}, Cancellation()),
            absl::OkStatus());
  ASSERT_THAT(TextsOf(search.contexts()[0]), ElementsAre(3, 0));
  ContextsPlan plan = Plan();
  plan.top_k = 4;
  ContextSearch more = Search(plan);
  ASSERT_EQ(more.Add(std::vector{Text(0, {1}, {4, 20}), Text(1, {1}, {20, 3, 20}),
                                 Text(2, {1}, {20}), Text(3, {1}, {21})},
                     Cancellation()),
            absl::OkStatus());
  ASSERT_THAT(TextsOf(more.contexts()[0]), ElementsAre(3, 0, 1, 2));
  EXPECT_EQ(more.contexts()[0][2].position, 1);
}

TEST_F(TopContextsTest, WhatIsKeptDoesNotDependOnHowTextsAreCut) {
  std::vector<NumberedText> texts;
  for (int i = 0; i < 40; ++i) texts.push_back(Text(i, {1}, {(i * 37) % 97, (i * 11) % 89, i}));
  ContextsPlan plan = Plan();
  plan.top_k = 7;
  ContextSearch whole = Search(plan), cut = Search(plan);
  ASSERT_EQ(whole.Add(texts, Cancellation()), absl::OkStatus());
  for (const NumberedText& text : texts) {
    ASSERT_EQ(cut.Add(std::span(&text, 1), Cancellation()), absl::OkStatus());
  }
  for (size_t neuron = 0; neuron < 2; ++neuron) {
    ASSERT_EQ(whole.contexts()[neuron].size(), 7u);
    EXPECT_EQ(TextsOf(whole.contexts()[neuron]), TextsOf(cut.contexts()[neuron]));
  }
}

TEST_F(TopContextsTest, TextsWithoutSuchATokenArePassedOver) {
  ContextSearch search = Search(Plan());
  ASSERT_EQ(search.Add(std::vector{Text(0, {90}, {}), Text(1, {1}, {2})}, Cancellation()),
            absl::OkStatus());
  EXPECT_THAT(TextsOf(search.contexts()[0]), ElementsAre(1));
  EXPECT_EQ(engine_.submitted, 1);
  ContextsPlan plan = Plan();
  plan.tokens = {.kind = engine::TokenKind::kPrompt, .positions = {}};
  ContextSearch of_prompts = Search(plan);
  ASSERT_EQ(of_prompts.Add(std::vector{Text(0, {90}, {}), Text(1, {1}, {2})}, Cancellation()),
            absl::OkStatus());
  EXPECT_THAT(TextsOf(of_prompts.contexts()[0]), ElementsAre(0, 1));
}

TEST_F(TopContextsTest, APositionThatATextLacksIsNamed) {
  ContextsPlan plan = Plan();
  plan.tokens = {.kind = engine::TokenKind::kPositions, .positions = {1, -4}};
  ContextSearch search = Search(plan);
  ASSERT_EQ(search.Add(std::vector{Text(0, {1, 2}, {3, 4})}, Cancellation()), absl::OkStatus());
  EXPECT_EQ(search.contexts()[0][0].position, 1);
  const absl::Status status = search.Add(std::vector{Text(1, {1}, {2, 3})}, Cancellation());
  EXPECT_EQ(DetailsOf(status).field, "tokens.positions[1]");
  EXPECT_THAT(std::string(status.message()), HasSubstr("of text 1"));
}

// Ids 0 to 255 are bytes; an emoji is four of them, of which the first two may be one token.
TEST_F(TopContextsTest, AWindowShowsWholeCharactersAndSpecialTokens) {
  const std::vector<int32_t> ids = *tokenizer_->Encode("a\U0001F600b", /*add_special_tokens=*/true);
  ASSERT_GE(ids.size(), 5u);  // BOS, a, three or four parts, b
  ContextsPlan plan = Plan();
  plan.tokens = {.kind = engine::TokenKind::kPositions, .positions = {3}};
  plan.window = 0;
  ContextSearch search = Search(plan);
  ASSERT_EQ(search.Add(std::vector{Text(0, ids, {})}, Cancellation()), absl::OkStatus());
  EXPECT_EQ(search.contexts()[0][0].shown, "\U0001F600");
  EXPECT_EQ(search.contexts()[0][0].token_ids.size(), 1u);
  plan.window = 64;
  ContextSearch all = Search(plan);
  ASSERT_EQ(all.Add(std::vector{Text(0, ids, {})}, Cancellation()), absl::OkStatus());
  EXPECT_EQ(all.contexts()[0][0].shown, "<s>a\U0001F600b");
}

TEST_F(TopContextsTest, EndsWhenItIsCancelled) {
  Cancellation cancellation;
  cancellation.Cancel();
  ContextSearch search = Search(Plan());
  EXPECT_EQ(search.Add(std::vector{Text(0, {1}, {2})}, cancellation).code(),
            absl::StatusCode::kCancelled);
  EXPECT_THAT(search.contexts()[0], IsEmpty());
}

TEST_F(TopContextsTest, ATextTakesANumberForEachTokenAndNeuron) {
  EXPECT_EQ(Search(Plan()).CaptureBytes(Text(0, {1, 2}, {3})), 3 * 2 * 4);
}

}  // namespace
}  // namespace valuescope::studies
