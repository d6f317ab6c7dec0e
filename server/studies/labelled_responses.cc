#include "studies/labelled_responses.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
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

// Number of each response's query, in order of first appearance.
std::vector<int32_t> QueryNumbers(const std::vector<LabelledResponse>& responses) {
  std::map<std::string, int32_t> numbers;
  std::vector<int32_t> queries;
  int32_t next = 0;
  for (const LabelledResponse& response : responses) {
    if (response.query_id.empty()) {
      queries.push_back(next++);
      continue;
    }
    const auto [place, inserted] = numbers.emplace(response.query_id, next);
    if (inserted) ++next;
    queries.push_back(place->second);
  }
  return queries;
}

}  // namespace

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
      continue;
    }
    (response.expresses ? set.num_expressing : set.num_non_expressing) += 1;
    set.num_tokens += static_cast<int64_t>(response.prompt.size() + ids.size());
    set.responses.push_back(std::move(response));
  }
  return set;
}

absl::Status CheckBothLabels(absl::string_view field, const ResponseSet& set) {
  if (set.num_expressing > 0 && set.num_non_expressing > 0) return absl::OkStatus();
  return InvalidField(field,
                      absl::StrCat("must have at least one response of each label that is not "
                                   "empty; it has ",
                                   set.num_expressing, " expressing and ", set.num_non_expressing,
                                   " non-expressing"),
                      "EMPTY_LABEL");
}

int64_t EncodedSize(int64_t num_responses, int64_t num_tokens) {
  // Above the names and shapes in the file's header.
  constexpr int64_t kHeaderBytes = 4096;
  constexpr int64_t kColumns = 4;  // of a response
  return (num_tokens + kColumns * num_responses) * static_cast<int64_t>(sizeof(int32_t)) +
         kHeaderBytes;
}

int64_t EncodedSize(const ResponseSet& set) {
  return EncodedSize(static_cast<int64_t>(set.responses.size()), set.num_tokens);
}

absl::Status CheckEncodedSize(int64_t num_responses, int64_t num_tokens) {
  const int64_t bytes = EncodedSize(num_responses, num_tokens);
  if (bytes <= kMaxDataSetBytes) return absl::OkStatus();
  return NeverFits(
      "DATA_SET_TOO_LARGE",
      absl::StrCat("the ", num_responses, " responses and their prompts have ", num_tokens,
                   " tokens, which take ", bytes, " bytes, a job works on at most ",
                   kMaxDataSetBytes, "; split the data set"));
}

absl::Status CheckEncodedSize(const ResponseSet& set) {
  return CheckEncodedSize(static_cast<int64_t>(set.responses.size()), set.num_tokens);
}

std::string EncodeResponseSet(const ResponseSet& set) {
  std::vector<int32_t> tokens, prompt_lengths, response_lengths, expresses;
  for (const LabelledResponse& response : set.responses) {
    tokens.insert(tokens.end(), response.prompt.begin(), response.prompt.end());
    tokens.insert(tokens.end(), response.response.begin(), response.response.end());
    prompt_lengths.push_back(static_cast<int32_t>(response.prompt.size()));
    response_lengths.push_back(static_cast<int32_t>(response.response.size()));
    expresses.push_back(response.expresses ? 1 : 0);
  }
  const std::vector<int32_t> queries = QueryNumbers(set.responses);
  const std::vector<int64_t> dropped = {set.num_dropped};
  const std::vector<NamedTensor> columns = {Column("tokens", tokens),
                                            Column("prompt_lengths", prompt_lengths),
                                            Column("response_lengths", response_lengths),
                                            Column("expresses", expresses),
                                            Column("queries", queries),
                                            Column("num_dropped", dropped)};
  return WriteTensorFile(columns);
}

std::string DigestOf(const ResponseSet& set) {
  Sha256 hash;
  hash.Update(absl::StrCat("valuescope responses 1\n", set.responses.size(), "\n"));
  const std::vector<int32_t> queries = QueryNumbers(set.responses);
  const auto update = [&hash](const std::vector<int32_t>& ids) {
    hash.Update({reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)});
  };
  for (size_t i = 0; i < set.responses.size(); ++i) {
    const LabelledResponse& response = set.responses[i];
    hash.Update(absl::StrCat(response.prompt.size(), " ", response.response.size(), " ",
                             response.expresses ? 1 : 0, " ", queries[i], "\n"));
    update(response.prompt);
    update(response.response);
  }
  return hash.HexDigest();
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
  ResponseSet set = Trim(std::move(responses), {.end_of_turn = {}, .include_end_of_turn = true});
  set.num_dropped = dropped[0];
  return set;
}

}  // namespace valuescope::studies
