// Labels text by words: which responses mention a value. Words are the longest runs of ASCII
// letters, digits and non-ASCII characters other than Latin-1, general and CJK punctuation; so
// "adventure's" is the words "adventure" and "s". ASCII letters match in either case, other
// characters as they are.
#ifndef VALUESCOPE_ANALYSIS_WORD_LIST_H_
#define VALUESCOPE_ANALYSIS_WORD_LIST_H_

#include <cstdint>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace valuescope::analysis {

class WordList {
 public:
  // An entry is one word ("thrill", matches only itself) or a prefix ("adventur*", matches every
  // word that begins so). INVALID_ARGUMENT, naming `words[i]`: no entries, an entry that is empty
  // or not one word.
  static absl::StatusOr<WordList> Create(std::span<const std::string> entries);

  // Words of `text` (UTF-8) that match any entry; each occurrence counts once.
  int64_t CountMatches(absl::string_view text) const;

 private:
  WordList() = default;

  bool Matches(const std::string& word) const;

  std::unordered_set<std::string> words_;  // lower case
  std::vector<std::string> prefixes_;      // lower case, without the star
};

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_WORD_LIST_H_
