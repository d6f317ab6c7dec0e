// JSON from files that nobody vouches for: bounded size and nesting, no exceptions. Strictly, a key
// twice is refused, because two readers of the same file could then see two different things. Files
// that Python's json module reads elsewhere can be read as it reads them.
#ifndef VALUESCOPE_BASE_STRICT_JSON_H_
#define VALUESCOPE_BASE_STRICT_JSON_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

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

// Like Python's json.loads: of a key twice the last counts, NaN, Infinity and -Infinity are
// numbers, as are those beyond doubles (1e999 is Infinity), and a byte order mark is refused. JSON
// has no such numbers: they come as {"__float__": "NaN"}, which is how transformers writes them.
// Half a surrogate pair ("\ud83d"), which Python takes, is refused, for it is no text.
// `keys` gets those of the outermost object in the file's order, each once, and after each those of
// an object that is its value, as "outer.inner".
absl::StatusOr<nlohmann::json> ParsePythonJson(absl::string_view text,
                                               std::vector<std::string>* keys = nullptr);

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_STRICT_JSON_H_
