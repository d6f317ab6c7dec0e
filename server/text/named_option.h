// Which of a few options an answer in words names. Strict, since a wrong reading is worse than
// none.
//
// Options have labels ("6") and texts ("very much like me"). A label stands in the answer where it
// is spelled exactly and is a word of its own; a text where it occurs without regard to case
// (word_list.h has what a word of its own is: no letter, digit or mark continues it). Labels come
// first: texts are looked for where no label stands there. A text that is part of another which
// stands there does not count, so that "not like me" is not "like me". Where nothing stands there,
// or several labels or texts do, the answer names none.
#ifndef VALUESCOPE_TEXT_NAMED_OPTION_H_
#define VALUESCOPE_TEXT_NAMED_OPTION_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/word_list.h"

namespace valuescope::text {

struct OptionInWords {
  std::string label;  // not empty
  std::string text;   // empty: none
};

// Immutable; safe from any number of threads.
class NamedOption {
 public:
  // INVALID_ARGUMENT naming "[i].label" or "[i].text": the errors of WordList::Create for it, and
  // what ends in "*", which a list of words takes for a beginning.
  static absl::StatusOr<NamedOption> Create(const std::vector<OptionInWords>& options);

  // Its index; nullopt where the answer names none. The answer is UTF-8, else INVALID_ARGUMENT.
  absl::StatusOr<std::optional<int>> In(absl::string_view answer) const;

 private:
  struct Sought {
    std::string label;
    std::unique_ptr<WordList> label_word, text_words;  // text_words null: no text
    std::vector<size_t> within;                        // options of whose texts this one is a part
  };

  absl::StatusOr<bool> LabelStandsIn(const Sought& option, absl::string_view answer) const;
  absl::StatusOr<std::vector<bool>> TextsIn(absl::string_view answer) const;

  std::vector<Sought> options_;
};

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_NAMED_OPTION_H_
