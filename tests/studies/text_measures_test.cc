// What texts are checked for one by one, and their measures by condition.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "google/protobuf/text_format.h"
#include "studies/measure_texts.h"
#include "studies/text_checks.h"

namespace valuescope::studies {
namespace {

v1::MeasureTextsRequest RequestOf(const std::string& text) {
  v1::MeasureTextsRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

bool Follows(const std::string& instruction, absl::string_view text) {
  const auto checks = TextChecks::Of(RequestOf("instructions { " + instruction + " }"));
  EXPECT_TRUE(checks.ok()) << checks.status();
  const auto followed = checks->Followed(text);
  EXPECT_TRUE(followed.ok()) << followed.status();
  return *followed == 1;
}

TEST(TextChecks, NumbersOfWordsAndSentencesAreBounds) {
  EXPECT_TRUE(Follows("min_words: 2", "Plan it."));
  EXPECT_FALSE(Follows("min_words: 3", "Plan it."));
  EXPECT_TRUE(Follows("max_words: 2", "Plan it."));
  EXPECT_FALSE(Follows("max_words: 1", "Plan it."));
  EXPECT_TRUE(Follows("max_words: 0", "..."));
  EXPECT_TRUE(Follows("max_sentences: 2", "One. Two."));
  EXPECT_FALSE(Follows("max_sentences: 1", "One. Two."));
}

TEST(TextChecks, PhrasesAreWholeAndWithoutRegardToCase) {
  EXPECT_TRUE(Follows("includes: 'thrill'", "A THRILL!"));
  EXPECT_FALSE(Follows("includes: 'thrill'", "thrilling"));
  EXPECT_FALSE(Follows("excludes: 'thrill*'", "thrilling"));
  EXPECT_TRUE(Follows("excludes: 'thrill'", "thrilling"));
}

TEST(TextChecks, JsonIsOneValueAlone) {
  for (const char* text : {"{\"a\": [1, null]}", " 3 \n", "\"x\"", "[]"}) {
    EXPECT_TRUE(Follows("is_json: true", text)) << text;
    EXPECT_FALSE(Follows("is_json: false", text)) << text;
  }
  for (const char* text : {"", "{} {}", "{'a': 1}", "Here: {}", "[1,]", "{\"a\"", "NaN"}) {
    EXPECT_FALSE(Follows("is_json: true", text)) << text;
  }
  // Nesting costs no stack.
  const std::string deep = std::string(1 << 20, '[') + std::string(1 << 20, ']');
  EXPECT_TRUE(Follows("is_json: true", deep));
}

TEST(TextChecks, BulletsAreCountedExactly) {
  constexpr char kText[] =
      "Plan:\n- one\n  * two\n\t10. three\n-four\n*five*\n1.5 six\n12) seven\n-";
  EXPECT_TRUE(Follows("bullets: 3", kText));
  EXPECT_FALSE(Follows("bullets: 2", kText));
  EXPECT_FALSE(Follows("bullets: 4", kText));
  EXPECT_TRUE(Follows("bullets: 0", ""));
}

TEST(TextChecks, CaseIsThatOfCasedLettersAlone) {
  EXPECT_TRUE(Follows("lower_case: true", "plan 1 \u4f60!"));
  EXPECT_FALSE(Follows("lower_case: true", "Plan"));
  EXPECT_TRUE(Follows("lower_case: false", "PLAN 1 \u00c9!"));
  EXPECT_FALSE(Follows("lower_case: false", "PLAn"));
  EXPECT_TRUE(Follows("lower_case: true", "42"));
  EXPECT_TRUE(Follows("lower_case: false", "42"));
}

TEST(TextChecks, AnEndIsFoundWhateverWhiteSpaceFollows) {
  EXPECT_TRUE(Follows("ends_with: 'Bye. '", "Well. Bye.\n\n"));
  EXPECT_FALSE(Follows("ends_with: 'Bye.'", "Bye. Well."));
  EXPECT_FALSE(Follows("ends_with: ' end'", "bend"));
}

TEST(TextChecks, AScriptHasMoreThanHalfOfTheLetters) {
  EXPECT_TRUE(Follows("script: 'Hang'", "\ud55c\uad6d\uc5b4 ok 123456789"));
  EXPECT_FALSE(Follows("script: 'Hang'", "\ud55c\uae00 ok"));
  EXPECT_FALSE(Follows("script: 'Latn'", "123"));
}

TEST(TextChecks, EachInstructionHasItsBit) {
  const auto checks = TextChecks::Of(
      RequestOf("instructions { min_words: 9 } instructions { max_words: 9 } instructions { "
                "includes: 'it' } refusal_phrases: 'I cannot' refusal_phrases: 'sorry*'"));
  ASSERT_TRUE(checks.ok()) << checks.status();
  EXPECT_EQ(*checks->Followed("Plan it."), 0b110u);
  EXPECT_TRUE(*checks->Refuses("Well,  i CANNOT say"));
  EXPECT_TRUE(*checks->Refuses("Sorryful"));
  EXPECT_FALSE(*checks->Refuses("Certainly"));
}

TEST(TextChecks, WhatCannotBeCheckedIsRefusedByName) {
  const auto field = [](const std::string& request) {
    return DetailsOf(TextChecks::Of(RequestOf(request)).status()).field;
  };
  EXPECT_EQ(field("instructions { }"), "instructions[0].instruction");
  EXPECT_EQ(field("instructions { bullets: 1 } instructions { min_words: -1 }"),
            "instructions[1].min_words");
  EXPECT_EQ(field("instructions { includes: ' ' }"), "instructions[0].includes");
  EXPECT_EQ(field("instructions { excludes: '' }"), "instructions[0].excludes");
  EXPECT_EQ(field("instructions { ends_with: ' ' }"), "instructions[0].ends_with");
  EXPECT_EQ(field("instructions { script: 'Jpan' }"), "instructions[0].script");
  EXPECT_EQ(field("refusal_phrases: 'no' refusal_phrases: '*'"), "refusal_phrases[1]");
  std::string many;
  for (int i = 0; i <= TextChecks::kMostInstructions; ++i) many += "instructions { bullets: 1 } ";
  EXPECT_EQ(field(many), "instructions");
}

TEST(WithDefaults, FillsInWhatIsLeftOutAndRefusesWhatIsOutOfRange) {
  const auto filled = WithDefaults(RequestOf("model: 'models/x' perplexity: true"), 1000);
  ASSERT_TRUE(filled.ok());
  EXPECT_THAT(filled->ngrams(), testing::ElementsAre(1, 2, 3));
  EXPECT_EQ(filled->vocabulary(), 1000);
  EXPECT_EQ(filled->self_bleu_texts(), 500);
  EXPECT_TRUE(filled->perplexity());
  EXPECT_EQ(filled->model(), "");
  const auto field = [](const std::string& request) {
    return DetailsOf(WithDefaults(RequestOf(request), 1000).status()).field;
  };
  EXPECT_EQ(field("ngrams: 1 ngrams: 9"), "ngrams[1]");
  EXPECT_EQ(field("ngrams: 0"), "ngrams[0]");
  EXPECT_EQ(field("ngrams: [1, 2, 3, 4, 5, 6, 7, 8, 1]"), "ngrams");
  EXPECT_EQ(field("vocabulary: 0"), "vocabulary");
  EXPECT_EQ(field("self_bleu_texts: 1"), "self_bleu_texts");
  EXPECT_EQ(field("self_bleu_texts: 2001"), "self_bleu_texts");
}

class Measures : public testing::Test {
 protected:
  void Add(const std::string& condition, std::vector<int32_t> ids, bool coherent = true,
           bool refuses = false, uint64_t followed = 0, double logprob = 0) {
    names_.push_back(std::make_unique<std::string>(condition));
    ids_.push_back(std::make_unique<std::vector<int32_t>>(std::move(ids)));
    texts_.push_back({.condition = names_.back().get(),
                      .ids = *ids_.back(),
                      .coherent = coherent,
                      .refuses = refuses,
                      .followed = followed,
                      .logprob = logprob});
  }
  v1::MeasureTextsResponse Measured(const std::string& request) {
    const auto filled = WithDefaults(RequestOf(request), 100);
    EXPECT_TRUE(filled.ok()) << filled.status();
    const auto measured = MeasureTexts(*filled, texts_, Cancellation());
    EXPECT_TRUE(measured.ok()) << measured.status();
    return *measured;
  }

 private:
  std::vector<std::unique_ptr<std::string>> names_;
  std::vector<std::unique_ptr<std::vector<int32_t>>> ids_;
  std::vector<MeasuredText> texts_;
};

TEST_F(Measures, AreOfEachConditionByItself) {
  Add("b", {1, 2, 3}, true, true, 0b01, -3);
  Add("a", {1, 2});
  Add("b", {}, false);
  Add("b", {4}, false, true, 0b11, -1);
  const auto response = Measured(
      "perplexity: true refusal_phrases: 'no' instructions { bullets: 1 } "
      "instructions { bullets: 2 } ngrams: 1");
  ASSERT_EQ(response.measures_size(), 2);
  const v1::TextMeasures& b = response.measures(0);
  EXPECT_EQ(b.condition(), "b");
  EXPECT_EQ(b.num_texts(), 3);
  EXPECT_EQ(b.num_empty(), 1);
  EXPECT_EQ(b.mean_tokens(), 2);
  EXPECT_EQ(b.coherent_share(), .5);
  EXPECT_EQ(b.refusal_rate(), 1);  // of the coherent one
  EXPECT_EQ(b.instructions(0).rate(), 1);
  EXPECT_EQ(b.instructions(1).rate(), .5);
  EXPECT_DOUBLE_EQ(b.perplexity(), std::exp(1.));
  EXPECT_EQ(b.diversity(0).num_ngrams(), 4);
  EXPECT_EQ(b.diversity(0).entropy(), 2);
  EXPECT_EQ(b.self_bleu_texts(), 2);
  EXPECT_EQ(b.self_bleu(), 0);
  const v1::TextMeasures& a = response.measures(1);
  EXPECT_EQ(a.condition(), "a");
  EXPECT_EQ(a.num_texts(), 1);
  EXPECT_FALSE(a.has_self_bleu());
  EXPECT_EQ(a.refusal_rate(), 0);
}

TEST_F(Measures, WhatCannotBeToldIsUnset) {
  Add("", {});
  Add("said", {1, 2}, false);
  const auto response =
      Measured("perplexity: true refusal_phrases: 'no' instructions { bullets: 1 }");
  const v1::TextMeasures& empty = response.measures(0);
  EXPECT_FALSE(empty.has_mean_tokens() || empty.has_coherent_share() || empty.has_refusal_rate() ||
               empty.has_perplexity() || empty.has_self_bleu() ||
               empty.instructions(0).has_rate() || empty.diversity(0).has_distinct());
  EXPECT_FALSE(response.measures(1).has_refusal_rate());
  EXPECT_FALSE(response.measures(1).diversity(2).has_entropy());
  EXPECT_THAT(response.warnings(),
              testing::ElementsAre(testing::HasSubstr("without a condition: all texts are empty"),
                                   testing::HasSubstr("`said`: only 0 of the texts")));
  EXPECT_FALSE(Measured("").measures(1).has_perplexity());
}

TEST_F(Measures, LengthsThatDifferAreWarnedOf) {
  Add("short", {1, 2, 3});
  Add("long", {1, 2, 3, 4, 5});
  EXPECT_THAT(Measured("").warnings(),
              testing::ElementsAre(testing::HasSubstr("3 to 5 tokens on average")));
}

TEST_F(Measures, SelfBleuOfADrawIsThatOfTheTextsWithTheSmallestNumbers) {
  for (int i = 0; i < 40; ++i) Add("", {i, i % 3, i % 5, i % 2});
  const auto all = Measured("self_bleu_texts: 40");
  const auto some = Measured("self_bleu_texts: 7 seed: 5");
  EXPECT_EQ(some.measures(0).self_bleu_texts(), 7);
  EXPECT_NE(some.measures(0).self_bleu(), all.measures(0).self_bleu());
  EXPECT_EQ(some.measures(0).self_bleu(),
            Measured("self_bleu_texts: 7 seed: 5").measures(0).self_bleu());
  EXPECT_NE(some.measures(0).self_bleu(),
            Measured("self_bleu_texts: 7 seed: 6").measures(0).self_bleu());
  EXPECT_EQ(all.measures(0).self_bleu(),
            Measured("self_bleu_texts: 2000 seed: 9").measures(0).self_bleu());
}

}  // namespace
}  // namespace valuescope::studies
