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
#include "services/intervention_codec.h"
#include "services/judges.h"
#include "services/prompt_codec.h"
#include "services/response_sets.h"
#include "services/user_turns.h"

namespace valuescope::kinds {
namespace {

constexpr int kMostSamples = 64;
// Of a job, which may have other shards for sums of them.
constexpr int64_t kMostUnits = (store::kMaxShards - kMostLargeShards) * kGeneratedPerShard;

int64_t ConditionsOf(const GenerationSource& source) {
  return static_cast<int64_t>(source.conditions.size());
}

int64_t UnitsOf(const GenerationSource& source, int64_t queries) {
  return queries * ConditionsOf(source) * source.samples;
}

// --- What is asked for ---------------------------------------------------------------------------

absl::Status CheckNumbers(const GenerationSource& source) {
  if (source.queries.empty() == source.queries_artifact.empty()) {
    return InvalidField(absl::StrCat(source.prefix, "queries"),
                        "must be given inline or as `queries_artifact`, one of the two");
  }
  if (ConditionsOf(source) > source.most_conditions) {
    return OutOfRange(absl::StrCat(source.prefix, "conditions"),
                      static_cast<double>(ConditionsOf(source)), 1, source.most_conditions);
  }
  if (source.samples < 1 || source.samples > kMostSamples) {
    return OutOfRange(absl::StrCat(source.prefix, "samples_per_query"), source.samples, 1,
                      kMostSamples);
  }
  return absl::OkStatus();
}

absl::Status CheckUnits(const GenerationSource& source, int64_t queries, bool at_once) {
  const int64_t units = UnitsOf(source, queries);
  if (at_once && units > kMostResponsesAtOnce) {
    return NeverFits(
        "USE_A_JOB",
        absl::StrCat(source.whole, " asks for more responses than one call makes, which is ",
                     kMostResponsesAtOnce, "; create a job with the same request"));
  }
  if (units <= kMostUnits) return absl::OkStatus();
  return NeverFits("DATA_SET_TOO_LARGE",
                   absl::StrCat(source.whole, " asks for more than ", kMostUnits, " responses"));
}

// Of the longest prompt and response so far: both only grow, so what is too much now remains so.
absl::Status CheckCost(const GenerationSource& source, int64_t units, const SavedGeneration& how,
                       bool at_once) {
  const int64_t generated = units * how.most_response_tokens();
  if (at_once && generated > kMostGeneratedAtOnce) {
    return NeverFits(
        "USE_A_JOB",
        absl::StrCat(source.whole, " may take ", generated,
                     " tokens or more, one call generates at most ", kMostGeneratedAtOnce,
                     "; lower `sampling.max_tokens`, or create a job with the same "
                     "request"));
  }
  return studies::CheckEncodedSize(units, generated + units * how.most_prompt_tokens());
}

// What counts alone tell before any text is read. Bytes tell nothing of what will be generated: the
// longer a prompt is, the less room it leaves. Where `max_tokens` is unset that may be one token.
absl::Status CheckCounts(const GenerationSource& source, int64_t queries,
                         const engine::ServedModel& model, bool at_once) {
  VS_RETURN_IF_ERROR(CheckUnits(source, queries, at_once));
  SavedGeneration how;
  // One that no prompt has room for is wrong in itself.
  const int64_t given = source.sampling.has_max_tokens() ? source.sampling.max_tokens() : 0;
  if (given < model.architecture.max_positions) {
    how.set_most_response_tokens(std::max<int64_t>(given, 1));
  }
  how.set_most_prompt_tokens(1);
  return CheckCost(source, UnitsOf(source, queries), how, at_once);
}

// --- Prompts -------------------------------------------------------------------------------------

// Of its system message `number`.
std::string SystemFieldOf(const ConditionSource& condition, size_t number) {
  return absl::StrCat(condition.system_field,
                      condition.several_messages ? absl::StrCat("[", number, "]") : "");
}

absl::Status CheckSystemMessages(const GenerationSource& source, const engine::ServedModel& model,
                                 bool taken) {
  for (const ConditionSource& condition : source.conditions) {
    for (size_t i = 0; i < condition.system_messages.size(); ++i) {
      VS_RETURN_IF_ERROR(services::CheckSystemMessage(SystemFieldOf(condition, i),
                                                      condition.system_messages[i], taken, model));
    }
  }
  return absl::OkStatus();
}

// Queries as they are tokenised under every condition, each checked at once.
class QueryWriter {
 public:
  QueryWriter(const GenerationSource& source, const engine::ServedModel& model,
              const rpc::CallContext& context, bool at_once, bool takes_system_message,
              Generation& generation)
      : source_(source),
        model_(model),
        context_(context),
        at_once_(at_once),
        takes_system_message_(takes_system_message),
        options_{.now = absl::Now()},
        generation_(generation) {}

