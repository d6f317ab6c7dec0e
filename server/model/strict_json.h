// The JSON of a model's file: base/strict_json.h with the file's name in the refusal.
#ifndef VALUESCOPE_MODEL_STRICT_JSON_H_
#define VALUESCOPE_MODEL_STRICT_JSON_H_

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace valuescope::model {

// INVALID_ARGUMENT (MALFORMED_MODEL_FILE), naming `what` (a file's name), where
// valuescope::ParseStrictJson refuses the text.
absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view what, absl::string_view text);

// The same of valuescope::ParsePythonJson.
absl::StatusOr<nlohmann::json> ParsePythonJson(absl::string_view what, absl::string_view text);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_STRICT_JSON_H_
