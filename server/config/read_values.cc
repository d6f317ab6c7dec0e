#include "config/read_values.h"

#include <unistd.h>

#include <filesystem>
#include <initializer_list>
#include <limits>
#include <system_error>
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

absl::Status CheckReadable(absl::string_view flag, const std::string& file) {
  if (file.empty()) return absl::OkStatus();
  if (access(file.c_str(), R_OK) != 0) {
    return Refuse(absl::StrCat(flag, " names a file that cannot be read"));
  }
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) {
    return Refuse(absl::StrCat(flag, " must name a file, not a directory"));
  }
  return absl::OkStatus();
}

}  // namespace valuescope::config
