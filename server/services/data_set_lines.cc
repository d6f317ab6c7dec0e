#include "services/data_set_lines.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace valuescope::services {
namespace {

constexpr int64_t kPieceBytes = int64_t{1} << 20;

// A field that must be true or false wherever it is there and not null: the line's own, or with
// "list.name" that of the objects in its field `list`.
struct Boolean {
  explicit Boolean(absl::string_view field) : path(field) {
    const size_t dot = path.find('.');
    if (dot == absl::string_view::npos) return;
    list = path.substr(0, dot);
    name = path.substr(dot + 1);
    depth = 3;
  }

  void SeeKey(int depth_of_key, absl::string_view key) {
    if (depth_of_key == 1) {
      is_there = list.empty() || key == list;
      is_it = false;
    }
    if (depth_of_key == depth) is_it = is_there && key == name;
  }
  void SeeValue(int depth_of_value, bool is_boolean) {
    if (depth_of_value == depth && is_it) says = says && is_boolean;
  }

  absl::string_view path, list = "", name = path;
  int depth = 1;                         // of its key
  bool is_there = false, is_it = false;  // where the parser stands
  bool says = true;
};

// The first of `fields` that the line has and that is neither; empty: none. Keeps nothing of the
// line, which becomes many times as large as a document.
absl::string_view FirstNotBoolean(absl::string_view line,
                                  std::initializer_list<absl::string_view> fields) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<Boolean> booleans(fields.begin(), fields.end());
  const auto look = [&](int depth, Event event, const nlohmann::json& parsed) {
    const bool begins = event == Event::object_start || event == Event::array_start;
    for (Boolean& boolean : booleans) {
      if (event == Event::key) boolean.SeeKey(depth, parsed.get_ref<const std::string&>());
      if (event == Event::value) {
        boolean.SeeValue(depth, parsed.is_boolean() || parsed.is_null());
      }
      if (begins) boolean.SeeValue(depth, /*is_boolean=*/false);
    }
    return depth == 0 || begins;  // what begins is looked into, and not kept without its key
  };
  [[maybe_unused]] const auto empty =
      nlohmann::json::parse(line.begin(), line.end(), look, /*allow_exceptions=*/false);
  const auto found = std::find_if(booleans.begin(), booleans.end(),
                                  [](const Boolean& boolean) { return !boolean.says; });
  return found == booleans.end() ? absl::string_view() : found->path;
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
  const absl::string_view wrong = FirstNotBoolean(line.text, booleans);
  if (wrong.empty()) return absl::OkStatus();
  return BadLine(field_, line.number,
                 absl::StrCat("has a `", wrong, "` that is neither true nor false"));
}

absl::StatusOr<std::optional<DataSetLine>> DataSetLines::Next() {
  VS_ASSIGN_OR_RETURN(const std::optional<JsonLine> line, lines_.Next());
  if (!line) return std::nullopt;
  DataSetLine next{.number = line->number, .response = {}};
  VS_RETURN_IF_ERROR(lines_.Parse(*line, {"expresses", "labels.expresses"}, next.response));
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
