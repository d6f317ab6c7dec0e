// The other end of a call, as much of it as a call needs. Behind it stands gRPC (reactors.h), or a
// test: what has to hold between threads is then seen by ThreadSanitizer, which cannot see into a
// gRPC that was built without it.
#ifndef VALUESCOPE_RPC_PEER_H_
#define VALUESCOPE_RPC_PEER_H_

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace valuescope::rpc {

// What the client sent beside its request: keys in lower case. The bytes belong to the call.
using CallMetadata = std::multimap<absl::string_view, absl::string_view>;

// Outlives its call. Metadata is added before the first message and before Finish; the rest is
// called from any thread. None of it blocks.
class Peer {
 public:
  virtual ~Peer() = default;

  virtual CallMetadata metadata() const = 0;
  // The one URI of the certificate that the client showed, empty where that has none or several;
  // nullopt where it showed no certificate that the server trusts.
  virtual std::optional<std::string> certificate_uri() const = 0;
  virtual absl::Time deadline() const = 0;  // InfiniteFuture where the client set none
  virtual void AddInitialMetadata(const std::string& key, const std::string& value) = 0;
  virtual void AddTrailingMetadata(const std::string& key, const std::string& value) = 0;

  // Ends whatever is in flight. Does nothing once the call is over.
  virtual void TryCancel() = 0;

  // The call's last word: afterwards the peer may destroy the call.
  virtual void Finish(const absl::Status& status) = 0;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_PEER_H_
