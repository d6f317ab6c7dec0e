// The tenant of what all tenants may read.
#ifndef VALUESCOPE_BASE_SHARED_TENANT_H_
#define VALUESCOPE_BASE_SHARED_TENANT_H_

#include "absl/strings/string_view.h"

namespace valuescope {

// Owns what tenants published. Nobody calls as this tenant.
inline constexpr absl::string_view kSharedTenant = "shared";

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_SHARED_TENANT_H_
