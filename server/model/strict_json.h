// JSON from files that nobody vouches for: bounded nesting, no duplicate keys, no exceptions. A
// duplicate key is refused because two readers of the same file could then see two different
// models.
#ifndef VALUESCOPE_MODEL_STRICT_JSON_H_
#define VALUESCOPE_MODEL_STRICT_JSON_H_

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace valuescope::model {

inline constexpr int kMaxJsonDepth = 64;
// Room for a hundred thousand tensors.
inline constexpr int kMaxJsonValues = 1 << 20;

// INVALID_ARGUMENT, naming `what` (a file's name), for malformed text, nesting beyond
// kMaxJsonDepth, more than kMaxJsonValues values and duplicate keys.
absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view what, absl::string_view text);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_STRICT_JSON_H_
