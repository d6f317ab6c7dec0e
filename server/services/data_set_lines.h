// Data sets as users upload them: JSON Lines, each line the protobuf JSON mapping of
// LabelledResponse. A line comes from outside, so errors tell its number and what is wrong with it,
// never its text. A file may be larger than what one call should hold, so it is read piece by piece
// and given line by line.
#ifndef VALUESCOPE_SERVICES_DATA_SET_LINES_H_
#define VALUESCOPE_SERVICES_DATA_SET_LINES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

inline constexpr char kDataSetMediaType[] = "application/x-ndjson";
inline constexpr size_t kMaxLineBytes = size_t{1} << 20;

struct DataSetLine {
  int64_t number = 0;  // 1-based, blank lines counted
  v1::LabelledResponse response;
};

// Bytes of a file from `offset` on, at most `length` of them; none where the file ends.
using ReadPiece = std::function<absl::StatusOr<std::string>(int64_t offset, int64_t length)>;

// What a line must have beside a prompt.
enum class LineNeeds : uint8_t { kPrompt, kResponse, kLabel };  // a label is a response's

class DataSetLines {
 public:
  // Errors of lines name `field`.
  DataSetLines(std::string field, ReadPiece read, LineNeeds needs)
      : field_(std::move(field)), read_(std::move(read)), needs_(needs) {}

  // The next line that is not blank; nullopt behind the last one. INVALID_ARGUMENT naming the field
  // and the line's number: longer than kMaxLineBytes, not UTF-8, no JSON object of the message's
  // shape, an unknown field, no prompt, no response or label where it needs them. No line in the
  // whole file is INVALID_ARGUMENT too.
  absl::StatusOr<std::optional<DataSetLine>> Next();

 private:
  absl::StatusOr<bool> FindLine();

  const std::string field_;
  const ReadPiece read_;
  const LineNeeds needs_;
  std::string buffer_;   // of the file, read and not yet given
  size_t begin_ = 0;     // of the line in it
  size_t end_ = 0;       // where it ends
  int64_t offset_ = 0;   // of the file that is read next
  bool at_end_ = false;  // of the file
  int64_t number_ = 0;   // of the line
  bool any_ = false;     // line that is not blank
};

// How many lines are not blank, counted up to `most` + 1 without looking at what they say.
absl::StatusOr<int64_t> CountDataSetLines(const ReadPiece& read, int64_t most);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_DATA_SET_LINES_H_
