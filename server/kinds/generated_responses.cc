#include "kinds/generated_responses.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/saved_model.h"
#include "services/intervention_codec.h"
#include "services/request_codec.h"
#include "services/result_codec.h"
#include "studies/message_json.h"

namespace valuescope::kinds {
namespace {

absl::Status Damaged() {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "DATA_SET_DAMAGED",
                         "the stored queries of a job are damaged");
}

bool IsWhole(const SavedWork& record, const Generation& generation) {
  const SavedGeneration& how = record.generation();
  if (how.samples() < 1 || how.conditions().empty() || generation.queries.queries().empty()) {
    return false;
  }
  const auto has_prompts = [&how](const SavedQuery& query) {
    return query.prompts_size() == how.conditions_size() &&
           std::none_of(query.prompts().begin(), query.prompts().end(),
                        [](const v1::TokenIds& prompt) { return prompt.ids().empty(); });
  };
  const auto& queries = generation.queries.queries();
  return generation.units() == record.num_responses() &&
         std::all_of(queries.begin(), queries.end(), has_prompts);
}

// Labels those that are not empty and whose condition does not.
absl::Status Label(const Generation& generation, const jobs::UnitRange& units,
                   const std::vector<std::string>& texts, const services::JudgedFor& whom,
                   v1::Usage& usage, std::vector<SavedResponse>& responses) {
  std::vector<services::Answered> judged;
  std::vector<SavedResponse*> labelled;
  for (size_t i = 0; i < responses.size(); ++i) {
    const GeneratedUnit unit = UnitOf(generation.how, units.first + static_cast<int64_t>(i));
    const SavedCondition& condition = generation.how.conditions(unit.condition);
    responses[i].set_expresses(condition.expresses());
    if (generation.judge == nullptr || !IsJudged(condition) || responses[i].ids().empty()) continue;
    judged.push_back(
        {.query = generation.queries.queries(unit.query).text(), .response = texts[i]});
    labelled.push_back(&responses[i]);
  }
  if (judged.empty()) return absl::OkStatus();
  VS_ASSIGN_OR_RETURN(const std::vector<services::Judgement> judgements,
                      generation.judge->Label(judged, whom, usage));
  for (size_t i = 0; i < judgements.size(); ++i) {
    labelled[i]->set_expresses(judgements[i].expresses);
    if (judgements[i].answer) labelled[i]->set_answer_mass(judgements[i].answer->mass);
  }
  return absl::OkStatus();
}

// Interventions of every condition, in order; none where no condition has any.
absl::Status PrepareInterventions(const engine::ServedModel& model, absl::string_view tenant,
                                  const Sources& sources, Generation& generation) {
  const auto& conditions = generation.how.conditions();
  if (std::all_of(conditions.begin(), conditions.end(),
                  [](const auto& condition) { return condition.interventions().empty(); })) {
    return absl::OkStatus();
  }
  services::UsedResources used;
  for (const SavedCondition& condition : conditions) {
    VS_ASSIGN_OR_RETURN(
        generation.interventions.emplace_back(),
        services::PreparedFromProto(condition.interventions(),
                                    {std::string(tenant), model, *sources.vectors}, used));
  }
  return absl::OkStatus();
}

}  // namespace

GeneratedUnit UnitOf(const SavedGeneration& how, int64_t unit) {
  const int64_t prompt = unit / how.samples();
  return {.query = static_cast<int>(prompt / how.conditions_size()),
          .condition = static_cast<int>(prompt % how.conditions_size()),
          .sample = static_cast<int>(unit % how.samples())};
}

uint64_t SeedOf(uint64_t state, int64_t number) {
  return services::SeedOfCompletion(state, static_cast<int>(number) + 1);
}

size_t DrawnMessage(uint64_t draw_seed, int condition, int query, size_t count) {
  return SeedOf(SeedOf(draw_seed, condition), query) % count;
}

bool IsJudged(const SavedCondition& condition) { return !condition.has_expresses(); }

int64_t Generation::units() const {
  return static_cast<int64_t>(queries.queries_size()) * how.conditions_size() * how.samples();
}

