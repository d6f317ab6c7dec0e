// What a grid or a list of wordings names twice would run twice, and count twice wherever its
// points are counted: it is refused.
#ifndef VALUESCOPE_STUDIES_DISTINCT_ELEMENTS_H_
#define VALUESCOPE_STUDIES_DISTINCT_ELEMENTS_H_

#include <map>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::studies {

// INVALID_ARGUMENT naming the first of `elements`, a repeated field, that is one of those before
// it, and which: two are the same where `key_of` gives equal keys.
template <typename Elements, typename KeyOf>
absl::Status CheckDistinct(const std::string& field, const Elements& elements, KeyOf key_of) {
  std::map<std::decay_t<decltype(key_of(elements[0]))>, int> seen;
  for (int i = 0; i < elements.size(); ++i) {
    const auto [first, is_new] = seen.emplace(key_of(elements[i]), i);
    if (is_new) continue;
    return InvalidField(absl::StrCat(field, "[", i, "]"),
                        absl::StrCat("is there twice: it is `", field, "[", first->second, "]`"));
  }
  return absl::OkStatus();
}

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_DISTINCT_ELEMENTS_H_
