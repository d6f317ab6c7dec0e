#include "kinds/generation_request.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/given_place.h"
#include "kinds/response_work.h"
#include "kinds/saved_model.h"
#include "services/data_set_lines.h"
#include "services/judges.h"
#include "services/prompt_codec.h"
#include "services/response_sets.h"
#include "services/user_turns.h"

namespace valuescope::kinds {
namespace {

constexpr char kField[] = "generated";
constexpr char kQueriesField[] = "generated.queries_artifact";
constexpr int kMostConditions = 16;
constexpr int kMostSamples = 64;

int SamplesOf(const v1::GeneratedResponses& request) {
  return request.has_samples_per_query() ? request.samples_per_query() : 1;
}

int ConditionsOf(const v1::GeneratedResponses& request) {
  return std::max(1, request.conditions_size());
}

// --- What is asked for ---------------------------------------------------------------------------

absl::Status CheckNumbers(const v1::GeneratedResponses& request) {
  if (request.queries().empty() == request.queries_artifact().empty()) {
    return InvalidField("generated.queries",
                        "must be given inline or as `queries_artifact`, one of the two");
  }
  if (request.conditions_size() > kMostConditions) {
    return OutOfRange("generated.conditions", request.conditions_size(), 1, kMostConditions);
  }
  if (SamplesOf(request) < 1 || SamplesOf(request) > kMostSamples) {
    return OutOfRange("generated.samples_per_query", SamplesOf(request), 1, kMostSamples);
  }
  return absl::OkStatus();
}

absl::Status CheckUnits(const v1::GeneratedResponses& request, int64_t queries, bool at_once) {
  const int64_t units = queries * ConditionsOf(request) * SamplesOf(request);
  if (at_once && units > kMostResponsesAtOnce) {
    return NeverFits("USE_A_JOB",
                     absl::StrCat("`generated` asks for more responses than one call "
                                  "makes, which is ",
                                  kMostResponsesAtOnce, "; create a job with the same request"));
  }
  constexpr int64_t kMost = store::kMaxShards * kGeneratedPerShard;
  if (units <= kMost) return absl::OkStatus();
  return NeverFits("DATA_SET_TOO_LARGE",
                   absl::StrCat("`generated` asks for more than ", kMost, " responses"));
}

absl::Status CheckCost(const Generation& generation, bool at_once) {
  const GenerationCost cost = generation.MostCost();
  if (at_once && cost.generated_tokens > kMostGeneratedAtOnce) {
    return NeverFits("USE_A_JOB",
                     absl::StrCat("`generated` may take ", cost.generated_tokens,
                                  " tokens, one call generates at most ", kMostGeneratedAtOnce,
                                  "; lower `sampling.max_tokens`, or create a job with the same "
                                  "request"));
  }
  return studies::CheckEncodedSize(generation.units(), cost.tokens);
}

// --- Prompts -------------------------------------------------------------------------------------

absl::Status CheckSystemMessages(const v1::GeneratedResponses& request,
                                 const engine::ServedModel& model, bool taken) {
  for (int c = 0; c < request.conditions_size(); ++c) {
    const auto& messages = request.conditions(c).system_messages();
    for (int i = 0; i < messages.size(); ++i) {
      VS_RETURN_IF_ERROR(services::CheckSystemMessage(
          absl::StrCat("generated.conditions[", c, "].system_messages[", i, "]"), messages[i],
          taken, model));
    }
  }
  return absl::OkStatus();
}

// Queries as they are tokenised under every condition, each checked at once.
class QueryWriter {
 public:
  QueryWriter(const v1::GeneratedResponses& request, const engine::ServedModel& model,
              const rpc::CallContext& context, bool takes_system_message, Generation& generation)
      : request_(request),
        model_(model),
        context_(context),
        takes_system_message_(takes_system_message),
        options_{.now = absl::Now()},
        generation_(generation) {}

  absl::Status Add(const GivenPlace& place, const std::string& text, const std::string& query_id) {
    VS_RETURN_IF_ERROR(context_.Why());
    if (text.empty()) return InvalidField(place.field, absl::StrCat(place.line, "has no text"));
    VS_RETURN_IF_ERROR(place.Of(services::CheckIsText(place.field, text, model_)));
    VS_RETURN_IF_ERROR(context_.Hold(static_cast<int64_t>(text.size() + query_id.size())));
    const int number = generation_.queries.queries_size();
    SavedQuery& query = *generation_.queries.add_queries();
    query.set_text(text);
    query.set_query_id(query_id);
    for (int c = 0; c < ConditionsOf(request_); ++c) {
      const std::string system = SystemMessageOf(c, number);
      const bool left_out = system.empty() && !takes_system_message_;
      auto prompt = services::PromptFromProto(
          place.field, services::UserTurn(left_out ? nullptr : &system, text), model_, options_);
      if (!prompt.ok()) return place.Of(prompt.status());
      VS_RETURN_IF_ERROR(AddPrompt(place, prompt->ids, query));
    }
    if (text.size() > longest_.size()) longest_ = text;
    return absl::OkStatus();
  }

