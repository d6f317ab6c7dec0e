#include "rpc/stored_vector_resolver.h"

#include <string>

#include "base/status_macros.h"
#include "rpc/request_codec.h"
#include "studies/stored_vector.h"

namespace valuescope::rpc {

absl::StatusOr<ResolvedVector> StoredVectorResolver::Resolve(absl::string_view tenant,
                                                             absl::string_view name,
                                                             const engine::ServedModel& model,
                                                             model::Site site,
                                                             absl::string_view field) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName(field, "vectors", name));
  VS_ASSIGN_OR_RETURN(const store::Resource resource,
                      store_->GetResource(tenant, store::ResourceKind::kVector, id));
  VS_ASSIGN_OR_RETURN(const studies::StoredVector stored, studies::ReadVector(*blobs_, resource));
  VS_RETURN_IF_ERROR(studies::CheckUsable(stored, model, site, field));
  ResolvedVector resolved;
  resolved.name = store::ResourceName(store::ResourceKind::kVector, id);
  resolved.digest = resource.digest;
  resolved.site = stored.site;
  resolved.width = stored.width;
  for (int64_t row = 0; row < stored.num_rows(); ++row) {
    const auto values = stored.row(row);
    const int layer = stored.layers.empty() ? 0 : stored.layers[static_cast<size_t>(row)];
    resolved.rows[layer].assign(values.begin(), values.end());
  }
  return resolved;
}

}  // namespace valuescope::rpc
