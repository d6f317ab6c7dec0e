// Long because what clients are told of a job, in whichever call, is told in one place.
#include "services/job_service.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "rpc/parsed_size.h"
#include "services/idempotency.h"
#include "services/job_drafts.h"
#include "services/job_specs.h"
#include "services/replays.h"
#include "services/request_codec.h"
#include "services/study_codec.h"
#include "studies/provenance.h"

namespace valuescope::services {
namespace {

constexpr int kMaxPriority = 100;
constexpr int kArtifactsAtOnce = 200;  // of a job, read at once
// Of a job whose kind this version does not know.
constexpr char kUnknownUnit[] = "units";

v1::JobState StateToProto(store::JobState state) {
  switch (state) {
    case store::JobState::kQueued:
      return v1::JOB_STATE_QUEUED;
    case store::JobState::kRunning:
      return v1::JOB_STATE_RUNNING;
    case store::JobState::kCancelling:
      return v1::JOB_STATE_CANCELLING;
    case store::JobState::kSucceeded:
      return v1::JOB_STATE_SUCCEEDED;
    case store::JobState::kFailed:
      return v1::JOB_STATE_FAILED;
    case store::JobState::kCancelled:
      return v1::JOB_STATE_CANCELLED;
  }
  return v1::JOB_STATE_UNSPECIFIED;
}

std::optional<store::JobState> StateFromProto(v1::JobState state) {
  for (int number = 1; number <= static_cast<int>(store::JobState::kCancelled); ++number) {
    const auto ours = static_cast<store::JobState>(number);
    if (StateToProto(ours) == state) return ours;
  }
  return std::nullopt;
}

// A state of a filter.
absl::StatusOr<store::JobState> FilterState(absl::string_view field, v1::JobState state) {
  const std::optional<store::JobState> ours = StateFromProto(state);
  if (!ours) return InvalidField(field, "is not a state of this version");
  return *ours;
}

// A number of units that are something ("num_..."), or else the mean of a number that each has.
v1::PartialStatistic StatisticOf(const store::Observed& observed) {
  v1::PartialStatistic proto;
  proto.set_name(observed.name);
  proto.set_count(observed.count);
  const auto count = static_cast<double>(observed.count);
  const auto sum = static_cast<double>(observed.sum);
  if (absl::StartsWith(observed.name, "num_") || observed.count == 0) {
    proto.set_value(sum);
    return proto;
  }
  proto.set_value(sum / count);
  if (observed.count > 1) {
    const double squares = static_cast<double>(observed.sum_of_squares) - sum * sum / count;
    proto.set_standard_error(std::sqrt(std::max(0.0, squares) / (count - 1) / count));
  }
  return proto;
}

// Without spec and result. `kind` is null where it is not one of ours.
v1::Job Describe(const store::Job& job, const Kind* kind, std::optional<absl::Duration> eta) {
  v1::Job proto;
  proto.set_name(absl::StrCat("jobs/", job.id));
  proto.set_display_name(job.display_name);
  proto.set_kind(job.kind);
  proto.set_state(StateToProto(job.state));
  v1::JobProgress& progress = *proto.mutable_progress();
  progress.set_done(job.work_done);
  progress.set_total(job.total_work);
  progress.set_unit(std::string(kind == nullptr ? kUnknownUnit : kind->Unit()));
  progress.set_shards_done(job.shards_done);
  progress.set_shards_total(job.num_shards);
  for (const store::Observed& observed : job.observed) {
    *progress.add_statistics() = StatisticOf(observed);
  }
  if (eta) progress.mutable_eta()->set_seconds(absl::ToInt64Seconds(*eta));
  proto.mutable_estimate()->ParseFromString(job.metadata);
  if (job.error) {
    proto.mutable_error()->set_code(static_cast<int>(job.error->code));
    proto.mutable_error()->set_reason(job.error->reason);
    proto.mutable_error()->set_message(job.error->message);
    if (job.error->shard) proto.mutable_error()->set_shard(*job.error->shard);
  }
  proto.set_priority(job.priority);
  *proto.mutable_create_time() = TimeToProto(job.created_at);
  if (job.started_at) *proto.mutable_start_time() = TimeToProto(*job.started_at);
  if (job.finished_at) *proto.mutable_end_time() = TimeToProto(*job.finished_at);
  proto.set_rescues(job.rescues);
  proto.set_owner(job.tenant);
  proto.set_revision(job.revision);
  if (!job.parent.empty()) proto.set_parent(absl::StrCat("jobs/", job.parent));
  proto.set_phase(job.phase);
  return proto;
}

absl::Status CheckCommon(const v1::CreateJobRequest& request) {
  VS_RETURN_IF_ERROR(CheckDisplayName("display_name", request.display_name()));
  if (request.priority() < -kMaxPriority || request.priority() > kMaxPriority) {
    return OutOfRange("priority", request.priority(), -kMaxPriority, kMaxPriority);
  }
  if (request.spec().omitted_size() > 0) {
    return InvalidField("spec.omitted", "is set by the server");
  }
  return absl::OkStatus();
}

absl::Status CheckHasNoRequestId(const v1::JobSpec& spec) {
  const google::protobuf::Message& work = WorkOf(spec);
  const auto* field = work.GetDescriptor()->FindFieldByName("request_id");
  if (field == nullptr || work.GetReflection()->GetString(work, field).empty()) {
    return absl::OkStatus();
  }
  return InvalidField(absl::StrCat("spec.", FieldOf(spec)->name(), ".request_id"),
                      "must be empty: the job has its own request_id");
}

absl::Status InputDeleted(const store::Job& job, absl::string_view what) {
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition, "INPUT_DELETED",
      absl::StrCat("`jobs/", job.id, "` reads what is gone, ", what, "; create a new job"));
}

// The names that a summary lists under `key`.
void AddNames(const google::protobuf::Struct& summary, const char* key,
              google::protobuf::RepeatedPtrField<std::string>* names) {
  const auto found = summary.fields().find(key);
  if (found == summary.fields().end()) return;
  for (const auto& name : found->second.list_value().values()) *names->Add() = name.string_value();
}

absl::Status AddArtifact(const store::Resource& resource, v1::JobResult& result) {
  v1::JobArtifact& artifact = *result.add_artifacts();
  artifact.set_role(resource.role);
  artifact.set_artifact(store::ResourceName(resource.kind, resource.id));
  artifact.set_sha256(resource.blob_digest);
  artifact.set_display_name(resource.display_name);
  artifact.set_size_bytes(resource.blob_size);
  if (result.digests_size() > 0) return absl::OkStatus();
  VS_ASSIGN_OR_RETURN(const v1::Provenance provenance, studies::ProvenanceOfArtifact(resource));
  if (!provenance.model().empty()) AddDigests(provenance, result.mutable_digests());
  return absl::OkStatus();
}

}  // namespace

