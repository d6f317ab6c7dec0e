// How much there is of what in a text, as Unicode counts: words and sentences (UAX #29), letters of
// a script (UAX #24), small letters and capitals.
#ifndef VALUESCOPE_TEXT_TEXT_COUNTS_H_
#define VALUESCOPE_TEXT_TEXT_COUNTS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace valuescope::text {

struct TextCounts {
  int64_t words = 0;         // that hold a letter or digit
  int64_t sentences = 0;     // likewise
  bool has_capital = false;  // a titlecase letter is both
  bool has_small = false;
};

// INVALID_ARGUMENT naming "text" where it is not UTF-8.
absl::StatusOr<TextCounts> CountsOf(absl::string_view text);

// Whether Unicode has a script of this name of ISO 15924, such as "Latn". It has none of those that
// stand for several, such as "Jpan".
bool IsScript(absl::string_view name);

struct LetterCounts {
  int64_t of_script = 0;  // or that the script shares with some others
  int64_t of_any = 0;     // but for those that all scripts share
};

// IsScript(script). INVALID_ARGUMENT naming "text" where it is not UTF-8.
absl::StatusOr<LetterCounts> LettersOf(absl::string_view text, absl::string_view script);

}  // namespace valuescope::text

#endif  // VALUESCOPE_TEXT_TEXT_COUNTS_H_
