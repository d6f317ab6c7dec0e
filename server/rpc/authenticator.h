// Who calls. Every call passes an Authenticator before anything of its request is looked at.
#ifndef VALUESCOPE_RPC_AUTHENTICATOR_H_
#define VALUESCOPE_RPC_AUTHENTICATOR_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace valuescope::rpc {

// What the client sent beside its request: keys in lower case. The bytes belong to the call.
using CallMetadata = std::multimap<absl::string_view, absl::string_view>;

// Thread-safe; must not block.
class Authenticator {
 public:
  virtual ~Authenticator() = default;

  // The caller's tenant, or UNAUTHENTICATED.
  virtual absl::StatusOr<std::string> Authenticate(const CallMetadata& metadata) const = 0;
};

// Everybody is the tenant "default": for a server that only its own machine can reach.
class OpenAuthenticator : public Authenticator {
 public:
  absl::StatusOr<std::string> Authenticate(const CallMetadata&) const override {
    return std::string("default");
  }
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_AUTHENTICATOR_H_
