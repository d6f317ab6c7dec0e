#include "services/data_set_lines.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace valuescope::services {
namespace {

constexpr int64_t kPieceBytes = int64_t{1} << 20;

absl::Status BadLine(absl::string_view field, int64_t number, absl::string_view what) {
  return InvalidField(field, absl::StrCat("line ", number, " ", what), "BAD_DATA_SET_LINE");
}

// Whether `expresses`, where JSON has it and it is not null, is true or false: protobuf's parser
// takes "yes", "1" and the like for true. Keeps nothing of the line, which becomes many times as
// large as a document.
bool SaysTrueOrFalse(absl::string_view line) {
  using Event = nlohmann::json::parse_event_t;
  bool is_label = false, says = true;
  const auto look = [&](int depth, Event event, const nlohmann::json& parsed) {
    if (depth == 1 && event == Event::key) {
      is_label = parsed == "expresses";
    } else if (depth == 1 && is_label) {
      says = event == Event::value && (parsed.is_boolean() || parsed.is_null());
    }
    return depth == 0;
  };
  [[maybe_unused]] const auto empty =
      nlohmann::json::parse(line.begin(), line.end(), look, /*allow_exceptions=*/false);
  return says;
}

absl::StatusOr<v1::LabelledResponse> ParseLine(absl::string_view field, int64_t number,
                                               absl::string_view line, LineNeeds needs) {
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
  if (needs != LineNeeds::kPrompt &&
      response.response().response_case() == v1::Response::RESPONSE_NOT_SET) {
    return BadLine(field, number, "has no `response`");
  }
  if (!SaysTrueOrFalse(line)) {
    return BadLine(field, number, "has an `expresses` that is neither true nor false");
  }
  if (needs == LineNeeds::kLabel && !response.has_expresses()) {
    return BadLine(field, number, "has no `expresses`");
  }
  return response;
}

}  // namespace

// Moves to the next line, reading on where it is not all there; false behind the last one. A line
// that is too long is cut behind what shows that it is.
absl::StatusOr<bool> DataSetLines::FindLine() {
  begin_ = end_;
  if (begin_ < buffer_.size() && buffer_[begin_] == '\n') ++begin_;
  size_t searched = begin_;
  while (true) {
    end_ = buffer_.find('\n', searched);
    if (end_ != std::string::npos) return true;
    end_ = buffer_.size();
    if (end_ - begin_ > kMaxLineBytes) return true;
    if (at_end_) return end_ > begin_;
    buffer_.erase(0, begin_);
    begin_ = 0;
    searched = buffer_.size();
    VS_ASSIGN_OR_RETURN(const std::string piece, read_(offset_, kPieceBytes));
    at_end_ = piece.empty();
    offset_ += static_cast<int64_t>(piece.size());
    buffer_ += piece;
  }
}

absl::StatusOr<std::optional<DataSetLine>> DataSetLines::Next() {
  while (true) {
    VS_ASSIGN_OR_RETURN(const bool found, FindLine());
    if (!found) break;
    ++number_;
    const auto line = absl::string_view(buffer_).substr(begin_, end_ - begin_);
    if (line.size() <= kMaxLineBytes && absl::StripAsciiWhitespace(line).empty()) continue;
    any_ = true;
    VS_ASSIGN_OR_RETURN(v1::LabelledResponse response, ParseLine(field_, number_, line, needs_));
    return DataSetLine{.number = number_, .response = std::move(response)};
  }
  if (!any_) return InvalidField(field_, "has no line that is not blank");
  return std::nullopt;
}

absl::StatusOr<int64_t> CountDataSetLines(const ReadPiece& read, int64_t most) {
  int64_t count = 0, offset = 0;
  bool blank = true;  // the line so far
  while (count <= most) {
    VS_ASSIGN_OR_RETURN(const std::string piece, read(offset, kPieceBytes));
    if (piece.empty()) break;
    offset += static_cast<int64_t>(piece.size());
    for (const char character : piece) {
      if (character == '\n') {
        blank = true;
      } else if (blank && !absl::ascii_isspace(static_cast<unsigned char>(character))) {
        blank = false;
        ++count;
      }
    }
  }
  return std::min(count, most + 1);
}

}  // namespace valuescope::services