  // So many queries will be added.
  absl::Status Begin(int64_t queries) {
    units_ = UnitsOf(source_, queries);
    return CheckCounts(source_, queries, model_, at_once_);
  }

  absl::Status Add(const GivenPlace& place, const std::string& text, const std::string& query_id) {
    VS_RETURN_IF_ERROR(context_.Why());
    if (text.empty()) return InvalidField(place.field, absl::StrCat(place.line, "has no text"));
    VS_RETURN_IF_ERROR(place.Of(services::CheckIsText(place.field, text, model_)));
    VS_RETURN_IF_ERROR(context_.Hold(static_cast<int64_t>(text.size() + query_id.size())));
    const int number = generation_.queries.queries_size();
    SavedQuery& query = *generation_.queries.add_queries();
    query.set_text(text);
    query.set_query_id(query_id);
    for (int c = 0; c < generation_.how.conditions_size(); ++c) {
      const SystemMessage system = SystemMessageOf(c, number);
      auto prompt = services::PromptFromProto(place.field, services::UserTurn(system.text, text),
                                              model_, options_);
      if (!prompt.ok()) return AtPrompt(place, system, text, prompt.status());
      VS_RETURN_IF_ERROR(AddPrompt(place, system, prompt->ids, query));
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
  struct SystemMessage {
    const std::string* text = nullptr;  // null: none
    std::string field = {};
  };

  SystemMessage SystemMessageOf(int condition, int query) const {
    const ConditionSource& of = source_.conditions[static_cast<size_t>(condition)];
    if (of.system_messages.empty()) return {};
    const size_t number =
        DrawnMessage(source_.draw_seed, condition, query, of.system_messages.size());
    const std::string& text = of.system_messages[number];
    if (text.empty() && !takes_system_message_) return {};
    return {.text = &text, .field = SystemFieldOf(of, number)};
  }

  // What the engine has to say of one depends on its length and condition.
  absl::Status AddPrompt(const GivenPlace& place, const SystemMessage& system,
                         const std::vector<int32_t>& ids, SavedQuery& query) {
    VS_RETURN_IF_ERROR(context_.Hold(static_cast<int64_t>(ids.size() * sizeof(int32_t))));
    query.add_prompts()->mutable_ids()->Assign(ids.begin(), ids.end());
    const int condition = query.prompts_size() - 1;
    const int alike = generation_.interventions.empty() ? 0 : condition;
    if (!checked_.insert({alike, ids.size()}).second) return absl::OkStatus();
    const int64_t unit =
        (static_cast<int64_t>(generation_.queries.queries_size() - 1) * ConditionsOf(source_) +
         condition) *
        generation_.how.samples();
    const engine::Request request = generation_.RequestOf(unit, model_);
    if (absl::Status status = model_.engine->Check(request); !status.ok()) {
      return AtRequest(place, condition, system, query.text(), status);
    }
    SavedGeneration& how = generation_.how;
    how.set_most_prompt_tokens(
        std::max(how.most_prompt_tokens(), static_cast<int64_t>(ids.size())));
    how.set_most_response_tokens(
        std::max<int64_t>(how.most_response_tokens(), request.sampling->max_tokens));
    return CheckCost(source_, units_, how, at_once_);
  }

  // What is wrong with a prompt, of the query in it unless that could stand alone.
  absl::Status AtPrompt(const GivenPlace& place, const SystemMessage& system,
                        const std::string& query, const absl::Status& status) const {
    const bool has_message = system.text != nullptr && !system.text->empty();
    if (!has_message ||
        !services::StandsAlone(query, takes_system_message_, model_, options_.now)) {
      return place.Of(status);
    }
    return GivenPlace{.field = system.field, .line = ""}.Of(status);
  }

  // What the engine says of a request, of the field that it comes from.
  absl::Status AtRequest(const GivenPlace& place, int condition, const SystemMessage& system,
                         const std::string& query, const absl::Status& status) const {
    const std::string field = DetailsOf(status).field;
    if (absl::StartsWith(field, "sampling")) {
      return WithFieldRenamed(status, "sampling", absl::StrCat(source_.prefix, "sampling"));
    }
    if (absl::StartsWith(field, "interventions")) {
      return InField(source_.conditions[static_cast<size_t>(condition)].field, status);
    }
    return AtPrompt(place, system, query, status);
  }

  const GenerationSource& source_;
  const engine::ServedModel& model_;
  const rpc::CallContext& context_;
  const bool at_once_;
  const bool takes_system_message_;
  const services::PromptOptions options_;
  Generation& generation_;
  int64_t units_ = 0;                         // of all queries
  std::set<std::pair<int, size_t>> checked_;  // condition and length
  std::string longest_;
};

absl::Status AddLines(const std::string& field, const services::ReadPiece& read,
                      QueryWriter& writer) {
  services::DataSetLines lines(field, read, services::LineNeeds::kPrompt);
  while (true) {
    VS_ASSIGN_OR_RETURN(const std::optional<services::DataSetLine> line, lines.Next());
    if (!line) return absl::OkStatus();
    const GivenPlace place = GivenPlace::Line(field, line->number);
    if (!line->response.prompt().has_text()) {
      return InvalidField(place.field, absl::StrCat(place.line, "has no `prompt.text`"));
    }
    VS_RETURN_IF_ERROR(
        writer.Add(place, line->response.prompt().text(), line->response.query_id()));
  }
}

absl::Status AddQueries(const GenerationSource& source, const rpc::CallContext& context,
                        const Sources& sources, services::UsedResources& used,
                        QueryWriter& writer) {
  if (source.queries_artifact.empty()) {
    VS_RETURN_IF_ERROR(writer.Begin(source.queries.size()));
    for (int i = 0; i < source.queries.size(); ++i) {
      const GivenPlace place = GivenPlace::Inline(absl::StrCat(source.prefix, "queries"), i);
      VS_RETURN_IF_ERROR(writer.Add(place, source.queries[i], /*query_id=*/""));
    }
  } else {
    const std::string field = absl::StrCat(source.prefix, "queries_artifact");
    VS_ASSIGN_OR_RETURN(const services::ReadPiece read,
                        services::OpenDataSet(field, source.queries_artifact, context.tenant,
                                              *sources.store, *sources.blobs, used));
    VS_ASSIGN_OR_RETURN(const int64_t count, services::CountDataSetLines(read, kMostUnits));
    VS_RETURN_IF_ERROR(writer.Begin(count));
    VS_RETURN_IF_ERROR(AddLines(field, read, writer));
  }
  writer.NameQueries();
  return absl::OkStatus();
}

// --- Conditions and the judge --------------------------------------------------------------------

absl::Status AddConditions(const GenerationSource& source, const engine::ServedModel& model,
                           const rpc::CallContext& context, const Sources& sources,
                           services::UsedResources& used, Generation& generation) {
  bool any_interventions = false;
  for (const ConditionSource& of : source.conditions) {
    SavedCondition& condition = *generation.how.add_conditions();
    condition.set_name(of.name);
    if (of.expresses) condition.set_expresses(*of.expresses);
    if (of.interventions == nullptr || of.interventions->empty()) continue;
    any_interventions = true;
    VS_RETURN_IF_ERROR(
        context.Hold(static_cast<int64_t>(of.interventions->SpaceUsedExcludingSelfLong())));
    *condition.mutable_interventions() = *of.interventions;
  }
  if (!any_interventions) return absl::OkStatus();
  for (int c = 0; c < generation.how.conditions_size(); ++c) {
    auto prepared = services::PreparedFromProto(generation.how.conditions(c).interventions(),
                                                {context.tenant, model, *sources.vectors}, used);
    if (!prepared.ok()) {
      return InField(source.conditions[static_cast<size_t>(c)].field, prepared.status());
    }
    generation.interventions.push_back(*std::move(prepared));
  }
  return absl::OkStatus();
}

bool AnyIsJudged(const SavedGeneration& how) {
  return std::any_of(how.conditions().begin(), how.conditions().end(), IsJudged);
}

absl::Status AddJudge(const GenerationSource& source, const engine::ServedModel& model,
                      const engine::ModelRegistry& models, services::UsedResources& used,
                      Generation& generation) {
  if (!AnyIsJudged(generation.how)) return absl::OkStatus();
  const std::string field = absl::StrCat(source.prefix, "judge");
  if (source.judge == nullptr) {
    if (!source.labels_required) return absl::OkStatus();
    return InvalidField(field, "is required: a condition has no `expresses`");
  }
  std::shared_ptr<const engine::ServedModel> asked;
  const absl::Time now = absl::Now();
  if (source.judge->has_rubric()) {
    VS_ASSIGN_OR_RETURN(asked, services::ModelOfName(absl::StrCat(field, ".rubric.model"),
                                                     source.judge->rubric().model(), models));
    if (asked->id != model.id) {
      used[absl::StrCat("models/", asked->id)] = asked->weights_digest;
    }
    *generation.how.mutable_judge_model() = SavedModelOf(*asked);
    generation.how.set_judge_time(absl::ToUnixSeconds(now));
  }
  *generation.how.mutable_judge() = *source.judge;
  VS_ASSIGN_OR_RETURN(generation.judge,
                      services::JudgeFromProto(field, *source.judge, std::move(asked),
                                               absl::FromUnixSeconds(generation.how.judge_time())));
  return absl::OkStatus();
}

}  // namespace

GenerationSource SourceOf(const v1::GeneratedResponses& request, bool include_end_of_turn) {
  GenerationSource source{
      .whole = "`generated`",
      .prefix = "generated.",
      .queries = request.queries(),
      .queries_artifact = request.queries_artifact(),
      .conditions = {},
      .most_conditions = 16,
      .sampling = request.sampling(),
      .samples = request.has_samples_per_query() ? request.samples_per_query() : 1,
      .judge = request.has_judge() ? &request.judge() : nullptr,
      .draw_seed = request.seed(),
      .include_end_of_turn = include_end_of_turn};
  for (int c = 0; c < std::max(1, request.conditions_size()); ++c) {
    ConditionSource& condition = source.conditions.emplace_back();
    condition.field = absl::StrCat("generated.conditions[", c, "]");
    condition.system_field = absl::StrCat(condition.field, ".system_messages");
    condition.several_messages = true;
    if (c < request.conditions_size()) {
      const v1::GenerationCondition& given = request.conditions(c);
      condition.system_messages.assign(given.system_messages().begin(),
                                       given.system_messages().end());
      if (given.has_expresses()) condition.expresses = given.expresses();
    }
    if (condition.system_messages.empty()) condition.system_messages = {""};
  }
  return source;
}

absl::StatusOr<Generation> GenerationOf(const GenerationSource& source,
                                        const engine::ServedModel& model,
                                        const rpc::CallContext& context,
                                        const services::ResolveOptions& options,
                                        const Sources& sources, services::UsedResources& used) {
  VS_RETURN_IF_ERROR(CheckNumbers(source));
  Generation generation;
  SavedGeneration& how = generation.how;
  *how.mutable_sampling() = source.sampling;
  how.mutable_sampling()->set_seed(source.sampling.seed());
  how.set_samples(source.samples);
  how.set_include_end_of_turn(source.include_end_of_turn);
  how.set_draw_seed(source.draw_seed);
  VS_RETURN_IF_ERROR(AddConditions(source, model, context, sources, used, generation));
  VS_RETURN_IF_ERROR(AddJudge(source, model, *sources.models, used, generation));
  VS_ASSIGN_OR_RETURN(
      const bool takes_system_message,
      services::TakesSystemMessage(absl::StrCat(source.prefix, "conditions"), model, absl::Now()));
  VS_RETURN_IF_ERROR(CheckSystemMessages(source, model, takes_system_message));
  for (int c = 0; c < how.conditions_size(); ++c) {
    const ConditionSource& of = source.conditions[static_cast<size_t>(c)];
    if (of.system_messages.empty()) continue;
    if (of.several_messages) {
      // A template that takes none leaves empty ones alone, which it does not get.
      if (!takes_system_message) continue;
      how.mutable_conditions(c)->mutable_system_messages()->Assign(of.system_messages.begin(),
                                                                   of.system_messages.end());
      continue;
    }
    const std::string& message = of.system_messages.front();
    if (takes_system_message || !message.empty()) {
      how.mutable_conditions(c)->set_system_message(message);
    }
  }
  QueryWriter writer(source, model, context, options.at_once, takes_system_message, generation);
  VS_RETURN_IF_ERROR(AddQueries(source, context, sources, used, writer));
  if (generation.judge != nullptr) {
    VS_ASSIGN_OR_RETURN(const int64_t tokens,
                        generation.judge->MostTokens(writer.longest(), how.most_response_tokens()));
    how.set_most_judge_tokens(tokens);
  }
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
