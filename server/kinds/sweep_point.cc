#include "kinds/sweep_point.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/evaluation_kind.h"
#include "kinds/evaluation_work.h"
#include "kinds/generated_responses.h"
#include "kinds/kinds.h"
#include "kinds/measured_texts.h"
#include "kinds/sweep_measures.h"
#include "services/idempotency.h"
#include "services/judges.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {
namespace {

// An evaluation's work under the point's condition.
SavedWork WorkAt(const SavedSweep& sweep, int evaluation, const std::string& point,
                 const Interventions& interventions) {
  SavedWork work = sweep.evaluations(evaluation).work();
  const std::string name = ConditionAt(point, sweep, evaluation);
  if (work.has_generation()) {
    SavedCondition& condition = *work.mutable_generation()->mutable_conditions(0);
    condition.set_name(name);
    *condition.mutable_interventions() = interventions;
  } else {
    SavedEvaluationCondition& condition = *work.mutable_evaluation()->mutable_conditions(0);
    condition.set_name(name);
    *condition.mutable_interventions() = interventions;
  }
  return work;
}

// The one result of a kind's outcome.
template <typename Response>
const auto& ResultOf(const jobs::Outcome& outcome) {
  return static_cast<const EvaluationOutcome<Response>&>(outcome).result.results(0);
}

template <typename Response>
void AddWarnings(const jobs::Outcome& outcome, SavedSweepShard& saved) {
  saved.mutable_warnings()->MergeFrom(
      static_cast<const EvaluationOutcome<Response>&>(outcome).result.warnings());
}

}  // namespace

SweepKinds::SweepKinds(const Sources& sources)
    : responses(GenerateResponses(sources)),
      questionnaire(AskQuestionnaire(sources)),
      choices(AnswerChoices(sources)),
      tagged_responses(ScoreTaggedResponses(sources)) {}

absl::StatusOr<services::Kind*> SweepKinds::Of(SavedWork::KindCase kind) const {
  switch (kind) {
    case SavedWork::kGenerateResponses:
      return responses.get();
    case SavedWork::kAskQuestionnaire:
      return questionnaire.get();
    case SavedWork::kAnswerChoices:
      return choices.get();
    case SavedWork::kScoreTaggedResponses:
      return tagged_responses.get();
    default:
      return SpecDamaged();
  }
}

std::vector<SweepStage> StagesOf(const SavedSweep& sweep) {
  std::vector<SweepStage> stages;
  for (int e = 0; e < sweep.evaluations_size(); ++e) {
    const SavedWork& work = sweep.evaluations(e).work();
    stages.push_back({.evaluation = e, .units = work.num_responses()});
    if (!work.has_generate_responses()) continue;
    stages.push_back({.evaluation = e, .of_texts = true, .units = work.num_responses()});
  }
  return stages;
}

int64_t UnitsOf(const std::vector<SweepStage>& stages) {
  int64_t units = 0;
  for (const SweepStage& stage : stages) units += stage.units;
  return units;
}

std::string ConditionAt(const std::string& point, const SavedSweep& sweep, int evaluation) {
  const auto& all = sweep.evaluations();
  const auto by_responses = std::count_if(
      all.begin(), all.end(), [](const auto& one) { return one.work().has_generate_responses(); });
  return by_responses > 1 ? absl::StrCat(point, "/", all[evaluation].name()) : point;
}

absl::StatusOr<ResponseInputs> OpenResponses(const SweepContext& context, int evaluation,
                                             const std::string& point,
                                             const Interventions& interventions) {
  return ResponseInputs::Open(context.sources, context.tenant,
                              WorkAt(context.sweep, evaluation, point, interventions),
                              SavedWork::kGenerateResponses);
}

absl::StatusOr<std::unique_ptr<SweepPointRun>> SweepPointRun::Open(
    const SweepContext& context, const std::string& point, const Interventions& interventions) {
  std::unique_ptr<SweepPointRun> run(new SweepPointRun(context, point));
  for (const SweepStage& stage : run->plan_) {
    Stage& opened = run->stages_.emplace_back();
    const SavedWork& saved = context.sweep.evaluations(stage.evaluation).work();
    if (stage.of_texts) continue;
    if (saved.has_generate_responses()) {
      VS_ASSIGN_OR_RETURN(opened.responses,
                          OpenResponses(context, stage.evaluation, point, interventions));
      continue;
    }
    VS_ASSIGN_OR_RETURN(services::Kind* const kind, context.kinds.Of(saved.kind_case()));
    const SavedWork work = WorkAt(context.sweep, stage.evaluation, point, interventions);
    VS_ASSIGN_OR_RETURN(opened.work,
                        kind->Open(context.tenant, services::DeterministicBytes(work)));
  }
  return run;
}

