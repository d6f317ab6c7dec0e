#include "base/strict_json.h"

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace valuescope {
namespace {

using nlohmann::json;

absl::Status Refused(absl::string_view why) { return absl::InvalidArgumentError(why); }

// Longer keys are not repeated in a message.
constexpr size_t kMaxQuotedKey = 128;

// Looked at before parsing: the parser would build everything first, at many times the text's size,
// and its destructor allocates where it must not throw, so running out of memory there would end
// the process.
absl::Status CheckSize(absl::string_view text) {
  int depth = 0, separators = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    // A value follows a comma or an opening bracket.
    if (c == ',' || c == '[' || c == '{') ++separators;
    if (depth > kMaxJsonDepth) {
      return Refused(absl::StrCat("nested deeper than ", kMaxJsonDepth));
    }
    if (separators > kMaxJsonValues) {
      return Refused(absl::StrCat("has more than ", kMaxJsonValues, " values"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<json> ParseStrictJson(absl::string_view text) {
  if (text.empty()) return Refused("empty, so not valid JSON");
  VS_RETURN_IF_ERROR(CheckSize(text));
  std::optional<std::string> duplicate;
  std::vector<std::set<std::string>> keys;
  const json::parser_callback_t watch = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      duplicate = parsed.get<std::string>();
    }
    return true;
  };
  json value;
  try {
    value = json::parse(text.begin(), text.end(), watch);
  } catch (const json::parse_error& error) {
    return Refused(absl::StrCat("not valid JSON at byte ", error.byte));
  } catch (const json::out_of_range&) {
    return Refused("not valid JSON: a number is too large");
  }
  if (duplicate && duplicate->size() > kMaxQuotedKey) return Refused("has a key twice");
  if (duplicate) return Refused(absl::StrCat("has the key \"", *duplicate, "\" twice"));
  return value;
}

}  // namespace valuescope
