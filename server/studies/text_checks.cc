#include "studies/text_checks.h"

#include <algorithm>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace valuescope::studies {
namespace {

absl::Status CheckNumber(absl::string_view field, int32_t number) {
  if (number >= 0) return absl::OkStatus();
  return OutOfRange(field, number, 0, std::numeric_limits<int32_t>::max());
}

// Of one phrase; what is wrong with it is of `field`.
absl::StatusOr<std::unique_ptr<const text::WordList>> PhraseOf(absl::string_view field,
                                                               const std::string& phrase) {
  auto list = text::WordList::Create(std::span(&phrase, 1));
  if (!list.ok()) return WithFieldRenamed(list.status(), "words[0]", field);
  return list;
}

bool IsBullet(absl::string_view line) {
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  if (absl::StartsWith(line, "- ") || absl::StartsWith(line, "* ")) return true;
  const size_t digits = std::min(line.find_first_not_of("0123456789"), line.size());
  return digits > 0 && absl::StartsWith(line.substr(digits), ". ");
}

int64_t BulletsIn(absl::string_view text) {
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  return std::count_if(lines.begin(), lines.end(), IsBullet);
}

absl::StatusOr<bool> IsOfScript(absl::string_view text, absl::string_view script) {
  VS_ASSIGN_OR_RETURN(const text::LetterCounts letters, text::LettersOf(text, script));
  return 2 * letters.of_script > letters.of_any;
}

}  // namespace

absl::StatusOr<TextChecks> TextChecks::Of(const v1::MeasureTextsRequest& request) {
  TextChecks checks;
  if (!request.refusal_phrases().empty()) {
    const std::vector<std::string> phrases(request.refusal_phrases().begin(),
                                           request.refusal_phrases().end());
    auto list = text::WordList::Create(phrases);
    if (!list.ok()) return WithFieldRenamed(list.status(), "words", "refusal_phrases");
    checks.refusals_ = *std::move(list);
  }
  if (request.instructions_size() > kMostInstructions) {
    return OutOfRange("instructions", request.instructions_size(), 0, kMostInstructions);
  }
  for (int i = 0; i < request.instructions_size(); ++i) {
    auto check = CheckOf(request.instructions(i));
    if (!check.ok()) return InField(absl::StrCat("instructions[", i, "]"), check.status());
    checks.checks_.push_back(*std::move(check));
  }
  return checks;
}

absl::StatusOr<TextChecks::Check> TextChecks::CheckOf(const v1::Instruction& instruction) {
  Check check{.what = instruction, .phrase = nullptr};
  switch (instruction.instruction_case()) {
    case v1::Instruction::kMinWords:
      VS_RETURN_IF_ERROR(CheckNumber("min_words", instruction.min_words()));
      break;
    case v1::Instruction::kMaxWords:
      VS_RETURN_IF_ERROR(CheckNumber("max_words", instruction.max_words()));
      break;
    case v1::Instruction::kMaxSentences:
      VS_RETURN_IF_ERROR(CheckNumber("max_sentences", instruction.max_sentences()));
      break;
    case v1::Instruction::kBullets:
      VS_RETURN_IF_ERROR(CheckNumber("bullets", instruction.bullets()));
      break;
    case v1::Instruction::kIncludes: {
      VS_ASSIGN_OR_RETURN(check.phrase, PhraseOf("includes", instruction.includes()));
      break;
    }
    case v1::Instruction::kExcludes: {
      VS_ASSIGN_OR_RETURN(check.phrase, PhraseOf("excludes", instruction.excludes()));
      break;
    }
    case v1::Instruction::kEndsWith:
      if (!absl::StripAsciiWhitespace(instruction.ends_with()).empty()) break;
      return InvalidField("ends_with", "has nothing but white space");
    case v1::Instruction::kScript:
      if (text::IsScript(instruction.script())) break;
      return InvalidField("script",
                          "must be a name of ISO 15924 that Unicode gives characters, such as "
                          "\"Latn\", \"Hang\" or \"Arab\"");
    case v1::Instruction::kIsJson:
    case v1::Instruction::kLowerCase:
      break;
    case v1::Instruction::INSTRUCTION_NOT_SET:
      return InvalidField("instruction", "must be one of the fields of Instruction");
  }
  return check;
}

absl::StatusOr<bool> TextChecks::Refuses(absl::string_view text) const {
  if (refusals_ == nullptr) return false;
  return refusals_->OccursIn(text);
}

absl::StatusOr<uint64_t> TextChecks::Followed(absl::string_view text) const {
  if (checks_.empty()) return 0;
  VS_ASSIGN_OR_RETURN(const text::TextCounts counts, text::CountsOf(text));
  uint64_t followed = 0;
  for (size_t i = 0; i < checks_.size(); ++i) {
    VS_ASSIGN_OR_RETURN(const bool follows, Follows(checks_[i], text, counts));
    followed |= static_cast<uint64_t>(follows) << i;
  }
  return followed;
}

absl::StatusOr<bool> TextChecks::Follows(const Check& check, absl::string_view text,
                                         const text::TextCounts& counts) {
  const v1::Instruction& what = check.what;
  switch (what.instruction_case()) {
    case v1::Instruction::kMinWords:
      return counts.words >= what.min_words();
    case v1::Instruction::kMaxWords:
      return counts.words <= what.max_words();
    case v1::Instruction::kMaxSentences:
      return counts.sentences <= what.max_sentences();
    case v1::Instruction::kIncludes:
      return check.phrase->OccursIn(text);
    case v1::Instruction::kExcludes: {
      VS_ASSIGN_OR_RETURN(const bool occurs, check.phrase->OccursIn(text));
      return !occurs;
    }
    case v1::Instruction::kIsJson:
      return nlohmann::json::accept(text.begin(), text.end()) == what.is_json();
    case v1::Instruction::kBullets:
      return BulletsIn(text) == what.bullets();
    case v1::Instruction::kLowerCase:
      return what.lower_case() ? !counts.has_capital : !counts.has_small;
    case v1::Instruction::kEndsWith:
      return absl::EndsWith(absl::StripTrailingAsciiWhitespace(text),
                            absl::StripTrailingAsciiWhitespace(what.ends_with()));
    case v1::Instruction::kScript:
      return IsOfScript(text, what.script());
    case v1::Instruction::INSTRUCTION_NOT_SET:
      break;
  }
  return false;
}

}  // namespace valuescope::studies