// --- Running -------------------------------------------------------------------------------------

absl::Status SweepPointRun::Run(const jobs::UnitRange& units, const Cancellation& cancellation,
                                SavedSweepShard& saved) {
  int64_t begin = 0;  // of the stage
  for (size_t i = 0; i < plan_.size(); begin += plan_[i].units, ++i) {
    const int64_t first = std::max(units.first - begin, int64_t{0});
    const int64_t end = std::min(units.end - begin, plan_[i].units);
    if (first >= end) continue;
    VS_RETURN_IF_ERROR(RunStage(i, {first, end}, cancellation, saved));
  }
  return absl::OkStatus();
}

absl::Status SweepPointRun::RunStage(size_t stage, const jobs::UnitRange& units,
                                     const Cancellation& cancellation, SavedSweepShard& saved) {
  const auto number = static_cast<int>(stage);
  if (saved.stages_size() < number || (saved.stages_size() == number && units.first > 0)) {
    return jobs::PartialDamaged();
  }
  if (saved.stages_size() == number) saved.add_stages();
  std::string& bytes = *saved.mutable_stages(number);
  if (stages_[stage].responses) {
    return Generate(*stages_[stage].responses, units, cancellation, bytes);
  }
  if (plan_[stage].of_texts) VS_RETURN_IF_ERROR(OpenTexts(stage, saved));
  jobs::Work& work = *stages_[stage].work;
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<jobs::Partial> partial,
                      units.first == 0 ? work.Begin(plan_[stage].units)
                                       : work.Parse(bytes, units.first, plan_[stage].units));
  VS_RETURN_IF_ERROR(work.RunChunk(units, cancellation, *partial));
  bytes = partial->Serialize();
  return absl::OkStatus();
}

absl::Status SweepPointRun::Generate(const ResponseInputs& inputs, const jobs::UnitRange& units,
                                     const Cancellation& cancellation, std::string& saved) const {
  SavedResponses responses;
  if (!responses.ParseFromString(saved) || responses.responses_size() != units.first) {
    return jobs::PartialDamaged();
  }
  VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
  const services::JudgedFor whom = {
      .tenant = inputs.tenant, .background = inputs.background(), .cancellation = cancellation};
  v1::Usage usage;
  auto made = GenerateUnits(*inputs.generation, *model, units, whom, usage);
  if (!made.ok()) return WithFieldRenamed(made.status(), "generated", "spec");
  for (SavedResponse& response : *made) *responses.add_responses() = std::move(response);
  saved = services::DeterministicBytes(responses);
  return absl::OkStatus();
}

absl::Status SweepPointRun::OpenTexts(size_t stage, const SavedSweepShard& saved) {
  if (stages_[stage].work != nullptr) return absl::OkStatus();
  const ResponseInputs& inputs = *stages_[stage - 1].responses;
  SavedResponses responses;
  if (!responses.ParseFromString(saved.stages(static_cast<int>(stage) - 1)) ||
      responses.responses_size() != plan_[stage].units) {
    return jobs::PartialDamaged();
  }
  VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
  auto texts = std::make_shared<SavedTexts>();
  for (int unit = 0; unit < responses.responses_size(); ++unit) {
    const auto& ids = responses.responses(unit).ids();
    SavedText& text = *texts->add_texts();
    text.set_condition(point_);
    *text.mutable_ids() = ids;
    VS_ASSIGN_OR_RETURN(*text.mutable_text(),
                        model->text->tokenizer().Decode({ids.begin(), ids.end()},
                                                        /*skip_special_tokens=*/true));
    const SavedQuery& query =
        inputs.generation->queries.queries(UnitOf(inputs.generation->how, unit).query);
    *text.mutable_prompt() = query.prompts(0).ids();
  }
  ResponseInputs measured{.tenant = inputs.tenant,
                          .models = inputs.models,
                          .held = nullptr,
                          .responses = {},
                          .generation = nullptr,
                          .texts = std::move(texts),
                          .record = inputs.record};
  measured.record.set_responses_per_shard(plan_[stage].units);
  *measured.record.mutable_measure_texts() =
      context_.sweep.evaluations(plan_[stage].evaluation).measures();
  VS_ASSIGN_OR_RETURN(stages_[stage].work,
                      MeasuringWorkOf(std::move(measured), *model, /*can_wait=*/false));
  return absl::OkStatus();
}

