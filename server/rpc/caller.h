// Who calls, and what they may do.
#ifndef VALUESCOPE_RPC_CALLER_H_
#define VALUESCOPE_RPC_CALLER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace valuescope::rpc {

// Each may do what those before it may.
enum class Role : uint8_t {
  kReader,  // looks at what there is
  kUser,    // makes it: runs models, starts jobs, stores, deletes
  kAdmin,   // changes what all tenants share: loads and unloads models
};

// "reader", "user", "admin".
absl::string_view NameOf(Role role);
std::optional<Role> RoleOfName(absl::string_view name);

struct Caller {
  std::string tenant;  // owner of whatever the call makes or may see
  Role role = Role::kReader;
  std::string name = "";  // of the token, for the log; may be empty

  bool operator==(const Caller&) const = default;
};

// Which role a method of a service needs at least, "GenerationService.Generate"; nullopt of a
// method that no service has.
std::optional<Role> LeastRole(absl::string_view method);
// Whether what it does is counted in tokens that a model runs.
bool RunsModels(absl::string_view method);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_CALLER_H_
