// The kind "value_study": the study of Han et al. (arXiv 2509.24319) from queries to a table
// against the paper, as a chain of stages (study_stages.h) whose parts are jobs of the kinds that
// there are.
//
// They are jobs of their own, of the study's tenant, rather than shards of its job, because nearly
// everything that is asked of them is there for jobs: shards that several servers share, turns with
// other people's work, progress, results that can be read before the study is finished, going on
// after a crash. A part is known by its phase, so that it begins once whoever asks for it, and
// belongs to the study's job: it is cancelled, retried and deleted with it. The study's own shard
// holds no lease while its parts run (jobs::ShardContext::AwaitChildren), so that it takes no
// worker, and none of what its tenant may run at once, from them.
//
// A unit is a forward pass as estimated, so that stages count for what they take. The shard's
// partial is what was found so far (SavedStudyState), and Finish writes it.
//
// Left by a job: "results", JSON of ValueStudyResult, nothing of time, place and jobs.
#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/kinds.h"
#include "kinds/response_work.h"
#include "kinds/study_request.h"
#include "kinds/study_results.h"
#include "kinds/study_stages.h"
#include "services/idempotency.h"
#include "services/job_drafts.h"
#include "services/model_needs.h"
#include "services/study_codec.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "studies/provenance.h"

namespace valuescope::kinds {
namespace {

using Spec = v1::ValueStudySpec;

constexpr char kName[] = "value_study";
// Of a study's own request: it stands in the job's row, once as sent and once with its defaults.
constexpr int64_t kMostSpec = int64_t{1} << 20;

// What is stored with the job. Nothing runs: the kind goes through the stages itself.
class PlannedStudy : public jobs::Work {
 public:
  explicit PlannedStudy(SavedWork record) : record_(std::move(record)) {}

  jobs::Extent extent() const override {
    const auto& stages = record_.value_study().stage_units();
    const int64_t units = std::accumulate(stages.begin(), stages.end(), int64_t{0});
    return {.units = units, .units_per_shard = units, .units_per_chunk = units};
  }
  absl::StatusOr<jobs::SavedWork> Save(store::BlobStore&) const override {
    return jobs::SavedWork{.spec = services::DeterministicBytes(record_), .blobs = {}};
  }

  absl::StatusOr<std::unique_ptr<jobs::Partial>> Begin(int64_t) override { return IsNoWork(); }
  absl::StatusOr<std::unique_ptr<jobs::Partial>> Parse(absl::string_view, int64_t,
                                                       int64_t) override {
    return IsNoWork();
  }
  absl::Status RunChunk(const jobs::UnitRange&, const Cancellation&, jobs::Partial&) override {
    return IsNoWork();
  }
  absl::Status Fold(const jobs::Partial&, jobs::Partial&) override { return IsNoWork(); }
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> Finish(const jobs::Partial&,
                                                        const Cancellation&) override {
    return IsNoWork();
  }

 private:
  static absl::Status IsNoWork() {
    return absl::InternalError("a value study runs as its parts alone");
  }

  const SavedWork record_;
};

absl::StatusOr<SavedWork> RecordOfSpec(absl::string_view spec) {
  VS_ASSIGN_OR_RETURN(SavedWork record, ParseSavedWork(spec));
  VS_RETURN_IF_ERROR(CheckRecord(record, SavedWork::kValueStudy));
  const SavedStudy& study = record.value_study();
  const bool whole = study.stage_units_size() == kNumStudyStages &&
                     std::all_of(study.stage_units().begin(), study.stage_units().end(),
                                 [](int64_t units) { return units >= 1; }) &&
                     !study.spec().values().empty();
  if (!whole) {
    return ErrorWithReason(absl::StatusCode::kDataLoss, "SPEC_DAMAGED",
                           "the stored spec of a job is damaged");
  }
  return record;
}

absl::StatusOr<SavedStudyState> StateOf(const std::string& partial) {
  SavedStudyState state;
  if (!state.ParseFromString(partial)) return jobs::PartialDamaged();
  return state;
}

// A part that did not succeed ends the study, which can be retried with it.
absl::Status FailureOf(const store::Job& part) {
  const std::string what = absl::StrCat("the part `", part.phase, "` (jobs/", part.id, ") ");
  if (!part.error) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "PART_CANCELLED",
                           absl::StrCat(what, "was cancelled"));
  }
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, part.error->reason,
                         absl::StrCat(what, "failed: ", part.error->message));
}

