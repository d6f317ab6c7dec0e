#include "text/word_list.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"

namespace valuescope::text {
namespace {

bool Occurs(const std::vector<std::string>& entries, absl::string_view text) {
  const auto list = WordList::Create(entries);
  EXPECT_TRUE(list.ok()) << list.status();
  const absl::StatusOr<bool> occurs = (*list)->OccursIn(text);
  EXPECT_TRUE(occurs.ok()) << occurs.status();
  return *occurs;
}

TEST(WordList, AWordIsWholeWhereNothingContinuesIt) {
  for (const char* text : {"thrill", "A THRILL!", "the thrill's end", "(thrill)", "thrill-seeker",
                           "self_thrill_", "\u201cthrill\u201d", "thrill\u2019s", "no.thrill\n"}) {
    EXPECT_TRUE(Occurs({"thrill"}, text)) << text;
  }
  for (const char* text : {"", "thrilling", "unthrill", "thrill2", "2thrill", "thril l",
                           "thrill\u00e9", "thrill\u0301s", "\u00e9thrill"}) {
    EXPECT_FALSE(Occurs({"thrill"}, text)) << text;
  }
}

TEST(WordList, CaseDoesNotMatterInAnyScript) {
  EXPECT_TRUE(Occurs({"\u00c9TUDE"}, "une \u00e9tude"));
  EXPECT_TRUE(Occurs({"\u0440\u0438\u0441\u043a"}, "\u0420\u0418\u0421\u041a!"));  // Cyrillic
  EXPECT_TRUE(
      Occurs({"\u03bb\u03cc\u03b3\u03bf\u03c2"}, "\u039b\u038c\u0393\u039f\u03a3"));  // final sigma
  EXPECT_TRUE(Occurs({"STRASSE"}, "die Stra\u00dfe"));
  EXPECT_FALSE(Occurs({"\u00e9tude"}, "etude"));
}

TEST(WordList, ComposedAndDecomposedCharactersAreOne) {
  EXPECT_TRUE(Occurs({"caf\u00e9"}, "Cafe\u0301."));
  EXPECT_TRUE(Occurs({"cafe\u0301"}, "Caf\u00e9."));
  EXPECT_FALSE(Occurs({"cafe"}, "Cafe\u0301."));
}

TEST(WordList, APhraseMayRunOverALineAndBeginWithinAnother) {
  EXPECT_TRUE(Occurs({"New  ideas"}, "always new\n\u00a0 ideas"));
  EXPECT_FALSE(Occurs({"new ideas"}, "new, ideas"));
  EXPECT_FALSE(Occurs({"new ideas"}, "anew ideas"));
  EXPECT_TRUE(Occurs({"a a"}, "ba a a"));
}

TEST(WordList, AStarStandsForTheRestOfAWord) {
  EXPECT_TRUE(Occurs({"adventur*"}, "Adventurous!"));
  EXPECT_TRUE(Occurs({"adventur*"}, "adventur"));
  EXPECT_FALSE(Occurs({"adventur*"}, "misadventure"));
  EXPECT_TRUE(Occurs({"take risk*"}, "I take risks"));
}

TEST(WordList, ScriptsWithoutSpacesHaveWordsAnywhere) {
  EXPECT_TRUE(Occurs({"\u5192\u9669"}, "\u6211\u559c\u6b22\u5192\u9669\u6d3b\u52a8"));
  EXPECT_FALSE(Occurs({"\u5192\u9669"}, "\u5192\u4e86\u9669"));
  EXPECT_TRUE(Occurs({"risk"}, "\u5927risk\u3002"));
}

TEST(WordList, AnyOfTheEntriesIsEnough) {
  EXPECT_TRUE(Occurs({"calm", "thrill"}, "what a thrill"));
  EXPECT_FALSE(Occurs({"calm", "quiet"}, "what a thrill"));
  EXPECT_TRUE(Occurs({":)"}, "thrilled :)"));
}

TEST(WordList, EntriesHaveSomethingToLookForAndAreNotTooMany) {
  const auto field_of = [](const std::vector<std::string>& entries) {
    return DetailsOf(WordList::Create(entries).status()).field;
  };
  EXPECT_EQ(field_of({}), "words");
  EXPECT_EQ(field_of(std::vector<std::string>(4097, "a")), "words");
  EXPECT_EQ(field_of(std::vector<std::string>(4096, "a")), "");
  EXPECT_EQ(field_of({"good", ""}), "words[1]");
  EXPECT_EQ(field_of({"good", " \t"}), "words[1]");
  EXPECT_EQ(field_of({"*"}), "words[0]");
  EXPECT_EQ(field_of({"good", "fine", std::string(257, 'x')}), "words[2]");
}

TEST(WordList, TextThatIsNotUtf8IsRefused) {
  const auto list = WordList::Create(std::vector<std::string>{"risk"});
  EXPECT_EQ(DetailsOf((*list)->OccursIn("risk \xff").status()).field, "text");
}

}  // namespace
}  // namespace valuescope::text
