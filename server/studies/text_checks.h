// What a text is checked for by itself: whether it says something at all, whether it refuses, which
// instructions it follows (Instruction of the contract tells what each means).
#ifndef VALUESCOPE_STUDIES_TEXT_CHECKS_H_
#define VALUESCOPE_STUDIES_TEXT_CHECKS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/text_counts.h"
#include "text/word_list.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::studies {

// Of the request's phrases and instructions. Immutable; safe from any number of threads.
class TextChecks {
 public:
  static constexpr int kMostInstructions = 64;

  // INVALID_ARGUMENT naming "refusal_phrases[i]" or "instructions[i]...": an entry that a word list
  // refuses, more than kMostInstructions, one without its field, a negative number, nothing to end
  // with, no script of Unicode's.
  static absl::StatusOr<TextChecks> Of(const v1::MeasureTextsRequest& request);

  bool looks_for_refusals() const { return refusals_ != nullptr; }

  // Whether a phrase of the request is in the text, which is UTF-8; false without phrases.
  absl::StatusOr<bool> Refuses(absl::string_view text) const;
  // Bit i: the text, UTF-8, follows instruction i.
  absl::StatusOr<uint64_t> Followed(absl::string_view text) const;

 private:
  struct Check {
    v1::Instruction what;
    std::unique_ptr<const text::WordList> phrase;  // of includes and excludes
  };

  static absl::StatusOr<Check> CheckOf(const v1::Instruction& instruction);
  static absl::StatusOr<bool> Follows(const Check& check, absl::string_view text,
                                      const text::TextCounts& counts);

  std::unique_ptr<const text::WordList> refusals_;
  std::vector<Check> checks_;
};

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_TEXT_CHECKS_H_
