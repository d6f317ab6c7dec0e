// Data sets as users upload them: JSON Lines, each line the protobuf JSON mapping of one message,
// mostly LabelledResponse. A line comes from outside, so errors tell its number and what is wrong
// with it, never its text. A file may be larger than what one call should hold, so it is read piece
// by piece and given line by line.
#ifndef VALUESCOPE_SERVICES_DATA_SET_LINES_H_
#define VALUESCOPE_SERVICES_DATA_SET_LINES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

inline constexpr char kDataSetMediaType[] = "application/x-ndjson";
inline constexpr size_t kMaxLineBytes = size_t{1} << 20;

// Bytes of a file from `offset` on, at most `length` of them; none where the file ends.
using ReadPiece = std::function<absl::StatusOr<std::string>(int64_t offset, int64_t length)>;

struct JsonLine {
  int64_t number = 0;      // 1-based, blank lines counted
  absl::string_view text;  // until the next one is asked for
};

// INVALID_ARGUMENT naming the field and the line's number.
absl::Status BadLine(absl::string_view field, int64_t number, absl::string_view what);

class JsonLines {
 public:
  // Errors of lines name `field`.
  JsonLines(std::string field, ReadPiece read) : field_(std::move(field)), read_(std::move(read)) {}

  // The next line that is not blank; nullopt behind the last one. BadLine where it is longer than
  // kMaxLineBytes. No line in the whole file is INVALID_ARGUMENT too.
  absl::StatusOr<std::optional<JsonLine>> Next();

  // The line as the message that it maps. BadLine where it is not UTF-8, no JSON object of the
  // message's shape, has an unknown field, or one of `booleans`, its own fields or "list.name" of
  // the objects of a list, that is neither true nor false nor null: protobuf's parser takes "yes",
  // "1" and the like for true.
  absl::Status Parse(const JsonLine& line, std::initializer_list<absl::string_view> booleans,
                     google::protobuf::Message& message) const;

  const std::string& field() const { return field_; }

 private:
  absl::StatusOr<bool> FindLine();

  const std::string field_;
  const ReadPiece read_;
  std::string buffer_;   // of the file, read and not yet given
  size_t begin_ = 0;     // of the line in it
  size_t end_ = 0;       // where it ends
  int64_t offset_ = 0;   // of the file that is read next
  bool at_end_ = false;  // of the file
  int64_t number_ = 0;   // of the line
  bool any_ = false;     // line that is not blank
};

struct DataSetLine {
  int64_t number = 0;  // as of a JsonLine
  v1::LabelledResponse response;
};

// What a line must have beside a prompt.
enum class LineNeeds : uint8_t { kPrompt, kResponse, kLabel };  // a label is a response's

// Lines of LabelledResponse.
class DataSetLines {
 public:
  DataSetLines(std::string field, ReadPiece read, LineNeeds needs)
      : lines_(std::move(field), std::move(read)), needs_(needs) {}

  // The next line that is not blank; nullopt behind the last one. Errors of JsonLines; BadLine
  // where it has no prompt, or no response or label where it needs them.
  absl::StatusOr<std::optional<DataSetLine>> Next();

 private:
  JsonLines lines_;
  const LineNeeds needs_;
};

// How many lines are not blank, counted up to `most` + 1 without looking at what they say.
absl::StatusOr<int64_t> CountDataSetLines(const ReadPiece& read, int64_t most);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_DATA_SET_LINES_H_