v1::Job JobService::Described(const jobs::JobSnapshot& snapshot) const {
  v1::Job proto = Describe(snapshot.job, kinds_->Find(snapshot.job.kind), snapshot.eta);
  proto.set_waiting_for(snapshot.waiting_for);
  if (snapshot.job.finished_at && keep_jobs_ < absl::InfiniteDuration()) {
    *proto.mutable_expire_time() = TimeToProto(*snapshot.job.finished_at + keep_jobs_);
  }
  return proto;
}

absl::StatusOr<v1::Job> JobService::DescribedWithParts(const jobs::JobSnapshot& snapshot) const {
  v1::Job proto = Described(snapshot);
  if (snapshot.job.num_parts == 0) return proto;
  VS_ASSIGN_OR_RETURN(const std::vector<store::Job> children,
                      queue_->ListChildren(snapshot.job.tenant, snapshot.job.id));
  for (const store::Job& child : children) {
    v1::Job described = Describe(child, kinds_->Find(child.kind), std::nullopt);
    v1::ChildJob& part = *proto.add_children();
    part.set_phase(described.phase());
    part.set_job(described.name());
    part.set_kind(described.kind());
    part.set_state(described.state());
    *part.mutable_progress() = std::move(*described.mutable_progress());
  }
  return proto;
}

