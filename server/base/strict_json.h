// JSON from files that nobody vouches for: bounded nesting, no duplicate keys, no exceptions. A
// duplicate key is refused because two readers of the same file could then see two different
// things.
#ifndef VALUESCOPE_BASE_STRICT_JSON_H_
#define VALUESCOPE_BASE_STRICT_JSON_H_

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace valuescope {

inline constexpr int kMaxJsonDepth = 64;
// Room for a hundred thousand tensors.
inline constexpr int kMaxJsonValues = 1 << 20;

// INVALID_ARGUMENT for malformed text (with the byte where it stops being JSON), nesting beyond
// kMaxJsonDepth, more than kMaxJsonValues values and duplicate keys. The message has no subject:
// the caller puts the file's name before it.
absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view text);

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_STRICT_JSON_H_
