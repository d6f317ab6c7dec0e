#include "text/text_counts.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace valuescope::text {
namespace {

TextCounts MustCount(absl::string_view text) {
  const auto counts = CountsOf(text);
  EXPECT_TRUE(counts.ok()) << counts.status();
  return *counts;
}

TEST(TextCounts, WordsAreThoseOfUnicodeThatHoldALetterOrDigit) {
  EXPECT_EQ(MustCount("").words, 0);
  EXPECT_EQ(MustCount("... - !").words, 0);
  EXPECT_EQ(MustCount("The quick (\"brown\") fox can't jump 32.3 feet, right?").words, 9);
  EXPECT_EQ(MustCount("twenty-one").words, 2);
  // Characters of scripts without spaces are words; Korean has spaces.
  EXPECT_EQ(MustCount("\u4f60\u597d").words, 2);
  EXPECT_EQ(MustCount("\uc548\ub155 \uc138\uc0c1").words, 2);
}

TEST(TextCounts, SentencesAreThoseOfUnicode) {
  EXPECT_EQ(MustCount("").sentences, 0);
  EXPECT_EQ(MustCount("One. Two! Three? ...").sentences, 3);
  EXPECT_EQ(MustCount("It costs 3.5 euros").sentences, 1);
  EXPECT_EQ(MustCount("\u4f60\u597d\u3002\u518d\u89c1\u3002").sentences, 2);
  EXPECT_EQ(MustCount("line\nline").sentences, 2);
}

TEST(TextCounts, CapitalsAndSmallLettersAreThoseOfAnyScript) {
  EXPECT_TRUE(MustCount("a B").has_capital);
  EXPECT_TRUE(MustCount("a B").has_small);
  EXPECT_FALSE(MustCount("\u00e9\u043f 1!").has_capital);
  EXPECT_FALSE(MustCount("\u00c9\u041f 1!").has_small);
  EXPECT_FALSE(MustCount("\u4f60").has_capital);
  EXPECT_FALSE(MustCount("\u4f60").has_small);
  // A titlecase letter is both: a capital D with a small z.
  EXPECT_TRUE(MustCount("\u01c5").has_capital);
  EXPECT_TRUE(MustCount("\u01c5").has_small);
}

TEST(LetterCounts, CountLettersAloneAndSharedOnesForEachOfTheirScripts) {
  const auto letters = [](absl::string_view text, absl::string_view script) {
    const auto counts = LettersOf(text, script);
    EXPECT_TRUE(counts.ok()) << counts.status();
    return std::pair(counts->of_script, counts->of_any);
  };
  EXPECT_EQ(letters("abc 123 \u0431!", "Latn"), std::pair(int64_t{3}, int64_t{4}));
  EXPECT_EQ(letters("abc 123 \u0431!", "Cyrl"), std::pair(int64_t{1}, int64_t{4}));
  EXPECT_EQ(letters("123", "Latn"), std::pair(int64_t{0}, int64_t{0}));
  // The mark of a long vowel belongs to hiragana and katakana.
  EXPECT_EQ(letters("\u30b3\u30fc\u30d2\u30fc", "Kana"), std::pair(int64_t{4}, int64_t{4}));
  EXPECT_EQ(letters("\ud55c\uae00 ok", "Hang"), std::pair(int64_t{2}, int64_t{4}));
  // Mathematical letters are of all scripts.
  EXPECT_EQ(letters("\U0001d44e", "Latn"), std::pair(int64_t{0}, int64_t{0}));
}

TEST(Scripts, AreTheNamesThatUnicodeHas) {
  for (const char* name : {"Latn", "Hang", "Arab", "Hani", "Deva"}) EXPECT_TRUE(IsScript(name));
  for (const char* name : {"", "latn", "Latin", "Jpan", "Zyyy", "Zinh", "Zzzz", "\xff"}) {
    EXPECT_FALSE(IsScript(name)) << name;
  }
}

TEST(TextCounts, WhatIsNotUtf8IsRefused) {
  EXPECT_EQ(DetailsOf(CountsOf("\xff").status()).field, "text");
  EXPECT_EQ(DetailsOf(LettersOf("\xff", "Latn").status()).field, "text");
}

}  // namespace
}  // namespace valuescope::text