absl::StatusOr<v1::Job> JobService::DescribedWithSpec(const jobs::JobSnapshot& snapshot,
                                                      const rpc::CallContext& context) const {
  const std::string& spec = snapshot.job.request;
  google::protobuf::io::ArrayInputStream wire(spec.data(), static_cast<int>(spec.size()));
  const std::optional<int64_t> size = rpc::ParsedSize(*v1::JobSpec::descriptor(), &wire);
  if (!size) return absl::DataLossError("the stored spec of a job is damaged");
  VS_RETURN_IF_ERROR(context.Hold(*size + static_cast<int64_t>(spec.size())));
  VS_ASSIGN_OR_RETURN(v1::Job proto, DescribedWithParts(snapshot));
  proto.mutable_spec()->ParseFromString(spec);
  LeaveOutLargeFields(*proto.mutable_spec());
  return proto;
}

absl::StatusOr<Kind*> JobService::KindOf(const v1::JobSpec& spec) const {
  const auto* field = FieldOf(spec);
  if (field == nullptr) {
    return InvalidField("spec", absl::StrCat("must be set; this version serves ", kinds_->Names()));
  }
  Kind* const kind = kinds_->Find(field->name());
  if (kind != nullptr) return kind;
  return NotServedKind(absl::StrCat("spec.", field->name()));
}

absl::Status JobService::NotServedKind(absl::string_view what) const {
  return ErrorWithReason(
      absl::StatusCode::kUnimplemented, "OPTION_NOT_SERVED",
      absl::StrCat("`", what, "` is not served by this version, which serves ", kinds_->Names()));
}

absl::Status JobService::CreateJob(const rpc::CallContext& context,
                                   const v1::CreateJobRequest& request,
                                   v1::CreateJobResponse* response) {
  VS_RETURN_IF_ERROR(CheckCommon(request));
  VS_ASSIGN_OR_RETURN(Kind* const kind, KindOf(request.spec()));
  VS_RETURN_IF_ERROR(CheckHasNoRequestId(request.spec()));
  VS_ASSIGN_OR_RETURN(const store::IdempotencyKey key, KeyOf("JobService/CreateJob", request));
  VS_ASSIGN_OR_RETURN(const auto earlier, store_->FindRequest(context.tenant, key));
  if (earlier) {
    VS_ASSIGN_OR_RETURN(const auto snapshot, queue_->Get(context.tenant, earlier->job_id));
    VS_ASSIGN_OR_RETURN(*response->mutable_job(), DescribedWithSpec(snapshot, context));
    *response->mutable_estimate() = response->job().estimate();
    return absl::OkStatus();
  }
  const auto draft = DraftJob(*kind, request.spec(), request.display_name(), context);
  if (!draft.ok()) return InField(absl::StrCat("spec.", kind->Name()), draft.status());
  VS_RETURN_IF_ERROR(CheckSpecSize(draft->kept));
  VS_ASSIGN_OR_RETURN(const double speed,
                      replicas_->SpeedTogether(kind->Name(), draft->resolved.needs));
  const v1::JobEstimate estimate = EstimateOfDraft(*draft, speed);
  *response->mutable_estimate() = estimate;
  if (request.validate_only()) return absl::OkStatus();

  VS_ASSIGN_OR_RETURN(store::NewJob job, NewJobOf(*draft, estimate, context.tenant, *blobs_));
  job.priority = request.priority();
  VS_ASSIGN_OR_RETURN(const jobs::JobSnapshot snapshot, queue_->Create(job, key));
  VS_ASSIGN_OR_RETURN(*response->mutable_job(), DescribedWithSpec(snapshot, context));
  return absl::OkStatus();
}

absl::StatusOr<v1::JobResult> JobService::ResultOf(const store::Job& job) const {
  v1::JobResult result;
  store::Page page = {.page_size = kArtifactsAtOnce};
  do {
    VS_ASSIGN_OR_RETURN(const store::ResourcePage artifacts,
                        store_->ListResources(job.tenant, store::ResourceKind::kArtifact,
                                              {.job_id = job.id}, page));
    for (const store::Resource& resource : artifacts.resources) {
      VS_RETURN_IF_ERROR(AddArtifact(resource, result));
    }
    page.page_token = artifacts.next_page_token;
  } while (!page.page_token.empty());
  std::sort(result.mutable_artifacts()->begin(), result.mutable_artifacts()->end(),
            [](const v1::JobArtifact& a, const v1::JobArtifact& b) {
              return std::tie(a.role(), a.artifact()) < std::tie(b.role(), b.artifact());
            });
  const auto parsed =
      google::protobuf::util::JsonStringToMessage(job.result, result.mutable_summary());
  if (!parsed.ok()) return absl::DataLossError("the stored summary of a job is damaged");
  AddNames(result.summary(), "vectors", result.mutable_vectors());
  AddNames(result.summary(), "neuron_sets", result.mutable_neuron_sets());
  return result;
}

