#include "base/strict_json.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
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

absl::StatusOr<json> Parse(absl::string_view text, const json::parser_callback_t& watch) {
  // The parser would take it for the end of the text.
  if (const size_t zero = text.find('\0'); zero != absl::string_view::npos) {
    return Refused(absl::StrCat("not valid JSON at byte ", zero + 1));
  }
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::parse_error& error) {
    const bool half = absl::StrContains(error.what(), "surrogate");
    return Refused(absl::StrCat("not valid JSON at byte ", error.byte,
                                half ? ": half a surrogate pair, which is no character" : ""));
  } catch (const json::out_of_range&) {
    return Refused("not valid JSON: a number is too large");
  }
}

// The characters of a number or of what looks like one.
size_t NumberLength(absl::string_view text) {
  const size_t end = text.find_first_not_of("+-.0123456789eE");
  return std::min(end, text.size());
}

bool ConsumeDigits(absl::string_view& text) {
  const size_t count = std::min(text.find_first_not_of("0123456789"), text.size());
  text.remove_prefix(count);
  return count > 0;
}

bool IsNumber(absl::string_view text) {
  absl::ConsumePrefix(&text, "-");
  if (!absl::ConsumePrefix(&text, "0") && !ConsumeDigits(text)) return false;
  if (absl::ConsumePrefix(&text, ".") && !ConsumeDigits(text)) return false;
  if (absl::ConsumePrefix(&text, "e") || absl::ConsumePrefix(&text, "E")) {
    if (!absl::ConsumePrefix(&text, "-")) absl::ConsumePrefix(&text, "+");
    if (!ConsumeDigits(text)) return false;
  }
  return text.empty();
}

// A number that JSON or a double cannot say, at the start of `text`; empty where there is none.
absl::string_view OddNumber(absl::string_view text) {
  for (const absl::string_view word : {"NaN", "Infinity", "-Infinity"}) {
    if (absl::StartsWith(text, word)) return text.substr(0, word.size());
  }
  const absl::string_view number = text.substr(0, NumberLength(text));
  double value = 0;
  const bool is_odd = absl::SimpleAtod(number, &value) && std::isinf(value) && IsNumber(number);
  return is_odd ? number : absl::string_view();
}

std::string WithOddNumbersSpelled(absl::string_view text) {
  std::string spelled;
  spelled.reserve(text.size());
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    size_t length = 1;
    if (in_string) {
      length = text[i] == '\\' && i + 1 < text.size() ? 2 : 1;
      in_string = text[i] != '"';
    } else if (text[i] == '"') {
      in_string = true;
    } else if (const absl::string_view odd = OddNumber(text.substr(i)); !odd.empty()) {
      const absl::string_view word = odd == "NaN"    ? "NaN"
                                     : odd[0] == '-' ? "-Infinity"
                                                     : "Infinity";
      absl::StrAppend(&spelled, "{\"__float__\":\"", word, "\"}");
      i += odd.size();
      continue;
    } else {
      length = std::max(size_t{1}, NumberLength(text.substr(i)));
    }
    spelled.append(text.data() + i, length);
    i += length;
  }
  return spelled;
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
  VS_ASSIGN_OR_RETURN(json value, Parse(text, watch));
  if (duplicate && duplicate->size() > kMaxQuotedKey) return Refused("has a key twice");
  if (duplicate) return Refused(absl::StrCat("has the key \"", *duplicate, "\" twice"));
  return value;
}

absl::StatusOr<json> ParsePythonJson(absl::string_view text, std::vector<std::string>* keys) {
  if (text.empty()) return Refused("empty, so not valid JSON");
  if (absl::StartsWith(text, "\xef\xbb\xbf")) {
    return Refused("begins with a byte order mark; save it as UTF-8 without one");
  }
  VS_RETURN_IF_ERROR(CheckSize(text));
  std::string outer;
  std::set<std::string> seen;
  const json::parser_callback_t watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (keys == nullptr || event != json::parse_event_t::key || depth > 2) return true;
    const std::string& key = parsed.get_ref<const std::string&>();
    if (depth == 1) outer = key;
    std::string path = depth == 1 ? key : absl::StrCat(outer, ".", key);
    if (seen.insert(path).second) keys->push_back(std::move(path));
    return true;
  };
  return Parse(WithOddNumbersSpelled(text), watch);
}

}  // namespace valuescope