GenerationCost Generation::MostCost() const {
  const auto judged = std::count_if(how.conditions().begin(), how.conditions().end(), IsJudged);
  const int64_t judgements =
      how.has_judge_model() ? units() / how.conditions_size() * static_cast<int64_t>(judged) : 0;
  return {.generated_tokens = units() * how.most_response_tokens(),
          .tokens = units() * (how.most_prompt_tokens() + how.most_response_tokens()),
          .judge_tokens = judgements * how.most_judge_tokens(),
          .judgements = judgements};
}

int64_t Generation::MemoryOf(int64_t responses) const {
  return studies::EncodedSize(responses,
                              responses * (how.most_prompt_tokens() + how.most_response_tokens()));
}

engine::Request Generation::RequestOf(int64_t unit, const engine::ServedModel& model) const {
  const GeneratedUnit place = UnitOf(how, unit);
  const auto& ids = queries.queries(place.query).prompts(place.condition).ids();
  engine::Request request;
  request.prompt.assign(ids.begin(), ids.end());
  request.sampling = services::SamplingFromProto(how.sampling(), /*logprobs=*/std::nullopt,
                                                 model.architecture.max_positions - ids.size());
  request.sampling->seed =
      SeedOf(SeedOf(SeedOf(how.sampling().seed(), place.condition), place.query), place.sample);
  if (!interventions.empty()) {
    request.prepared = interventions[static_cast<size_t>(place.condition)];
  }
  return request;
}

absl::StatusOr<std::shared_ptr<const Generation>> OpenGeneration(const SavedWork& record,
                                                                 absl::string_view queries,
                                                                 const engine::ServedModel& model,
                                                                 absl::string_view tenant,
                                                                 const Sources& sources) {
  auto generation = std::make_shared<Generation>();
  generation->how = record.generation();
  if (!generation->queries.ParseFromArray(queries.data(), static_cast<int>(queries.size())) ||
      !IsWhole(record, *generation)) {
    return Damaged();
  }
  VS_RETURN_IF_ERROR(PrepareInterventions(model, tenant, sources, *generation));
  if (!generation->how.has_judge()) return generation;
  std::shared_ptr<const engine::ServedModel> asked;
  if (generation->how.has_judge_model()) {
    VS_ASSIGN_OR_RETURN(asked, ModelAsThen(*sources.models, generation->how.judge_model(),
                                           record.format_version() >= kSavedWorkThatWaits));
  }
  VS_ASSIGN_OR_RETURN(
      generation->judge,
      services::JudgeFromProto("generated.judge", generation->how.judge(), std::move(asked),
                               absl::FromUnixSeconds(generation->how.judge_time())));
  return generation;
}

absl::StatusOr<std::vector<SavedResponse>> GenerateUnits(const Generation& generation,
                                                         const engine::ServedModel& model,
                                                         const jobs::UnitRange& units,
                                                         const services::JudgedFor& whom,
                                                         v1::Usage& usage) {
  std::vector<engine::Request> requests;
  for (int64_t unit = units.first; unit < units.end; ++unit) {
    engine::Request& request = requests.emplace_back(generation.RequestOf(unit, model));
    request.tenant = whom.tenant;
    request.background = whom.background;
  }
  auto completions = engine::RunAll(*model.engine, std::move(requests), whom.cancellation);
  if (!completions.ok()) return InField("generated", completions.status());
  const studies::TrimOptions trimming = {
      .end_of_turn = model.text->eos_ids(),
      .include_end_of_turn = generation.how.include_end_of_turn()};
  std::vector<SavedResponse> responses;
  std::vector<std::string> texts;
  for (engine::Completion& completion : *completions) {
    studies::TrimEnd(trimming, completion.token_ids);
    SavedResponse& response = responses.emplace_back();
    response.mutable_ids()->Assign(completion.token_ids.begin(), completion.token_ids.end());
    for (const engine::Receipt& receipt : completion.receipts) {
      response.add_touched(receipt.positions);
    }
    texts.push_back(std::move(completion.text));
    services::AddUsage(completion, usage);
  }
  VS_RETURN_IF_ERROR(Label(generation, units, texts, whom, usage, responses));
  return responses;
}

