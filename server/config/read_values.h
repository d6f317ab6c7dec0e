// Values of flags, from their text. Errors say what is allowed; the caller puts a name before them.
#ifndef VALUESCOPE_CONFIG_READ_VALUES_H_
#define VALUESCOPE_CONFIG_READ_VALUES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace valuescope::config {

absl::Status Refuse(absl::string_view what);

// What people wrote, on one line whatever it was.
std::string Shown(absl::string_view text);

absl::Status ReadInteger(absl::string_view text, int64_t lowest, int64_t highest, int64_t& value);

// "1073741824", "512MiB", "2GiB".
absl::Status ReadBytes(absl::string_view text, int64_t lowest, int64_t highest, int64_t& value);

// A file that a flag names, and that must be there; empty where the flag was not given.
absl::Status CheckReadable(absl::string_view flag, const std::string& file);

}  // namespace valuescope::config

#endif  // VALUESCOPE_CONFIG_READ_VALUES_H_
