#include "model/strict_json.h"

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/strict_json.h"

namespace valuescope::model {

absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view what, absl::string_view text) {
  absl::StatusOr<nlohmann::json> value = valuescope::ParseStrictJson(text);
  if (value.ok()) return value;
  return ErrorWithReason(absl::StatusCode::kInvalidArgument, "MALFORMED_MODEL_FILE",
                         absl::StrCat(what, ": ", value.status().message()));
}

}  // namespace valuescope::model