// --- What came of it -----------------------------------------------------------------------------

absl::Status SweepPointRun::Finish(const Cancellation& cancellation, SavedSweepShard& saved) {
  if (saved.stages_size() != static_cast<int>(plan_.size())) return jobs::PartialDamaged();
  for (size_t i = 0; i < plan_.size(); ++i) {
    if (stages_[i].responses) continue;
    VS_RETURN_IF_ERROR(plan_[i].of_texts ? FinishResponses(i, cancellation, saved)
                                         : FinishItems(i, cancellation, saved));
  }
  saved.clear_stages();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<jobs::Outcome>> SweepPointRun::OutcomeOf(
    size_t stage, const Cancellation& cancellation, const SavedSweepShard& saved) {
  if (plan_[stage].of_texts) VS_RETURN_IF_ERROR(OpenTexts(stage, saved));
  const int64_t units = plan_[stage].units;
  jobs::Work& work = *stages_[stage].work;
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<jobs::Partial> all,
                      work.Parse(saved.stages(static_cast<int>(stage)), units, units));
  return work.Finish(*all, cancellation);
}

absl::Status SweepPointRun::FinishResponses(size_t stage, const Cancellation& cancellation,
                                            SavedSweepShard& saved) {
  VS_ASSIGN_OR_RETURN(const auto outcome, OutcomeOf(stage, cancellation, saved));
  const auto& found = static_cast<const MeasuresOutcome&>(*outcome).result;
  const Generation& generation = *stages_[stage - 1].responses->generation;
  SavedResponses& responses = *saved.add_responses();
  if (!responses.ParseFromString(saved.stages(static_cast<int>(stage) - 1))) {
    return jobs::PartialDamaged();
  }
  JudgedCounts counts{.labelled = generation.judge != nullptr,
                      .asked = generation.how.has_judge_model()};
  for (const SavedResponse& response : responses.responses()) counts.Add(response);
  const SavedSweepEvaluation& of = context_.sweep.evaluations(plan_[stage].evaluation);
  AddMeasures(of.name(), of.measures(), counts, found.measures(0),
              *saved.mutable_point()->mutable_measures());
  saved.mutable_warnings()->MergeFrom(found.warnings());
  return absl::OkStatus();
}

absl::Status SweepPointRun::FinishItems(size_t stage, const Cancellation& cancellation,
                                        SavedSweepShard& saved) {
  VS_ASSIGN_OR_RETURN(const auto outcome, OutcomeOf(stage, cancellation, saved));
  const SavedSweepEvaluation& of = context_.sweep.evaluations(plan_[stage].evaluation);
  SweepMeasures& measures = *saved.mutable_point()->mutable_measures();
  switch (of.work().kind_case()) {
    case SavedWork::kAskQuestionnaire:
      AddMeasures(of.name(), ResultOf<v1::AskQuestionnaireResponse>(*outcome), measures);
      AddWarnings<v1::AskQuestionnaireResponse>(*outcome, saved);
      return absl::OkStatus();
    case SavedWork::kAnswerChoices:
      AddMeasures(of.name(), of.work().answer_choices().reading(),
                  ResultOf<v1::AnswerChoicesResponse>(*outcome), measures);
      AddWarnings<v1::AnswerChoicesResponse>(*outcome, saved);
      return absl::OkStatus();
    case SavedWork::kScoreTaggedResponses:
      AddMeasures(of.name(), ResultOf<v1::ScoreTaggedResponsesResponse>(*outcome), measures);
      AddWarnings<v1::ScoreTaggedResponsesResponse>(*outcome, saved);
      return absl::OkStatus();
    default:
      return SpecDamaged();
  }
}

}  // namespace valuescope::kinds
