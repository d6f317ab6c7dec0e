#include "text/word_list.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "text/library_failure.h"
#include "text/rust_interface.h"

namespace valuescope::text {

absl::StatusOr<std::unique_ptr<WordList>> WordList::Create(std::span<const std::string> entries) {
  if (entries.empty() || entries.size() > kMostWords) {
    return OutOfRange("words", static_cast<double>(entries.size()), 1, kMostWords);
  }
  std::vector<VsBytes> borrowed;
  borrowed.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].size() > kMostWordBytes) {
      return InvalidField(
          absl::StrCat("words[", i, "]"),
          absl::StrCat("has ", entries[i].size(), " bytes, allowed are at most ", kMostWordBytes));
    }
    borrowed.push_back(Borrow(entries[i]));
  }
  VsWordList* handle = nullptr;
  size_t bad_entry = 0;
  OwnedString error;
  const VsFailure failure =
      vs_word_list_new(borrowed.data(), borrowed.size(), &handle, &bad_entry, error.out());
  VS_RETURN_IF_ERROR(StatusOf(failure, error, absl::StrCat("words[", bad_entry, "]")));
  return std::unique_ptr<WordList>(new WordList(handle));
}

WordList::~WordList() { vs_word_list_free(handle_); }

absl::StatusOr<bool> WordList::OccursIn(absl::string_view text) const {
  bool occurs = false;
  OwnedString error;
  VS_RETURN_IF_ERROR(
      StatusOf(vs_word_list_occurs_in(handle_, Borrow(text), &occurs, error.out()), error, "text"));
  return occurs;
}

}  // namespace valuescope::text
