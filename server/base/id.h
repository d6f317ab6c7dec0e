// Random identifiers for resources, leases and requests, and what names may look like.
#ifndef VALUESCOPE_BASE_ID_H_
#define VALUESCOPE_BASE_ID_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace valuescope {

// A random (version 4) UUID from the operating system's generator, lower case.
std::string NewUuid();

// OK if `id` may stand behind "models/", "vectors/", ... : 1 to 128 of [A-Za-z0-9._-], first one
// alphanumeric, no "..". `field` names it in the error.
absl::Status CheckResourceId(absl::string_view field, absl::string_view id);

// INVALID_ARGUMENT naming `field` where a name for people has more than 256 bytes or a NUL.
absl::Status CheckDisplayName(absl::string_view field, absl::string_view name);

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_ID_H_
