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

// Whether the line's own field `name`, where it has it and it is not null, is true or false. Keeps
// nothing of the line, which becomes many times as large as a document.
bool SaysTrueOrFalse(absl::string_view line, absl::string_view name) {
  using Event = nlohmann::json::parse_event_t;
  bool is_it = false, says = true;
  const auto look = [&](int depth, Event event, const nlohmann::json& parsed) {
    if (depth == 1 && event == Event::key) {
      is_it = parsed.get_ref<const std::string&>() == name;
    } else if (depth == 1 && is_it) {
      says = event == Event::value && (parsed.is_boolean() || parsed.is_null());
    }
    return depth == 0;
  };
  [[maybe_unused]] const auto empty =
      nlohmann::json::parse(line.begin(), line.end(), look, /*allow_exceptions=*/false);
  return says;
}

}  // namespace

absl::Status BadLine(absl::string_view field, int64_t number, absl::string_view what) {
  return InvalidField(field, absl::StrCat("line ", number, " ", what), "BAD_DATA_SET_LINE");
}

// Moves to the next line, reading on where it is not all there; false behind the last one. A line
// that is too long is cut behind what shows that it is.
absl::StatusOr<bool> JsonLines::FindLine() {
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

absl::StatusOr<std::optional<JsonLine>> JsonLines::Next() {
  while (true) {
    VS_ASSIGN_OR_RETURN(const bool found, FindLine());
    if (!found) break;
    ++number_;
    const auto line = absl::string_view(buffer_).substr(begin_, end_ - begin_);
    if (line.size() > kMaxLineBytes) {
      return BadLine(field_, number_, absl::StrCat("is longer than ", kMaxLineBytes, " bytes"));
    }
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    any_ = true;
    return JsonLine{.number = number_, .text = line};
  }
  if (!any_) return InvalidField(field_, "has no line that is not blank");
  return std::nullopt;
}

absl::Status JsonLines::Parse(const JsonLine& line,
                              std::initializer_list<absl::string_view> booleans,
                              google::protobuf::Message& message) const {
  // The parser's own message may quote the line.
  if (!google::protobuf::util::JsonStringToMessage(std::string(line.text), &message).ok()) {
    return BadLine(field_, line.number,
                   absl::StrCat("is not the JSON mapping of ", message.GetDescriptor()->name(),
                                ": malformed, a value of another type, or an unknown field"));
  }
  for (const absl::string_view name : booleans) {
    if (SaysTrueOrFalse(line.text, name)) continue;
    return BadLine(field_, line.number,
                   absl::StrCat("has a `", name, "` that is neither true nor false"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<DataSetLine>> DataSetLines::Next() {
  VS_ASSIGN_OR_RETURN(const std::optional<JsonLine> line, lines_.Next());
  if (!line) return std::nullopt;
  DataSetLine next{.number = line->number, .response = {}};
  VS_RETURN_IF_ERROR(lines_.Parse(*line, {"expresses"}, next.response));
  const v1::LabelledResponse& response = next.response;
  if (response.prompt().prompt_case() == v1::Prompt::PROMPT_NOT_SET) {
    return BadLine(lines_.field(), line->number, "has no `prompt`");
  }
  if (needs_ != LineNeeds::kPrompt &&
      response.response().response_case() == v1::Response::RESPONSE_NOT_SET) {
    return BadLine(lines_.field(), line->number, "has no `response`");
  }
  if (needs_ == LineNeeds::kLabel && !response.has_expresses()) {
    return BadLine(lines_.field(), line->number, "has no `expresses`");
  }
  return next;
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
