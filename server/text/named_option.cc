#include "text/named_option.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::text {
namespace {

absl::StatusOr<std::unique_ptr<WordList>> WordsOf(absl::string_view field,
                                                  const std::string& words) {
  if (absl::EndsWith(words, "*")) return InvalidField(field, "must not end in \"*\"");
  auto list = WordList::Create(std::vector<std::string>{words});
  return list.ok() ? std::move(list) : WithFieldRenamed(list.status(), "words[0]", field);
}

bool Continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// `text` from the character before `begin` to the one behind `end`.
absl::string_view WithNeighbours(absl::string_view text, size_t begin, size_t end) {
  size_t first = begin == 0 ? 0 : begin - 1;
  while (first > 0 && Continues(text[first])) --first;
  size_t last = std::min(end + 1, text.size());
  while (last < text.size() && Continues(text[last])) ++last;
  return text.substr(first, last - first);
}

// Of the options found, the only one.
std::optional<int> OnlyOne(const std::vector<bool>& found) {
  if (std::count(found.begin(), found.end(), true) != 1) return std::nullopt;
  return static_cast<int>(std::find(found.begin(), found.end(), true) - found.begin());
}

bool Any(const std::vector<bool>& found) {
  return std::find(found.begin(), found.end(), true) != found.end();
}

}  // namespace

absl::StatusOr<NamedOption> NamedOption::Create(const std::vector<OptionInWords>& options) {
  NamedOption named;
  for (size_t i = 0; i < options.size(); ++i) {
    Sought& option = named.options_.emplace_back();
    option.label = options[i].label;
    VS_ASSIGN_OR_RETURN(option.label_word,
                        WordsOf(absl::StrCat("[", i, "].label"), options[i].label));
    if (options[i].text.empty()) continue;
    VS_ASSIGN_OR_RETURN(option.text_words,
                        WordsOf(absl::StrCat("[", i, "].text"), options[i].text));
  }
  for (size_t i = 0; i < options.size(); ++i) {
    Sought& option = named.options_[i];
    for (size_t other = 0; other < options.size() && option.text_words != nullptr; ++other) {
      if (other == i) continue;
      VS_ASSIGN_OR_RETURN(const bool part, option.text_words->OccursIn(options[other].text));
      if (part) option.within.push_back(other);
    }
  }
  return named;
}

absl::StatusOr<std::optional<int>> NamedOption::In(absl::string_view answer) const {
  std::vector<bool> labels;
  for (const Sought& option : options_) {
    VS_ASSIGN_OR_RETURN(const bool stands, LabelStandsIn(option, answer));
    labels.push_back(stands);
  }
  if (Any(labels)) return OnlyOne(labels);
  VS_ASSIGN_OR_RETURN(const std::vector<bool> texts, TextsIn(answer));
  return OnlyOne(texts);
}

absl::StatusOr<bool> NamedOption::LabelStandsIn(const Sought& option,
                                                absl::string_view answer) const {
  for (size_t place = answer.find(option.label); place != absl::string_view::npos;
       place = answer.find(option.label, place + 1)) {
    VS_ASSIGN_OR_RETURN(const bool alone, option.label_word->OccursIn(WithNeighbours(
                                              answer, place, place + option.label.size())));
    if (alone) return true;
  }
  return false;
}

absl::StatusOr<std::vector<bool>> NamedOption::TextsIn(absl::string_view answer) const {
  std::vector<bool> occurs;
  for (const Sought& option : options_) {
    bool found = false;
    if (option.text_words != nullptr) {
      VS_ASSIGN_OR_RETURN(found, option.text_words->OccursIn(answer));
    }
    occurs.push_back(found);
  }
  std::vector<bool> counted = occurs;
  for (size_t i = 0; i < options_.size(); ++i) {
    for (const size_t whole : options_[i].within) {
      if (occurs[whole]) counted[i] = false;
    }
  }
  return counted;
}

}  // namespace valuescope::text
