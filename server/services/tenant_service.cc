#include "services/tenant_service.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "services/reply_size.h"
#include "services/request_codec.h"
#include "services/study_codec.h"
#include "studies/stored_neuron_set.h"

namespace valuescope::services {
namespace {

constexpr char kAllTenants[] = "*";

// What may be shared under this name. The columns of a neuron set, which are read as an artifact,
// are shared with it and not alone.
absl::StatusOr<store::ResourceReference> ReferenceOf(const std::string& name) {
  for (const store::ResourceKind kind :
       {store::ResourceKind::kVector, store::ResourceKind::kNeuronSet,
        store::ResourceKind::kArtifact}) {
    const absl::string_view collection = store::CollectionOf(kind);
    if (!absl::StartsWith(name, absl::StrCat(collection, "/"))) continue;
    VS_ASSIGN_OR_RETURN(std::string id, IdOfName("name", collection, name));
    if (kind == store::ResourceKind::kArtifact &&
        absl::StartsWith(id, studies::kNeuronSetArtifactPrefix)) {
      return InvalidField("name", "must be that of the neuron set whose columns these are");
    }
    return store::ResourceReference{.kind = kind, .id = std::move(id)};
  }
  return InvalidField("name", "must be vectors/ID, neuronSets/ID or artifacts/ID");
}

v1::SharedResource SharedToProto(const store::Resource& resource) {
  v1::SharedResource proto;
  proto.set_name(store::ResourceName(resource.kind, resource.id));
  proto.set_publisher(resource.publisher);
  *proto.mutable_publish_time() = TimeToProto(resource.published_at);
  return proto;
}

bool IsAdmin(const rpc::CallContext& context) { return context.role >= rpc::Role::kAdmin; }

absl::Status RoleTooLow(absl::string_view what, const rpc::CallContext& context) {
  return ErrorWithReason(absl::StatusCode::kPermissionDenied, "ROLE_TOO_LOW",
                         absl::StrCat(what,
                                      " the role admin, and the credentials of this call "
                                      "have the role ",
                                      rpc::NameOf(context.role)));
}

// Whose usage is asked for; empty: all tenants'.
absl::StatusOr<std::string> TenantOf(const v1::QueryUsageRequest& request,
                                     const rpc::CallContext& context) {
  if (request.tenant().empty() || request.tenant() == context.tenant) return context.tenant;
  if (request.tenant() != kAllTenants && !CheckResourceId("tenant", request.tenant()).ok()) {
    return InvalidField("tenant", "must be a tenant, * for all, or empty for your own");
  }
  if (!IsAdmin(context)) {
    return RoleTooLow("to see what other tenants used takes", context);
  }
  return request.tenant() == kAllTenants ? std::string() : request.tenant();
}

v1::TenantUsage UsageToProto(const store::TenantUsage& usage) {
  v1::TenantUsage proto;
  proto.set_tenant(usage.tenant);
  *proto.mutable_start_time() = TimeToProto(usage.start);
  *proto.mutable_end_time() = TimeToProto(usage.end);
  proto.set_calls(usage.counts.calls);
  proto.set_prompt_tokens(usage.counts.prompt_tokens);
  proto.set_generated_tokens(usage.counts.generated_tokens);
  proto.set_job_seconds(absl::ToDoubleSeconds(usage.job_time));
  return proto;
}

}  // namespace

absl::Status TenantService::PublishResource(const rpc::CallContext& context,
                                            const v1::PublishResourceRequest& request,
                                            v1::PublishResourceResponse* response) {
  VS_ASSIGN_OR_RETURN(const store::ResourceReference named, ReferenceOf(request.name()));
  VS_ASSIGN_OR_RETURN(const store::Resource published,
                      store_->PublishResource(context.tenant, named.kind, named.id));
  *response->mutable_resource() = SharedToProto(published);
  return absl::OkStatus();
}

absl::Status TenantService::WithdrawResource(const rpc::CallContext& context,
                                             const v1::WithdrawResourceRequest& request,
                                             v1::WithdrawResourceResponse*) {
  VS_ASSIGN_OR_RETURN(const store::ResourceReference named, ReferenceOf(request.name()));
  if (request.force() && !IsAdmin(context)) {
    return RoleTooLow("to withdraw with `force`, from under other tenants' jobs, takes", context);
  }
  return store_->WithdrawResource(
      context.tenant, named.kind, named.id,
      {.of_anybody = IsAdmin(context), .although_read = request.force()});
}

absl::Status TenantService::QueryUsage(const rpc::CallContext& context,
                                       const v1::QueryUsageRequest& request,
                                       v1::QueryUsageResponse* response) {
  store::UsageQuery query{.by_hour = request.by_hour()};
  VS_ASSIGN_OR_RETURN(query.tenant, TenantOf(request, context));
  if (request.has_start_time()) {
    VS_ASSIGN_OR_RETURN(query.start, TimeFromProto("start_time", request.start_time()));
  }
  if (request.has_end_time()) {
    VS_ASSIGN_OR_RETURN(query.end, TimeFromProto("end_time", request.end_time()));
  }
  VS_ASSIGN_OR_RETURN(const std::vector<store::TenantUsage> usage, store_->QueryUsage(query));
  for (const store::TenantUsage& one : usage) *response->add_usage() = UsageToProto(one);
  return CheckReplySize(static_cast<int64_t>(response->ByteSizeLong()),
                        absl::StrCat("the ", usage.size(), " sums"), "ask for a shorter time");
}

}  // namespace valuescope::services