absl::Status JobService::GetJob(const rpc::CallContext& context, const v1::GetJobRequest& request,
                                v1::GetJobResponse* response) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "jobs", request.name()));
  VS_ASSIGN_OR_RETURN(const jobs::JobSnapshot snapshot, queue_->Get(context.tenant, id));
  VS_ASSIGN_OR_RETURN(*response->mutable_job(), DescribedWithSpec(snapshot, context));
  if (snapshot.job.state == store::JobState::kSucceeded) {
    VS_ASSIGN_OR_RETURN(*response->mutable_job()->mutable_result(), ResultOf(snapshot.job));
  }
  return absl::OkStatus();
}

absl::StatusOr<store::JobFilter> JobService::FilterOf(const v1::ListJobsRequest& request) const {
  store::JobFilter filter{.kind = request.kind(),
                          .display_name_prefix = request.display_name_prefix()};
  if (request.state() != v1::JOB_STATE_UNSPECIFIED) {
    VS_ASSIGN_OR_RETURN(filter.states.emplace_back(), FilterState("state", request.state()));
  }
  for (int i = 0; i < request.states_size(); ++i) {
    VS_ASSIGN_OR_RETURN(filter.states.emplace_back(),
                        FilterState(absl::StrCat("states[", i, "]"), request.states(i)));
  }
  if (!filter.kind.empty() && kinds_->Find(filter.kind) == nullptr &&
      !replicas_->AnyKnows(filter.kind)) {
    return InvalidField("kind", absl::StrCat("must be one of ", kinds_->Names()));
  }
  if (request.has_created_after()) {
    VS_ASSIGN_OR_RETURN(filter.created_after,
                        TimeFromProto("created_after", request.created_after()));
  }
  if (request.has_created_before()) {
    VS_ASSIGN_OR_RETURN(filter.created_before,
                        TimeFromProto("created_before", request.created_before()));
  }
  if (!request.model().empty()) {
    VS_RETURN_IF_ERROR(IdOfName("model", "models", request.model()).status());
    filter.model = request.model();
  }
  if (!request.parent().empty()) {
    VS_ASSIGN_OR_RETURN(filter.parent, IdOfName("parent", "jobs", request.parent()));
  }
  return filter;
}

absl::Status JobService::ListJobs(const rpc::CallContext& context,
                                  const v1::ListJobsRequest& request,
                                  v1::ListJobsResponse* response) {
  VS_ASSIGN_OR_RETURN(const store::JobFilter filter, FilterOf(request));
  VS_ASSIGN_OR_RETURN(
      const store::JobPage page,
      queue_->List(context.tenant, filter,
                   {.page_size = request.page_size(), .page_token = request.page_token()}));
  for (const store::Job& job : page.jobs) {
    *response->add_jobs() =
        Described({.job = job, .eta = std::nullopt, .waiting_for = queue_->WaitingFor(job)});
  }
  response->set_next_page_token(page.next_page_token);
  return absl::OkStatus();
}

absl::StatusOr<v1::WatchJobResponse> JobService::ToWatcher(const jobs::JobSnapshot& snapshot,
                                                           int64_t told) const {
  v1::WatchJobResponse response;
  VS_ASSIGN_OR_RETURN(*response.mutable_job(), DescribedWithParts(snapshot));
  for (const store::JobTransition& transition : snapshot.job.transitions) {
    if (transition.revision <= told) continue;
    v1::JobTransition& proto = *response.add_transitions();
    proto.set_revision(transition.revision);
    proto.set_state(StateToProto(transition.state));
  }
  if (snapshot.job.state == store::JobState::kSucceeded) {
    VS_ASSIGN_OR_RETURN(*response.mutable_job()->mutable_result(), ResultOf(snapshot.job));
  }
  return response;
}

// Tells a client of each change of a job behind the revision that it has seen, until the job is
// finished.
class JobService::Watching : public rpc::Waiter<rpc::StreamWriter<v1::WatchJobResponse>&> {
 public:
  Watching(const JobService* service, std::unique_ptr<jobs::JobWatcher> watcher,
           int64_t last_revision)
      : service_(service), watcher_(std::move(watcher)), told_(last_revision) {}

