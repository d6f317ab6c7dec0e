// Where a request gave something that is one of many: inline, or as a line of a file.
#ifndef VALUESCOPE_KINDS_GIVEN_PLACE_H_
#define VALUESCOPE_KINDS_GIVEN_PLACE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"

namespace valuescope::kinds {

struct GivenPlace {
  std::string field;  // "items[2]", or that of the file
  std::string line;   // "line 3: " of a file; else empty

  static GivenPlace Inline(absl::string_view list, int index) {
    return {.field = absl::StrCat(list, "[", index, "]"), .line = ""};
  }
  static GivenPlace Line(absl::string_view field, int64_t number) {
    return {.field = std::string(field), .line = absl::StrCat("line ", number, ": ")};
  }

  // INVALID_ARGUMENT about the part `name` of what was given there: "items[2].text: what", or
  // "artifact: line 3: `text` what".
  absl::Status Invalid(absl::string_view name, absl::string_view what,
                       absl::string_view reason = "INVALID_FIELD") const {
    if (line.empty()) return InvalidField(absl::StrCat(field, ".", name), what, reason);
    return InvalidField(field, absl::StrCat(line, "`", name, "` ", what), reason);
  }

  // What is wrong with something that was made of it, of the field that it came in; other statuses
  // pass unchanged.
  absl::Status Of(const absl::Status& status) const {
    const ErrorDetails details = DetailsOf(status);
    if (details.field.empty()) return status;
    return InvalidField(field, absl::StrCat(line, details.description), details.reason);
  }
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_GIVEN_PLACE_H_
