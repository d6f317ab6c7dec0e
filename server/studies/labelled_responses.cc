#include "studies/labelled_responses.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "studies/tensor_file.h"

namespace valuescope::studies {
namespace {

absl::Status CheckIds(const std::string& field, std::span<const int32_t> ids, int64_t vocabulary) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocabulary) {
      return OutOfRange(absl::StrCat(field, ".token_ids.ids[", i, "]"), ids[i], 0,
                        static_cast<double>(vocabulary - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status Damaged() {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "DATA_SET_DAMAGED",
                         "the stored tokens of the data set are damaged");
}

bool HasValueLabels(const ResponseSet& set) {
  return std::any_of(set.responses.begin(), set.responses.end(),
                     [](const LabelledResponse& response) { return response.labels.known != 0; });
}

// Columns of ValueLabels.
struct LabelColumns {
  std::vector<int64_t> known, expressed;
  std::vector<int32_t> conditions;
};

LabelColumns LabelColumnsOf(const ResponseSet& set) {
  LabelColumns columns;
  for (const LabelledResponse& response : set.responses) {
    columns.known.push_back(std::bit_cast<int64_t>(response.labels.known));
    columns.expressed.push_back(std::bit_cast<int64_t>(response.labels.expressed));
    columns.conditions.push_back(response.labels.condition);
  }
  return columns;
}

// The labels of responses that a file without these columns has none of.
absl::Status TakeLabels(const TensorFile& file, std::vector<LabelledResponse>& responses) {
  if (!file.Has("known")) return absl::OkStatus();
  const auto size = static_cast<int64_t>(responses.size());
  VS_ASSIGN_OR_RETURN(const std::vector<int64_t> known, file.Int64s("known", size));
  VS_ASSIGN_OR_RETURN(const std::vector<int64_t> expressed, file.Int64s("expressed", size));
  VS_ASSIGN_OR_RETURN(const std::vector<int32_t> conditions, file.Int32s("conditions", size));
  for (size_t i = 0; i < responses.size(); ++i) {
    responses[i].labels = {.known = std::bit_cast<uint64_t>(known[i]),
                           .expressed = std::bit_cast<uint64_t>(expressed[i]),
                           .condition = conditions[i]};
  }
  return absl::OkStatus();
}

}  // namespace

int32_t QueryNumbers::Of(const LabelledResponse& response) {
  if (response.query_id.empty()) return next_++;
  const auto [place, inserted] = numbers_.emplace(response.query_id, next_);
  if (inserted) ++next_;
  return place->second;
}

absl::Status CheckTokens(std::span<const LabelledResponse> responses,
                         const model::Architecture& architecture) {
  for (size_t i = 0; i < responses.size(); ++i) {
    const LabelledResponse& response = responses[i];
    const std::string place = absl::StrCat("[", i, "]");
    if (response.prompt.empty()) {
      return InvalidField(absl::StrCat(place, ".prompt"), "must have at least one token");
    }
    VS_RETURN_IF_ERROR(
        CheckIds(absl::StrCat(place, ".prompt"), response.prompt, architecture.vocabulary));
    VS_RETURN_IF_ERROR(
        CheckIds(absl::StrCat(place, ".response"), response.response, architecture.vocabulary));
    const auto tokens = static_cast<int64_t>(response.prompt.size() + response.response.size());
    if (tokens > architecture.max_positions) {
      return InvalidField(
          absl::StrCat(place, ".prompt"),
          absl::StrCat("has ", tokens,
                       " tokens together with the response, the model's context is ",
                       architecture.max_positions),
          "CONTEXT_EXCEEDED");
    }
  }
  return absl::OkStatus();
}

void TrimEnd(const TrimOptions& options, std::vector<int32_t>& ids) {
  const auto ends_turn = [&options](int32_t id) {
    return std::find(options.end_of_turn.begin(), options.end_of_turn.end(), id) !=
           options.end_of_turn.end();
  };
  while (!options.include_end_of_turn && !ids.empty() && ends_turn(ids.back())) ids.pop_back();
}

ResponseSet Trim(std::vector<LabelledResponse> responses, const TrimOptions& options) {
  ResponseSet set;
  for (LabelledResponse& response : responses) {
    std::vector<int32_t>& ids = response.response;
    TrimEnd(options, ids);
    if (ids.empty()) {
      ++set.num_dropped;
      set.dropped.push_back(response.labels);
      continue;
    }
    (response.expresses ? set.num_expressing : set.num_non_expressing) += 1;
    set.num_tokens += static_cast<int64_t>(response.prompt.size() + ids.size());
    set.responses.push_back(std::move(response));
  }
  return set;
}

absl::Status CheckBothLabels(absl::string_view field, int64_t num_expressing,
                             int64_t num_non_expressing) {
  if (num_expressing > 0 && num_non_expressing > 0) return absl::OkStatus();
  return InvalidField(
      field,
      absl::StrCat("must have at least one response of each label that is not "
                   "empty; it has ",
                   num_expressing, " expressing and ", num_non_expressing, " non-expressing"),
      "EMPTY_LABEL");
}

absl::Status CheckBothLabels(absl::string_view field, const ResponseSet& set) {
  return CheckBothLabels(field, set.num_expressing, set.num_non_expressing);
}

int64_t EncodedSize(int64_t num_responses, int64_t num_tokens) {
  // Above the names and shapes in the file's header.
  constexpr int64_t kHeaderBytes = 4096;
  constexpr int64_t kColumns = 4;  // of a response
  return (num_tokens + kColumns * num_responses) * static_cast<int64_t>(sizeof(int32_t)) +
         kHeaderBytes;
}

int64_t EncodedSize(const ResponseSet& set) {
  constexpr int64_t kLabelBytes = 2 * sizeof(int64_t) + sizeof(int32_t);
  const auto responses = static_cast<int64_t>(set.responses.size());
  return EncodedSize(responses, set.num_tokens) +
         (HasValueLabels(set) ? responses * kLabelBytes : 0);
}

namespace {

absl::Status CheckBytes(int64_t bytes, int64_t num_responses, int64_t num_tokens) {
  if (bytes <= kMaxDataSetBytes) return absl::OkStatus();
  return NeverFits(
      "DATA_SET_TOO_LARGE",
      absl::StrCat("the ", num_responses, " responses and their prompts have ", num_tokens,
                   " tokens, which take ", bytes, " bytes, a job works on at most ",
                   kMaxDataSetBytes, "; split the data set"));
}

}  // namespace

absl::Status CheckEncodedSize(int64_t num_responses, int64_t num_tokens) {
  return CheckBytes(EncodedSize(num_responses, num_tokens), num_responses, num_tokens);
}

absl::Status CheckEncodedSize(const ResponseSet& set) {
  return CheckBytes(EncodedSize(set), static_cast<int64_t>(set.responses.size()), set.num_tokens);
}

std::string EncodeResponseSet(const ResponseSet& set) {
  std::vector<int32_t> tokens, prompt_lengths, response_lengths, expresses, queries;
  QueryNumbers numbers;
  for (const LabelledResponse& response : set.responses) {
    tokens.insert(tokens.end(), response.prompt.begin(), response.prompt.end());
    tokens.insert(tokens.end(), response.response.begin(), response.response.end());
    prompt_lengths.push_back(static_cast<int32_t>(response.prompt.size()));
    response_lengths.push_back(static_cast<int32_t>(response.response.size()));
    expresses.push_back(response.expresses ? 1 : 0);
    queries.push_back(numbers.Of(response));
  }
  const std::vector<int64_t> dropped = {set.num_dropped};
  std::vector<NamedTensor> columns = {Column("tokens", tokens),
                                      Column("prompt_lengths", prompt_lengths),
                                      Column("response_lengths", response_lengths),
                                      Column("expresses", expresses),
                                      Column("queries", queries),
                                      Column("num_dropped", dropped)};
  if (HasValueLabels(set)) {
    const LabelColumns labels = LabelColumnsOf(set);
    columns.push_back(Column("known", labels.known));
    columns.push_back(Column("expressed", labels.expressed));
    columns.push_back(Column("conditions", labels.conditions));
  }
  return WriteTensorFile(columns);
}

absl::StatusOr<ResponseSet> DecodeResponseSet(absl::string_view bytes) {
  VS_ASSIGN_OR_RETURN(const TensorFile file, TensorFile::Parse(std::string(bytes)));
  VS_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, file.Int32s("tokens"));
  VS_ASSIGN_OR_RETURN(const std::vector<int32_t> prompts, file.Int32s("prompt_lengths"));
  const auto size = static_cast<int64_t>(prompts.size());
  VS_ASSIGN_OR_RETURN(const std::vector<int32_t> answers, file.Int32s("response_lengths", size));
  VS_ASSIGN_OR_RETURN(const std::vector<int32_t> expresses, file.Int32s("expresses", size));
  VS_ASSIGN_OR_RETURN(const std::vector<int32_t> queries, file.Int32s("queries", size));
  VS_ASSIGN_OR_RETURN(const std::vector<int64_t> dropped, file.Int64s("num_dropped", 1));
  std::vector<LabelledResponse> responses;
  size_t next = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i] < 1 || answers[i] < 1) return Damaged();
    const auto prompt_size = static_cast<size_t>(prompts[i]);
    const auto answer_size = static_cast<size_t>(answers[i]);
    if (tokens.size() - next < prompt_size + answer_size) return Damaged();
    const auto prompt = tokens.begin() + static_cast<int64_t>(next);
    const auto answer = prompt + prompts[i];
    responses.push_back({.prompt = {prompt, answer},
                         .response = {answer, answer + answers[i]},
                         .expresses = expresses[i] != 0,
                         .query_id = absl::StrCat(queries[i])});
    next += prompt_size + answer_size;
  }
  if (next != tokens.size()) return Damaged();
  VS_RETURN_IF_ERROR(TakeLabels(file, responses));
  ResponseSet set = Trim(std::move(responses), {.end_of_turn = {}, .include_end_of_turn = true});
  set.num_dropped = dropped[0];
  return set;
}

}  // namespace valuescope::studies
