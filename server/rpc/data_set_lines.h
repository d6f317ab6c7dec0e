// Data sets as users upload them: JSON Lines, each line the protobuf JSON mapping of
// LabelledResponse. A line comes from outside, so errors tell its number and what is wrong with it,
// never its text.
#ifndef VALUESCOPE_RPC_DATA_SET_LINES_H_
#define VALUESCOPE_RPC_DATA_SET_LINES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::rpc {

inline constexpr char kDataSetMediaType[] = "application/x-ndjson";
inline constexpr size_t kMaxLineBytes = size_t{1} << 20;

struct DataSetLine {
  int64_t number = 0;  // 1-based, blank lines counted
  v1::LabelledResponse response;
};

// Every line that is not blank, in order. INVALID_ARGUMENT naming `field` and the line's number:
// longer than kMaxLineBytes, not UTF-8, no JSON object of the message's shape, an unknown field, no
// prompt or no response, no label where `labels_required`. No line at all is INVALID_ARGUMENT too.
absl::StatusOr<std::vector<DataSetLine>> ParseDataSetLines(absl::string_view field,
                                                           absl::string_view bytes,
                                                           bool labels_required);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_DATA_SET_LINES_H_
