#include "analysis/word_list.h"

#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::analysis {
namespace {

// Length in bytes of the piece of a word that starts at `text[i]`, 0 if none does.
size_t WordPieceLength(absl::string_view text, size_t i) {
  const auto byte = [&](size_t at) {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
  };
  const unsigned first = byte(i);
  if (first < 0x80) return absl::ascii_isalnum(static_cast<unsigned char>(first)) ? 1 : 0;
  if (first == 0xC2) return 0;                                          // U+0080 .. U+00BF
  if (first == 0xE2 && (byte(i + 1) == 0x80 || byte(i + 1) == 0x81)) {  // U+2000 .. U+207F
    return 0;
  }
  if (first == 0xE3 && byte(i + 1) == 0x80) return 0;  // U+3000 .. U+303F
  size_t length = 1;
  while ((byte(i + length) & 0xC0) == 0x80) ++length;
  return length;
}

// Length of what is no word at `text[i]`: one character of UTF-8.
size_t CharacterLength(absl::string_view text, size_t i) {
  size_t length = 1;
  while (i + length < text.size() &&
         (static_cast<unsigned char>(text[i + length]) & 0xC0) == 0x80) {
    ++length;
  }
  return length;
}

// Length of the word that starts at `text[i]`, 0 if none does.
size_t WordLength(absl::string_view text, size_t i) {
  size_t end = i;
  while (end < text.size()) {
    const size_t piece = WordPieceLength(text, end);
    if (piece == 0) break;
    end += piece;
  }
  return end - i;
}

}  // namespace

absl::StatusOr<WordList> WordList::Create(std::span<const std::string> entries) {
  if (entries.empty()) return InvalidField("words", "must not be empty");
  WordList list;
  for (size_t i = 0; i < entries.size(); ++i) {
    std::string word = absl::AsciiStrToLower(entries[i]);
    const bool is_prefix = absl::EndsWith(word, "*");
    if (is_prefix) word.pop_back();
    if (word.empty() || WordLength(word, 0) != word.size()) {
      return InvalidField(absl::StrCat("words[", i, "]"),
                          "must be one word of letters and digits, with `*` at its end for every "
                          "word that begins so");
    }
    if (is_prefix) {
      list.prefixes_.push_back(std::move(word));
    } else {
      list.words_.insert(std::move(word));
    }
  }
  return list;
}

int64_t WordList::CountMatches(absl::string_view text) const {
  int64_t count = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t length = WordLength(text, i);
    if (length == 0) {
      i += CharacterLength(text, i);
      continue;
    }
    if (Matches(absl::AsciiStrToLower(text.substr(i, length)))) ++count;
    i += length;
  }
  return count;
}

bool WordList::Matches(const std::string& word) const {
  if (words_.contains(word)) return true;
  for (const std::string& prefix : prefixes_) {
    if (absl::StartsWith(word, prefix)) return true;
  }
  return false;
}

}  // namespace valuescope::analysis
