// Labelled responses are what every study starts from: what was asked, what was answered (as token
// ids), and whether the answer expresses the value (Han et al., arXiv 2509.24319). Before use they
// are trimmed: end-of-turn tokens at the end of a response say nothing of a value and are excluded
// unless asked for, and responses that have no token left are dropped and counted.
#ifndef VALUESCOPE_STUDIES_LABELLED_RESPONSES_H_
#define VALUESCOPE_STUDIES_LABELLED_RESPONSES_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/architecture.h"

namespace valuescope::studies {

// What a study of several values reads of a response: values and conditions stand by their numbers
// among those that the study asks for.
struct ValueLabels {
  uint64_t known = 0;      // bit v: it has a label of value v
  uint64_t expressed = 0;  // bit v: and expresses it
  int32_t condition = -1;  // -1: none of them

  bool operator==(const ValueLabels&) const = default;
};

struct LabelledResponse {
  std::vector<int32_t> prompt;    // token ids, at least one
  std::vector<int32_t> response;  // token ids; may be empty until trimmed
  bool expresses = false;
  std::string query_id = {};  // empty: a query of its own
  ValueLabels labels = {};    // none where one value is studied, of which `expresses` tells
};

struct ResponseSet {
  std::vector<LabelledResponse> responses;  // none with an empty response
  int64_t num_expressing = 0;
  int64_t num_non_expressing = 0;
  int64_t num_dropped = 0;
  int64_t num_tokens = 0;                 // of prompts and responses together
  bool rendered_chat = false;             // a chat template wrote some of the prompts; not stored
  std::vector<ValueLabels> dropped = {};  // [num_dropped]; not stored
};

// Numbers of queries, in order of first appearance.
class QueryNumbers {
 public:
  // Of the next response.
  int32_t Of(const LabelledResponse& response);

 private:
  std::map<std::string, int32_t> numbers_;
  int32_t next_ = 0;
};

struct TrimOptions {
  std::span<const int32_t> end_of_turn;  // the model's ids that end a turn
  bool include_end_of_turn = false;      // keeps them
};

// INVALID_ARGUMENT naming "[i].prompt" or "[i].response" (i counts `responses`): an empty prompt,
// ids outside the vocabulary, more tokens than the model's context holds.
absl::Status CheckTokens(std::span<const LabelledResponse> responses,
                         const model::Architecture& architecture);

// Takes the tokens that end a turn off the end of a response.
void TrimEnd(const TrimOptions& options, std::vector<int32_t>& ids);

ResponseSet Trim(std::vector<LabelledResponse> responses, const TrimOptions& options);

// INVALID_ARGUMENT naming `field` (reason EMPTY_LABEL) unless both labels have a response.
absl::Status CheckBothLabels(absl::string_view field, int64_t num_expressing,
                             int64_t num_non_expressing);
absl::Status CheckBothLabels(absl::string_view field, const ResponseSet& set);

// Largest encoded set, bytes: a worker holds one in memory.
inline constexpr int64_t kMaxDataSetBytes = int64_t{256} << 20;

// Bytes that EncodeResponseSet gives at most. Known from the counts; tokens are those of prompts
// and responses.
int64_t EncodedSize(int64_t num_responses, int64_t num_tokens);
int64_t EncodedSize(const ResponseSet& set);

// RESOURCE_EXHAUSTED (reason DATA_SET_TOO_LARGE) where that is more, before anything is encoded.
absl::Status CheckEncodedSize(int64_t num_responses, int64_t num_tokens);
absl::Status CheckEncodedSize(const ResponseSet& set);

// Whether a label has so few responses that a reader of their means should know: the paper's
// vectors rest on hundreds.
inline bool IsNoisy(int64_t num_expressing, int64_t num_non_expressing) {
  return num_expressing < 10 || num_non_expressing < 10;
}

// The set as a file that a job's worker reads back: safetensors (media type
// "application/vnd.safetensors") with
//   tokens            INT32 [num_tokens]  prompt and response of each response, one after another
//   prompt_lengths    INT32 [responses]
//   response_lengths  INT32 [responses]
//   expresses         INT32 [responses]   0 or 1
//   queries           INT32 [responses]   number of the query, in order of first appearance
//   num_dropped       INT64 [1]
// and where responses have labels of several values
//   known, expressed  INT64 [responses]   ValueLabels
//   conditions        INT32 [responses]
// Equal sets give equal bytes; the names of queries are not kept, only which responses share one.
std::string EncodeResponseSet(const ResponseSet& set);

// DATA_LOSS for bytes that EncodeResponseSet cannot have written.
absl::StatusOr<ResponseSet> DecodeResponseSet(absl::string_view bytes);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_LABELLED_RESPONSES_H_
