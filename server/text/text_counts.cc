#include "text/text_counts.h"

#include "base/check.h"
#include "base/status_macros.h"
#include "text/library_failure.h"
#include "text/rust_interface.h"

namespace valuescope::text {

absl::StatusOr<TextCounts> CountsOf(absl::string_view text) {
  VsTextCounts counts = {};
  OwnedString error;
  VS_RETURN_IF_ERROR(StatusOf(vs_text_counts(Borrow(text), &counts, error.out()), error, "text"));
  return TextCounts{.words = static_cast<int64_t>(counts.words),
                    .sentences = static_cast<int64_t>(counts.sentences),
                    .has_capital = counts.has_capital,
                    .has_small = counts.has_small};
}

bool IsScript(absl::string_view name) {
  bool is = false;
  OwnedString error;
  // What is not UTF-8 is none.
  return vs_is_script(Borrow(name), &is, error.out()) == VS_OK && is;
}

absl::StatusOr<LetterCounts> LettersOf(absl::string_view text, absl::string_view script) {
  VS_CHECK(IsScript(script));
  size_t of_script = 0, of_any = 0;
  OwnedString error;
  VS_RETURN_IF_ERROR(
      StatusOf(vs_letters_of_script(Borrow(text), Borrow(script), &of_script, &of_any, error.out()),
               error, "text"));
  return LetterCounts{.of_script = static_cast<int64_t>(of_script),
                      .of_any = static_cast<int64_t>(of_any)};
}

}  // namespace valuescope::text
