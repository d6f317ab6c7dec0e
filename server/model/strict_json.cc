#include "model/strict_json.h"

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/strict_json.h"

namespace valuescope::model {

namespace {

absl::StatusOr<nlohmann::json> Named(absl::string_view what, absl::StatusOr<nlohmann::json> value) {
  if (value.ok()) return value;
  return ErrorWithReason(absl::StatusCode::kInvalidArgument, "MALFORMED_MODEL_FILE",
                         absl::StrCat(what, ": ", value.status().message()));
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view what, absl::string_view text) {
  return Named(what, valuescope::ParseStrictJson(text));
}

absl::StatusOr<nlohmann::json> ParsePythonJson(absl::string_view what, absl::string_view text) {
  return Named(what, valuescope::ParsePythonJson(text));
}

}  // namespace valuescope::model
