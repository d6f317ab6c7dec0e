// Responses that the server generates and labels itself (GeneratedResponses of the contract): every
// query is answered under every condition a number of times, and the condition, or a judge, tells
// which answers express the value.
//
// A unit is a response; those of a query stand together, by condition and within it by sample. The
// draws of two units have nothing to do with one another: with S(s, n) output n of SplitMix64
// seeded with s, response k of query q under condition c is drawn with the seed S(S(S(seed, c), q),
// k), and q's system message is number S(S(seed', c), q) modulo how many the condition has, all
// counted from 0. So a unit gives the same tokens whoever runs it, and Generate draws them again.
#ifndef VALUESCOPE_KINDS_GENERATED_RESPONSES_H_
#define VALUESCOPE_KINDS_GENERATED_RESPONSES_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/request.h"
#include "engine/served_model.h"
#include "jobs/work.h"
#include "kinds/saved_work.pb.h"
#include "kinds/sources.h"
#include "services/judges.h"
#include "store/blob_store.h"
#include "studies/labelled_responses.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::kinds {

// S(state, number) above.
uint64_t SeedOf(uint64_t state, int64_t number);

// Which of `count` system messages query q has under condition c.
size_t DrawnMessage(uint64_t draw_seed, int condition, int query, size_t count);

// Responses that are generated, labelled and committed together.
inline constexpr int64_t kGeneratedPerShard = 32;

// What it takes at most, apart from what is made of the responses.
struct GenerationCost {
  int64_t generated_tokens = 0;
  int64_t tokens = 0;  // of prompts and responses, each once
  int64_t judge_tokens = 0;
  int64_t judgements = 0;  // by a model
};

// Resolved: whoever holds it needs the models alone.
struct Generation {
  SavedGeneration how;
  SavedQueries queries;
  // Null where conditions label all, or nobody labels any.
  std::shared_ptr<const services::Judge> judge;
  // One a condition; none where no condition has any.
  std::vector<std::shared_ptr<const engine::PreparedInterventions>> interventions;

  int64_t units() const;
  GenerationCost MostCost() const;
  // To generate `unit`; the tenant and whether it is in the background are the caller's to set.
  engine::Request RequestOf(int64_t unit, const engine::ServedModel& model) const;
  // Memory, bytes, of so many responses and their prompts.
  int64_t MemoryOf(int64_t responses) const;
};

// Where a unit stands, each counted from 0.
struct GeneratedUnit {
  int query = 0, condition = 0, sample = 0;
};
GeneratedUnit UnitOf(const SavedGeneration& how, int64_t unit);

// Of stored work that `model` runs; `queries` is its data set. DATA_LOSS; errors of ModelAsThen and
// of services::PreparedFromProto.
absl::StatusOr<std::shared_ptr<const Generation>> OpenGeneration(const SavedWork& record,
                                                                 absl::string_view queries,
                                                                 const engine::ServedModel& model,
                                                                 absl::string_view tenant,
                                                                 const Sources& sources);

// Generates the units, all at once, and labels them. What it costs is added to `usage`. Errors of
// the judge; CANCELLED.
absl::StatusOr<std::vector<SavedResponse>> GenerateUnits(const Generation& generation,
                                                         const engine::ServedModel& model,
                                                         const jobs::UnitRange& units,
                                                         const services::JudgedFor& whom,
                                                         v1::Usage& usage);

// Responses to the units from `first` on, without the empty ones, which are counted.
studies::ResponseSet SetOf(const Generation& generation, int64_t first,
                           std::span<const SavedResponse> responses);

// Whether the condition leaves the label of its responses to a judge.
bool IsJudged(const SavedCondition& condition);

// Where the labels come from, as Provenance.judge tells it.
std::string JudgesOf(const Generation& generation);

// p(yes) + p(no) of the judge's answers on average; nothing where none was asked for.
std::optional<double> MeanAnswerMass(std::span<const SavedResponse> responses);

// What came of a unit as others read it: its prompt is the conversation, and its condition has a
// name.
v1::LabelledResponse LineOf(const Generation& generation, const GeneratedUnit& unit,
                            const SavedResponse& response);

// A line of JSON Lines.
std::string JsonLineOf(const v1::LabelledResponse& response);

// JSON Lines of LabelledResponse, prompts and responses as token ids.
absl::StatusOr<store::StoredBlob> WriteJsonLines(store::BlobStore& blobs,
                                                 const studies::ResponseSet& set);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_GENERATED_RESPONSES_H_
