#include "config/read_values.h"

#include <initializer_list>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace valuescope::config {

absl::Status Refuse(absl::string_view what) { return absl::InvalidArgumentError(what); }

std::string Shown(absl::string_view text) {
  constexpr size_t kMaxShown = 200;
  return absl::Utf8SafeCEscape(text.substr(0, kMaxShown));
}

absl::Status ReadInteger(absl::string_view text, int64_t lowest, int64_t highest, int64_t& value) {
  if (!absl::SimpleAtoi(text, &value) || value < lowest || value > highest) {
    return Refuse(absl::StrCat("must be a whole number from ", lowest, " to ", highest));
  }
  return absl::OkStatus();
}

absl::Status ReadBytes(absl::string_view text, int64_t lowest, int64_t highest, int64_t& value) {
  int64_t unit = 1;
  for (const auto& [suffix, bytes] : std::initializer_list<std::pair<const char*, int64_t>>{
           {"KiB", int64_t{1} << 10}, {"MiB", int64_t{1} << 20}, {"GiB", int64_t{1} << 30}}) {
    if (absl::EndsWith(text, suffix)) {
      text.remove_suffix(3);
      unit = bytes;
      break;
    }
  }
  int64_t count;
  if (!absl::SimpleAtoi(text, &count) || count < 0 ||
      count > std::numeric_limits<int64_t>::max() / unit || count * unit < lowest ||
      count * unit > highest) {
    return Refuse(absl::StrCat("must be ", lowest, " to ", highest,
                               " bytes, such as 1073741824, 512MiB or 1GiB"));
  }
  value = count * unit;
  return absl::OkStatus();
}

}  // namespace valuescope::config