  // Queries without an id are each on their own.
  void NameQueries() {
    std::set<std::string> given;
    for (const SavedQuery& query : generation_.queries.queries()) given.insert(query.query_id());
    for (int q = 0; q < generation_.queries.queries_size(); ++q) {
      SavedQuery& query = *generation_.queries.mutable_queries(q);
      if (!query.query_id().empty()) continue;
      std::string id = absl::StrCat(q);
      while (given.contains(id)) id += "'";
      query.set_query_id(std::move(id));
    }
  }

  const std::string& longest() const { return longest_; }

 private:
  // Empty by default.
  std::string SystemMessageOf(int condition, int query) const {
    if (request_.conditions().empty()) return "";
    const auto& messages = request_.conditions(condition).system_messages();
    if (messages.empty()) return "";
    const uint64_t drawn = SeedOf(SeedOf(request_.seed(), condition), query);
    return messages[static_cast<int>(drawn % static_cast<uint64_t>(messages.size()))];
  }

  // What the engine has to say of one depends on its length.
  absl::Status AddPrompt(const GivenPlace& place, const std::vector<int32_t>& ids,
                         SavedQuery& query) {
    VS_RETURN_IF_ERROR(context_.Hold(static_cast<int64_t>(ids.size() * sizeof(int32_t))));
    query.add_prompts()->mutable_ids()->Assign(ids.begin(), ids.end());
    if (!checked_.insert(ids.size()).second) return absl::OkStatus();
    const int64_t unit =
        (static_cast<int64_t>(generation_.queries.queries_size() - 1) * ConditionsOf(request_) +
         query.prompts_size() - 1) *
        generation_.how.samples();
    const engine::Request request = generation_.RequestOf(unit, model_);
    if (absl::Status status = model_.engine->Check(request); !status.ok()) {
      return absl::StartsWith(DetailsOf(status).field, "sampling") ? InField(kField, status)
                                                                   : place.Of(status);
    }
    SavedGeneration& how = generation_.how;
    how.set_most_prompt_tokens(
        std::max(how.most_prompt_tokens(), static_cast<int64_t>(ids.size())));
    how.set_most_response_tokens(
        std::max<int64_t>(how.most_response_tokens(), request.sampling->max_tokens));
    return absl::OkStatus();
  }

