// Who calls. Every call passes an Authenticator before anything of its request is looked at.
#ifndef VALUESCOPE_RPC_AUTHENTICATOR_H_
#define VALUESCOPE_RPC_AUTHENTICATOR_H_

#include "absl/status/statusor.h"
#include "rpc/caller.h"
#include "rpc/peer.h"

namespace valuescope::rpc {

// Thread-safe; must not block.
class Authenticator {
 public:
  virtual ~Authenticator() = default;

  // The caller at the other end, or UNAUTHENTICATED.
  virtual absl::StatusOr<Caller> Authenticate(const Peer& peer) const = 0;
};

// Everybody is the tenant "default" and may do everything: for a server that only its own machine
// can reach.
class OpenAuthenticator : public Authenticator {
 public:
  absl::StatusOr<Caller> Authenticate(const Peer&) const override {
    return Caller{.tenant = "default", .role = Role::kAdmin};
  }
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_AUTHENTICATOR_H_