  std::optional<absl::Status> Look(rpc::StreamWriter<v1::WatchJobResponse>& writer) override {
    VS_ASSIGN_OR_RETURN(const std::optional<jobs::JobSnapshot> change, watcher_->TakeChange());
    if (!change) return std::nullopt;
    const int64_t revision = change->job.revision;
    if (told_ > revision) {
      return OutOfRange("last_revision", static_cast<double>(told_), 0,
                        static_cast<double>(revision));
    }
    // Another process may wait for something else, and has no revision for it.
    if (revision > told_ || change->waiting_for != waiting_for_) {
      VS_ASSIGN_OR_RETURN(v1::WatchJobResponse response, service_->ToWatcher(*change, told_));
      VS_RETURN_IF_ERROR(writer.Write(std::move(response)));
      told_ = revision;
      waiting_for_ = change->waiting_for;
    }
    if (store::IsFinished(change->job.state)) return absl::OkStatus();
    return std::nullopt;
  }

 private:
  const JobService* const service_;
  const std::unique_ptr<jobs::JobWatcher> watcher_;
  int64_t told_;
  std::string waiting_for_;
};

absl::StatusOr<std::unique_ptr<rpc::Waiter<rpc::StreamWriter<v1::WatchJobResponse>&>>>
JobService::WatchJob(const rpc::CallContext& context, const v1::WatchJobRequest& request,
                     rpc::Wake wake) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "jobs", request.name()));
  if (request.last_revision() < 0) {
    return InvalidField("last_revision", "must be at least 0");
  }
  return std::make_unique<Watching>(this, queue_->Watch(context.tenant, id, std::move(wake)),
                                    request.last_revision());
}

absl::Status JobService::CancelJob(const rpc::CallContext& context,
                                   const v1::CancelJobRequest& request,
                                   v1::CancelJobResponse* response) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "jobs", request.name()));
  VS_ASSIGN_OR_RETURN(const jobs::JobSnapshot snapshot, queue_->Cancel(context.tenant, id));
  *response->mutable_job() = Described(snapshot);
  return absl::OkStatus();
}

absl::Status JobService::CheckCanRun(const store::Job& job, const rpc::CallContext& context) const {
  Kind* const kind = kinds_->Find(job.kind);
  if (kind == nullptr) return NotServedKind(job.kind);
  for (const std::string& digest : job.blobs) {
    const absl::StatusOr<int64_t> size = blobs_->Size(digest);
    if (absl::IsNotFound(size.status())) return InputDeleted(job, "its own copy of the data");
    VS_RETURN_IF_ERROR(size.status());
    VS_RETURN_IF_ERROR(context.Hold(*size));
  }
  const absl::Status opened = kind->Open(job.tenant, job.spec).status();
  if (absl::IsNotFound(opened)) return InputDeleted(job, opened.message());
  // What is not here, or taken, is waited for.
  if (jobs::IsNotReady(opened) || DetailsOf(opened).retry_after) return absl::OkStatus();
  return opened;
}

absl::Status JobService::RetryJob(const rpc::CallContext& context,
                                  const v1::RetryJobRequest& request,
                                  v1::RetryJobResponse* response) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "jobs", request.name()));
  VS_ASSIGN_OR_RETURN(const store::IdempotencyKey key, KeyOf("JobService/RetryJob", request));
  VS_ASSIGN_OR_RETURN(const store::Job job, store_->GetJob(context.tenant, id));
  if (job.state == store::JobState::kFailed || job.state == store::JobState::kCancelled) {
    VS_RETURN_IF_ERROR(CheckCanRun(job, context));
  }
  VS_ASSIGN_OR_RETURN(const jobs::JobSnapshot snapshot, queue_->Retry(context.tenant, id, key));
  *response->mutable_job() = Described(snapshot);
  return absl::OkStatus();
}

absl::Status JobService::DeleteJob(const rpc::CallContext& context,
                                   const v1::DeleteJobRequest& request, v1::DeleteJobResponse*) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "jobs", request.name()));
  return queue_->Delete(context.tenant, id);
}

}  // namespace valuescope::services