  const v1::GeneratedResponses& request_;
  const engine::ServedModel& model_;
  const rpc::CallContext& context_;
  const bool takes_system_message_;
  const services::PromptOptions options_;
  Generation& generation_;
  std::set<size_t> checked_;
  std::string longest_;
};

absl::Status AddLines(const services::ReadPiece& read, QueryWriter& writer) {
  services::DataSetLines lines(kQueriesField, read, services::LineNeeds::kPrompt);
  while (true) {
    VS_ASSIGN_OR_RETURN(const std::optional<services::DataSetLine> line, lines.Next());
    if (!line) return absl::OkStatus();
    const GivenPlace place = GivenPlace::Line(kQueriesField, line->number);
    if (!line->response.prompt().has_text()) {
      return InvalidField(place.field, absl::StrCat(place.line, "has no `prompt.text`"));
    }
    VS_RETURN_IF_ERROR(
        writer.Add(place, line->response.prompt().text(), line->response.query_id()));
  }
}

absl::Status AddQueries(const v1::GeneratedResponses& request, const rpc::CallContext& context,
                        bool at_once, const Sources& sources, services::UsedResources& used,
                        QueryWriter& writer) {
  if (request.queries_artifact().empty()) {
    VS_RETURN_IF_ERROR(CheckUnits(request, request.queries_size(), at_once));
    for (int i = 0; i < request.queries_size(); ++i) {
      const GivenPlace place = GivenPlace::Inline("generated.queries", i);
      VS_RETURN_IF_ERROR(writer.Add(place, request.queries(i), /*query_id=*/""));
    }
  } else {
    VS_ASSIGN_OR_RETURN(
        const services::ReadPiece read,
        services::OpenDataSet(kQueriesField, request.queries_artifact(), context.tenant,
                              *sources.store, *sources.blobs, used));
    VS_ASSIGN_OR_RETURN(const int64_t count,
                        services::CountDataSetLines(read, store::kMaxShards * kGeneratedPerShard));
    VS_RETURN_IF_ERROR(CheckUnits(request, count, at_once));
    VS_RETURN_IF_ERROR(AddLines(read, writer));
  }
  writer.NameQueries();
  return absl::OkStatus();
}

// --- The judge -----------------------------------------------------------------------------------

bool AnyIsJudged(const SavedGeneration& how) {
  return std::any_of(how.conditions().begin(), how.conditions().end(), IsJudged);
}

absl::Status AddJudge(const v1::GeneratedResponses& request, const engine::ServedModel& model,
                      const engine::ModelRegistry& models, services::UsedResources& used,
                      Generation& generation) {
  if (!AnyIsJudged(generation.how)) return absl::OkStatus();
  if (!request.has_judge()) {
    return InvalidField("generated.judge", "is required: a condition has no `expresses`");
  }
  const v1::Judge& judge = request.judge();
  std::shared_ptr<const engine::ServedModel> asked;
  const absl::Time now = absl::Now();
  if (judge.has_rubric()) {
    VS_ASSIGN_OR_RETURN(asked, services::ModelOfName("generated.judge.rubric.model",
                                                     judge.rubric().model(), models));
    if (asked->id != model.id) {
      used[absl::StrCat("models/", asked->id)] = asked->weights_digest;
    }
    *generation.how.mutable_judge_model() = SavedModelOf(*asked);
    generation.how.set_judge_time(absl::ToUnixSeconds(now));
  }
  *generation.how.mutable_judge() = judge;
  VS_ASSIGN_OR_RETURN(generation.judge,
                      services::JudgeFromProto("generated.judge", judge, std::move(asked),
                                               absl::FromUnixSeconds(generation.how.judge_time())));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Generation> GenerationOf(const v1::GeneratedResponses& request,
                                        bool include_end_of_turn, const engine::ServedModel& model,
                                        const rpc::CallContext& context,
                                        const services::ResolveOptions& options,
                                        const Sources& sources, services::UsedResources& used) {
  VS_RETURN_IF_ERROR(CheckNumbers(request));
  Generation generation;
  SavedGeneration& how = generation.how;
  *how.mutable_sampling() = request.sampling();
  how.mutable_sampling()->set_seed(request.sampling().seed());
  how.set_samples(SamplesOf(request));
  how.set_include_end_of_turn(include_end_of_turn);
  for (int c = 0; c < ConditionsOf(request); ++c) {
    SavedCondition& condition = *how.add_conditions();
    if (c < request.conditions_size() && request.conditions(c).has_expresses()) {
      condition.set_expresses(request.conditions(c).expresses());
    }
  }
  VS_RETURN_IF_ERROR(AddJudge(request, model, *sources.models, used, generation));
  VS_ASSIGN_OR_RETURN(const bool takes_system_message,
                      services::TakesSystemMessage(kField, model, absl::Now()));
  VS_RETURN_IF_ERROR(CheckSystemMessages(request, model, takes_system_message));
  QueryWriter writer(request, model, context, takes_system_message, generation);
  VS_RETURN_IF_ERROR(AddQueries(request, context, options.at_once, sources, used, writer));
  if (generation.judge != nullptr) {
    VS_ASSIGN_OR_RETURN(const int64_t tokens,
                        generation.judge->MostTokens(writer.longest(), how.most_response_tokens()));
    how.set_most_judge_tokens(tokens);
  }
  VS_RETURN_IF_ERROR(CheckCost(generation, options.at_once));
  return generation;
}

std::vector<studies::LabelledResponse> LongestResponses(const Generation& generation,
                                                        const engine::ServedModel& model) {
  std::vector<studies::LabelledResponse> longest;
  std::set<int> lengths;
  for (const SavedQuery& query : generation.queries.queries()) {
    for (const v1::TokenIds& prompt : query.prompts()) {
      if (!lengths.insert(prompt.ids_size()).second) continue;
      const int64_t room = model.architecture.max_positions - prompt.ids_size();
      const int64_t tokens = std::min(room, generation.how.most_response_tokens());
      longest.push_back({.prompt = {prompt.ids().begin(), prompt.ids().end()},
                         .response = std::vector<int32_t>(static_cast<size_t>(tokens))});
    }
  }
  return longest;
}

}  // namespace valuescope::kinds