// The state of a study's parts, as they are now.
struct PartStates {
  std::map<std::string, store::Job> by_phase;
  int64_t ended = 0;
};

absl::StatusOr<PartStates> StatesOf(jobs::ShardContext& context) {
  VS_ASSIGN_OR_RETURN(std::vector<store::Job> children, context.Children());
  PartStates states;
  for (store::Job& child : children) {
    states.ended += store::IsFinished(child.state);
    std::string phase = child.phase;
    states.by_phase.emplace(std::move(phase), std::move(child));
  }
  return states;
}

class ValueStudyKind : public services::Kind {
 public:
  explicit ValueStudyKind(const StudyTools& tools) : tools_(tools) {}

  absl::string_view Name() const override { return kName; }
  absl::string_view Unit() const override { return "forward passes"; }

  absl::Status Readiness(absl::string_view needs) const override {
    return services::CheckNeeds(*tools_.sources.models, needs);
  }

  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view,
                                                   absl::string_view spec) override {
    VS_ASSIGN_OR_RETURN(SavedWork record, RecordOfSpec(spec));
    return std::make_unique<PlannedStudy>(std::move(record));
  }

  absl::StatusOr<services::ResolvedWork> Resolve(const google::protobuf::Message& request,
                                                 const rpc::CallContext& context,
                                                 const services::ResolveOptions& options) override {
    const auto& spec = static_cast<const Spec&>(request);
    if (static_cast<int64_t>(spec.ByteSizeLong()) > kMostSpec) {
      return InvalidField("queries", absl::StrCat("make the study larger than ", kMostSpec,
                                                  " bytes; upload them, and name them in "
                                                  "`queries_artifact`"));
    }
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", spec.model(), *tools_.sources.models));
    VS_ASSIGN_OR_RETURN(ResolvedStudy study, ResolveStudy(spec, *model, context, tools_));
    SavedWork record = RecordOf(*model, /*display_name=*/"", options);
    *record.mutable_provenance() = ProvenanceOfStudy(spec, *model, study.used);
    record.set_num_responses(1);
    record.set_responses_per_shard(1);
    SavedStudy& saved = *record.mutable_value_study();
    *saved.mutable_spec() = std::move(study.spec);
    saved.mutable_stage_units()->Assign(study.stage_units.begin(), study.stage_units.end());
    services::ResolvedWork resolved;
    resolved.work = std::make_unique<PlannedStudy>(std::move(record));
    resolved.needs = std::move(study.needs);
    resolved.estimate = study.estimate;
    resolved.used = std::move(study.used);
    return resolved;
  }

  // There is no call.
  void Answer(const google::protobuf::Message&, const services::ResolvedWork&, const jobs::Outcome&,
              const std::vector<store::Resource>&, google::protobuf::Message*) const override {
    VS_CHECK(false);
  }
  absl::Status Replay(const store::Resource&, google::protobuf::Message*) const override {
    VS_CHECK(false);
  }

  absl::StatusOr<jobs::ShardResult> RunShard(jobs::ShardContext& context) override {
    VS_ASSIGN_OR_RETURN(const SavedWork record, RecordOfSpec(context.spec()));
    VS_ASSIGN_OR_RETURN(const auto model, ModelOfRecord(record, *tools_.sources.models));
    VS_ASSIGN_OR_RETURN(SavedStudyState state, StateOf(context.TakePartial()));
    rpc::CallContext call;
    call.tenant = context.tenant();
    call.cancellation = context.cancellation();
    call.memory = tools_.memory;
    call.may_wait = true;
    const StudyStages stages(record.value_study().spec(), *model, call, tools_);
    while (state.stages_done() < kNumStudyStages) {
      VS_RETURN_IF_ERROR(CheckGoesOn(context.cancellation()));
      VS_RETURN_IF_ERROR(RunStage(record, stages, call, context, state));
      const int64_t done = UnitsOf(record, state.stages_done());
      if (state.stages_done() == kNumStudyStages) break;
      VS_RETURN_IF_ERROR(
          context.Checkpoint([&] { return services::DeterministicBytes(state); }, "", done));
    }
    return jobs::ShardResult{.partial = services::DeterministicBytes(state),
                             .work_done = UnitsOf(record, kNumStudyStages)};
  }

  absl::StatusOr<jobs::JobResult> Merge(const jobs::MergeContext& context) override {
    VS_ASSIGN_OR_RETURN(const SavedWork record, RecordOfSpec(context.spec));
    VS_ASSIGN_OR_RETURN(const std::string partial, context.partial(0));
    VS_ASSIGN_OR_RETURN(SavedStudyState state, StateOf(partial));
    v1::ValueStudyResult& result = *state.mutable_result();
    const Spec& spec = record.value_study().spec();
    result.set_format_version(1);
    *result.mutable_provenance() = record.provenance();
    result.set_num_random_directions(spec.random_directions());
    result.set_num_development_queries(spec.development_queries_size());
    result.set_num_test_queries(spec.test_queries_size());
    result.set_num_queries(NumQueries(spec, result));
    jobs::JobResult merged;
    VS_ASSIGN_OR_RETURN(merged.artifacts.emplace_back(),
                        MakeArtifact(context.blobs, "results", "results.json", "application/json",
                                     studies::MessageToJson(result).dump(), record.provenance()));
    merged.summary = SummaryOfStudy(result);
    return merged;
  }

 private:
  static v1::Provenance ProvenanceOfStudy(const Spec& spec, const engine::ServedModel& model,
                                          const services::UsedResources& used) {
    v1::Provenance provenance = studies::ProvenanceOf(model, /*rendered_chat=*/true);
    provenance.set_site(v1::SITE_RESIDUAL_POST);
    // An upload goes by its content.
    for (const auto& [name, digest] : used) {
      v1::ResourceDigest& input = *provenance.add_inputs();
      input.set_name(name == spec.queries_artifact() ? studies::kQueriesInput
                                                     : studies::kDataSetInput);
      input.set_digest(digest);
    }
    provenance.set_options(studies::RecordOfRequest(spec, {"model", "queries_artifact", "seed"}));
    provenance.add_seeds(spec.seed());
    return provenance;
  }

  // Of training, development and testing. Where those of training came in a file, answers tell.
  static int64_t NumQueries(const Spec& spec, const v1::ValueStudyResult& result) {
    const int64_t training =
        spec.queries().empty()
            ? result.values(0).responses(0).num_responses() / spec.samples_per_query()
            : spec.queries_size();
    return training + spec.development_queries_size() + spec.test_queries_size();
  }

  // Of the first `stages`.
  static int64_t UnitsOf(const SavedWork& record, int stages) {
    const auto& units = record.value_study().stage_units();
    return std::accumulate(units.begin(), units.begin() + stages, int64_t{0});
  }

  // Of the stages that are done, and of the parts of the one that runs as far as they are.
  static int64_t UnitsDone(const SavedWork& record, int stages_done,
                           const std::vector<StudyPart>& parts, const PartStates& states) {
    double share = 0;
    for (const StudyPart& part : parts) {
      const auto job = states.by_phase.find(part.phase);
      if (job == states.by_phase.end() || job->second.total_work == 0) continue;
      share +=
          static_cast<double>(job->second.work_done) / static_cast<double>(job->second.total_work);
    }
    share /= static_cast<double>(parts.size());
    const auto units = static_cast<double>(record.value_study().stage_units(stages_done));
    return UnitsOf(record, stages_done) + static_cast<int64_t>(share * units);
  }

  // Goes through one stage, and on where all its parts have succeeded. Waits for those that have
  // not.
  absl::Status RunStage(const SavedWork& record, const StudyStages& stages,
                        const rpc::CallContext& call, jobs::ShardContext& context,
                        SavedStudyState& state) const {
    const auto stage = static_cast<StudyStage>(state.stages_done());
    VS_ASSIGN_OR_RETURN(PartStates states, StatesOf(context));
    const auto results = [&] {
      return PartResults(tools_.sources, context.tenant(), states.by_phase);
    };
    VS_ASSIGN_OR_RETURN(const std::vector<StudyPart> parts,
                        stages.PartsOf(stage, state, results()));
    const auto wait = [&] {
      return context.AwaitChildren(services::DeterministicBytes(state),
                                   UnitsDone(record, state.stages_done(), parts, states),
                                   states.ended);
    };
    // A full queue empties while the study waits, and not before it lets go of the worker.
    const absl::Status started = StartParts(parts, call, context, states);
    if (DetailsOf(started).retry_after) return wait();
    VS_RETURN_IF_ERROR(started);
    bool all_succeeded = true;
    for (const StudyPart& part : parts) {
      const store::Job& job = states.by_phase.at(part.phase);
      const bool succeeded = job.state == store::JobState::kSucceeded;
      if (store::IsFinished(job.state) && !succeeded) return FailureOf(job);
      all_succeeded &= succeeded;
    }
    if (!all_succeeded) return wait();
    VS_RETURN_IF_ERROR(stages.Gather(stage, results(), state));
    state.set_stages_done(state.stages_done() + 1);
    return absl::OkStatus();
  }

  absl::Status StartParts(const std::vector<StudyPart>& parts, const rpc::CallContext& call,
                          jobs::ShardContext& context, PartStates& states) const {
    for (const StudyPart& part : parts) {
      if (states.by_phase.contains(part.phase)) continue;
      VS_RETURN_IF_ERROR(CheckGoesOn(context.cancellation()));
      VS_ASSIGN_OR_RETURN(const store::NewJob job, NewJobOfPart(part, call));
      VS_ASSIGN_OR_RETURN(store::Job started, context.StartChild(part.phase, job));
      states.by_phase.emplace(part.phase, std::move(started));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<store::NewJob> NewJobOfPart(const StudyPart& part,
                                             const rpc::CallContext& call) const {
    services::Kind& kind = tools_.kinds->Get(services::FieldOf(part.spec)->name());
    const auto draft = services::DraftJob(kind, part.spec, part.phase, call);
    if (!draft.ok()) {
      const ErrorDetails details = DetailsOf(draft.status());
      if (details.reason == "MODEL_NOT_LOADED") return jobs::NotReady(draft.status().message());
      if (details.retry_after || !absl::IsInvalidArgument(draft.status())) return draft.status();
      // Fields of a part are none of the study's.
      return ErrorWithReason(
          absl::StatusCode::kFailedPrecondition, details.reason,
          absl::StrCat("the part `", part.phase, "` cannot begin: ", draft.status().message()));
    }
    return services::NewJobOf(*draft, services::EstimateOfDraft(*draft, /*speed=*/1), call.tenant,
                              *tools_.sources.blobs);
  }

  static std::string SummaryOfStudy(const v1::ValueStudyResult& result) {
    nlohmann::json values = nlohmann::json::array();
    for (const v1::StudiedValue& value : result.values()) {
      nlohmann::json told = {{"value", value.value()}, {"failure", value.failure()}};
      told["num_outcomes"] = value.outcomes_size();
      values.push_back(std::move(told));
    }
    const nlohmann::json summary = {
        {"format_version", 1},
        {"values", std::move(values)},
        {"num_comparisons", result.num_comparisons()},
        {"paper", studies::ListToJson(result.paper())},
        {"warnings", std::vector<std::string>(result.warnings().begin(), result.warnings().end())}};
    return studies::DumpJson(summary);
  }

  const StudyTools tools_;
};

}  // namespace

std::unique_ptr<services::Kind> ValueStudy(const StudyTools& tools) {
  return std::make_unique<ValueStudyKind>(tools);
}

}  // namespace valuescope::kinds
