// TenantService: what the tenants of one server share, and what each has used of it.
#ifndef VALUESCOPE_SERVICES_TENANT_SERVICE_H_
#define VALUESCOPE_SERVICES_TENANT_SERVICE_H_

#include "absl/status/status.h"
#include "rpc/call_context.h"
#include "store/store.h"
#include "valuescope/v1/tenants.pb.h"

namespace valuescope::services {

class TenantService {
 public:
  // The store outlives the service.
  explicit TenantService(store::Store* store) : store_(store) {}

  absl::Status PublishResource(const rpc::CallContext& context,
                               const v1::PublishResourceRequest& request,
                               v1::PublishResourceResponse* response);
  absl::Status WithdrawResource(const rpc::CallContext& context,
                                const v1::WithdrawResourceRequest& request,
                                v1::WithdrawResourceResponse* response);
  absl::Status QueryUsage(const rpc::CallContext& context, const v1::QueryUsageRequest& request,
                          v1::QueryUsageResponse* response);

 private:
  store::Store* const store_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_TENANT_SERVICE_H_
