#include "model/strict_json.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::model {
namespace {

using nlohmann::json;

absl::Status Refused(absl::string_view what, absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument, "MALFORMED_MODEL_FILE",
                         absl::StrCat(what, ": ", why));
}

}  // namespace

absl::StatusOr<json> ParseStrictJson(absl::string_view what, absl::string_view text) {
  bool too_deep = false;
  std::string duplicate;
  std::vector<std::set<std::string>> keys;
  const json::parser_callback_t watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxJsonDepth) too_deep = true;
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      duplicate = parsed.get<std::string>();
    }
    return !too_deep;  // deeper values are dropped as they are read
  };
  json value = json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (too_deep) return Refused(what, absl::StrCat("nested deeper than ", kMaxJsonDepth));
  if (value.is_discarded()) return Refused(what, "not valid JSON");
  if (!duplicate.empty())
    return Refused(what, absl::StrCat("has the key \"", duplicate, "\" twice"));
  return value;
}

}  // namespace valuescope::model
