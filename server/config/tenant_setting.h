// What tenants may have, as --tenants and the file of --tenants_file say it.
#ifndef VALUESCOPE_CONFIG_TENANT_SETTING_H_
#define VALUESCOPE_CONFIG_TENANT_SETTING_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/tenant_policy.h"

namespace valuescope::config {

// "*:queued=100,lab:weight=4:stored=10GiB": replaces what is in `tenants`. Who is named has of what
// it leaves out what * has. Errors are those of read_values.h.
absl::Status ReadTenants(absl::string_view text, TenantPolicies& tenants);

// The same of a file, a tenant a line; lines without anything or that begin with # are skipped.
// INVALID_ARGUMENT, naming the line.
absl::StatusOr<TenantPolicies> ParseTenants(absl::string_view text);

}  // namespace valuescope::config

#endif  // VALUESCOPE_CONFIG_TENANT_SETTING_H_
