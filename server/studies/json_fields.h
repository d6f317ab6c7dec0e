// JSON texts that this server stores and reads back: always an object with a "format_version".
// Private to studies/.
#ifndef VALUESCOPE_STUDIES_JSON_FIELDS_H_
#define VALUESCOPE_STUDIES_JSON_FIELDS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "nlohmann/json.hpp"

namespace valuescope::studies {

// Keys are sorted and numbers shortest, so equal values give equal text. Text that is not UTF-8
// (a display name) is mended, never refused: this is our own record.
inline std::string DumpJson(const nlohmann::json& value, int indent = -1) {
  return value.dump(indent, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

// Calls `read` with the object; what it throws, and text of another version, is DATA_LOSS.
template <typename Read>
absl::Status ReadJson(absl::string_view text, int version, const Read& read) {
  try {
    const auto value = nlohmann::json::parse(text.begin(), text.end());
    if (value.at("format_version").get<int>() != version) {
      return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_VERSION",
                             "stored metadata was written by another version of the server");
    }
    read(value);
    return absl::OkStatus();
  } catch (const nlohmann::json::exception& error) {
    return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_DAMAGED",
                           absl::StrCat("stored metadata is damaged: ", error.what()));
  }
}

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_JSON_FIELDS_H_