studies::ResponseSet SetOf(const Generation& generation, int64_t first,
                           std::span<const SavedResponse> responses) {
  std::vector<studies::LabelledResponse> labelled;
  labelled.reserve(responses.size());
  for (size_t i = 0; i < responses.size(); ++i) {
    const GeneratedUnit unit = UnitOf(generation.how, first + static_cast<int64_t>(i));
    const SavedQuery& query = generation.queries.queries(unit.query);
    const auto& prompt = query.prompts(unit.condition).ids();
    labelled.push_back({.prompt = {prompt.begin(), prompt.end()},
                        .response = {responses[i].ids().begin(), responses[i].ids().end()},
                        .expresses = responses[i].expresses(),
                        .query_id = query.query_id()});
  }
  // They were trimmed when they were generated.
  studies::ResponseSet set =
      studies::Trim(std::move(labelled), {.end_of_turn = {}, .include_end_of_turn = true});
  set.rendered_chat = true;
  return set;
}

std::string JudgesOf(const Generation& generation) {
  std::vector<std::string> judges;
  if (generation.judge != nullptr) judges.push_back(generation.judge->Description());
  const auto& conditions = generation.how.conditions();
  if (!std::all_of(conditions.begin(), conditions.end(), IsJudged)) {
    judges.push_back("caller, by condition");
  }
  return absl::StrJoin(judges, "; ");
}

std::optional<double> MeanAnswerMass(std::span<const SavedResponse> responses) {
  double sum = 0;
  int64_t count = 0;
  for (const SavedResponse& response : responses) {
    sum += response.answer_mass();
    count += response.has_answer_mass();
  }
  if (count == 0) return std::nullopt;
  return sum / static_cast<double>(count);
}

namespace {

// Null where there is none.
const std::string* SystemMessageOf(const SavedGeneration& how, const GeneratedUnit& unit) {
  const SavedCondition& condition = how.conditions(unit.condition);
  if (condition.has_system_message()) return &condition.system_message();
  if (condition.system_messages().empty()) return nullptr;
  const size_t number = DrawnMessage(how.draw_seed(), unit.condition, unit.query,
                                     static_cast<size_t>(condition.system_messages_size()));
  return &condition.system_messages(static_cast<int>(number));
}

}  // namespace

v1::LabelledResponse LineOf(const Generation& generation, const GeneratedUnit& unit,
                            const SavedResponse& response) {
  const SavedQuery& query = generation.queries.queries(unit.query);
  const SavedCondition& condition = generation.how.conditions(unit.condition);
  v1::LabelledResponse line;
  v1::Chat& chat = *line.mutable_prompt()->mutable_chat();
  if (const std::string* const message = SystemMessageOf(generation.how, unit)) {
    v1::Message& system = *chat.add_messages();
    system.set_role("system");
    system.set_content(*message);
  }
  v1::Message& user = *chat.add_messages();
  user.set_role("user");
  user.set_content(query.text());
  *line.mutable_response()->mutable_token_ids()->mutable_ids() = response.ids();
  if (generation.judge != nullptr) line.set_expresses(response.expresses());
  line.set_query_id(query.query_id());
  line.set_condition(condition.name());
  return line;
}

std::string JsonLineOf(const v1::LabelledResponse& response) {
  return absl::StrCat(studies::MessageToJson(response).dump(), "\n");
}

absl::StatusOr<store::StoredBlob> WriteJsonLines(store::BlobStore& blobs,
                                                 const studies::ResponseSet& set) {
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<store::BlobWriter> writer, blobs.NewWriter());
  for (const studies::LabelledResponse& response : set.responses) {
    v1::LabelledResponse line;
    line.mutable_prompt()->mutable_token_ids()->mutable_ids()->Assign(response.prompt.begin(),
                                                                      response.prompt.end());
    line.mutable_response()->mutable_token_ids()->mutable_ids()->Assign(response.response.begin(),
                                                                        response.response.end());
    line.set_expresses(response.expresses);
    line.set_query_id(response.query_id);
    VS_RETURN_IF_ERROR(writer->Append(JsonLineOf(line)));
  }
  return writer->Finish();
}

}  // namespace valuescope::kinds
