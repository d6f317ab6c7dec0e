// Whether a text has one of some words or phrases in it, whole and without regard to case: the
// simplest way to tell which responses speak of a value.
//
// Texts are compared in composed form (NFC) without regard to case in any script, and white space
// of any kind and length is one space. An entry is whole where no letter, digit or mark continues
// it on either side, so that "thrill" is in "thrill's" and not in "thrilling"; in scripts that are
// written without spaces it may stand wherever Unicode's word boundaries (UAX #29) let it.
#ifndef VALUESCOPE_TEXT_WORD_LIST_H_
#define VALUESCOPE_TEXT_WORD_LIST_H_

#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct VsWordList;

namespace valuescope::text {

// Immutable; safe from any number of threads.
class WordList {
 public:
  // An entry that ends in "*" stands for every word that begins so. INVALID_ARGUMENT naming "words"
  // or "words[i]": no entries, more than kMostWords, more than kMostWordBytes in one, nothing to
  // look for in it.
  static absl::StatusOr<std::unique_ptr<WordList>> Create(std::span<const std::string> entries);
  static constexpr size_t kMostWords = 4096;
  static constexpr size_t kMostWordBytes = 256;

  ~WordList();
  WordList(const WordList&) = delete;
  WordList& operator=(const WordList&) = delete;

  // Whether any entry is in the text, UTF-8; else INVALID_ARGUMENT naming "text".
  absl::StatusOr<bool> OccursIn(absl::string_view text) const;

 private:
  explicit WordList(VsWordList* handle) : handle_(handle) {}

  VsWordList* const handle_;
};

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_WORD_LIST_H_
