#include "rpc/data_set_lines.h"

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "google/protobuf/util/json_util.h"

namespace valuescope::rpc {
namespace {

absl::Status BadLine(absl::string_view field, int64_t number, absl::string_view what) {
  return InvalidField(field, absl::StrCat("line ", number, " ", what), "BAD_DATA_SET_LINE");
}

absl::StatusOr<v1::LabelledResponse> ParseLine(absl::string_view field, int64_t number,
                                               absl::string_view line, bool labels_required) {
  if (line.size() > kMaxLineBytes) {
    return BadLine(field, number, absl::StrCat("is longer than ", kMaxLineBytes, " bytes"));
  }
  v1::LabelledResponse response;
  // The parser's own message may quote the line.
  if (!google::protobuf::util::JsonStringToMessage(std::string(line), &response).ok()) {
    return BadLine(field, number,
                   "is not the JSON mapping of LabelledResponse: malformed, a value of another "
                   "type, or an unknown field");
  }
  if (response.prompt().prompt_case() == v1::Prompt::PROMPT_NOT_SET) {
    return BadLine(field, number, "has no `prompt`");
  }
  if (response.response().response_case() == v1::Response::RESPONSE_NOT_SET) {
    return BadLine(field, number, "has no `response`");
  }
  if (labels_required && !response.has_expresses()) {
    return BadLine(field, number, "has no `expresses`");
  }
  return response;
}

}  // namespace

absl::StatusOr<std::vector<DataSetLine>> ParseDataSetLines(absl::string_view field,
                                                           absl::string_view bytes,
                                                           bool labels_required) {
  std::vector<DataSetLine> lines;
  int64_t number = 0;
  while (!bytes.empty()) {
    ++number;
    const size_t end = bytes.find('\n');
    const absl::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end == absl::string_view::npos ? bytes.size() : end + 1);
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    VS_ASSIGN_OR_RETURN(v1::LabelledResponse response,
                        ParseLine(field, number, line, labels_required));
    lines.push_back({.number = number, .response = std::move(response)});
  }
  if (lines.empty()) return InvalidField(field, "has no line that is not blank");
  return lines;
}

}  // namespace valuescope::rpc
