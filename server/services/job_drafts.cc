#include "services/job_drafts.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "services/idempotency.h"
#include "services/job_specs.h"
#include "services/model_needs.h"

namespace valuescope::services {
namespace {

// `speed`: of all servers that can run it, over this one's. A shard runs on one of them.
v1::JobEstimate EstimateToProto(const WorkEstimate& estimate, int64_t num_shards, double speed) {
  v1::JobEstimate proto;
  proto.set_tokens(estimate.tokens);
  proto.set_forwards(estimate.forwards);
  proto.set_bytes(estimate.bytes);
  proto.set_scratch_bytes(estimate.scratch_bytes);
  // A job takes some time, however little there is to do.
  const double at_once = std::min(speed, static_cast<double>(num_shards));
  proto.mutable_duration()->set_seconds(absl::ToInt64Seconds(estimate.time / at_once) + 1);
  proto.set_shards(num_shards);
  return proto;
}

// Resources that work read, by reference: they stay as long as the job may need them.
std::vector<store::ResourceReference> ReferencesTo(const UsedResources& used) {
  std::vector<store::ResourceReference> inputs;
  for (const auto& [name, digest] : used) {
    for (const store::ResourceKind kind :
         {store::ResourceKind::kVector, store::ResourceKind::kNeuronSet,
          store::ResourceKind::kArtifact}) {
      absl::string_view id = name;
      if (absl::ConsumePrefix(&id, absl::StrCat(store::CollectionOf(kind), "/"))) {
        inputs.push_back({.kind = kind, .id = std::string(id)});
      }
    }
  }
  return inputs;
}

// Of what work needs, the models.
std::vector<std::string> ModelsIn(const std::string& needs) {
  std::vector<std::string> models;
  for (const absl::string_view need : absl::StrSplit(needs, kNeedsSeparator, absl::SkipEmpty())) {
    if (!ModelNameOf(need).empty()) models.emplace_back(ModelNameOf(need));
  }
  return models;
}

}  // namespace

const google::protobuf::FieldDescriptor* FieldOf(const v1::JobSpec& spec) {
  return v1::JobSpec::descriptor()->FindFieldByNumber(spec.spec_case());
}

const google::protobuf::Message& WorkOf(const v1::JobSpec& spec) {
  return spec.GetReflection()->GetMessage(spec, FieldOf(spec));
}

absl::StatusOr<JobDraft> DraftJob(Kind& kind, const v1::JobSpec& spec,
                                  const std::string& display_name,
                                  const rpc::CallContext& context) {
  JobDraft draft{
      .kind = std::string(kind.Name()), .display_name = display_name, .kept = {}, .resolved = {}};
  VS_ASSIGN_OR_RETURN(
      draft.resolved,
      kind.Resolve(WorkOf(spec), context, {.at_once = false, .display_name = display_name}));
  VS_RETURN_IF_ERROR(context.Hold(static_cast<int64_t>(spec.SpaceUsedLong())));
  draft.kept = spec;
  LeaveOutLargeFields(draft.kept);
  return draft;
}

v1::JobEstimate EstimateOfDraft(const JobDraft& draft, double speed) {
  return EstimateToProto(draft.resolved.estimate, draft.resolved.work->extent().num_shards(),
                         speed);
}

absl::StatusOr<store::NewJob> NewJobOf(const JobDraft& draft, const v1::JobEstimate& estimate,
                                       const std::string& tenant, store::BlobStore& blobs) {
  const ResolvedWork& resolved = draft.resolved;
  const jobs::Extent extent = resolved.work->extent();
  VS_ASSIGN_OR_RETURN(jobs::SavedWork saved, resolved.work->Save(blobs));
  store::NewJob job;
  job.tenant = tenant;
  job.kind = draft.kind;
  job.display_name = draft.display_name;
  job.request = DeterministicBytes(draft.kept);
  job.metadata = DeterministicBytes(estimate);
  job.spec = std::move(saved.spec);
  job.num_shards = extent.num_shards();
  job.total_work = extent.units;
  job.needs = resolved.needs;
  job.models = ModelsIn(resolved.needs);
  job.blobs = std::move(saved.blobs);
  job.inputs = ReferencesTo(resolved.used);
  return job;
}

}  // namespace valuescope::services
