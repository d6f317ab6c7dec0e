// JSON Web Tokens (RFC 7519), as an identity provider and Kubernetes give them to those who are to
// call: signed by an issuer whose public keys the server has as a file, a JWK set (RFC 7517). A
// token says by its `sub` whom it is for; who that is here, a line of --tokens says (token_file.h).
//
// Signatures are RS256, RS384, RS512, PS256, PS384, PS512 (keys of 2048 to 8192 bits), ES256, ES384
// or EdDSA (Ed25519), each by a key of its kind, and by the key that the token's `kid` names. There
// is no way to sign with a secret that both sides know, nor without a key.
#ifndef VALUESCOPE_RPC_JWT_H_
#define VALUESCOPE_RPC_JWT_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/reread_file.h"

struct VsJwtKeys;

namespace valuescope::rpc {

struct JwtDemands {
  std::string issuer;                         // the token's `iss`
  std::string audience;                       // one of its `aud`
  absl::Duration leeway = absl::Seconds(60);  // by which its `exp` and `nbf` may be missed
};

class JwtKeys {
 public:
  // INVALID_ARGUMENT for what is no JWK set, has more than 64 keys, a secret one, an RSA key of
  // another size, or none that signs.
  static absl::StatusOr<JwtKeys> Parse(absl::string_view jwk_set);

  // The subject of a token that one of the keys signed and that is what is demanded, now.
  // UNAUTHENTICATED with the reason TOKEN_EXPIRED, or else TOKEN_UNKNOWN.
  absl::StatusOr<std::string> SubjectOf(absl::string_view token, const JwtDemands& demands) const;

 private:
  struct Free {
    void operator()(VsJwtKeys* keys) const;
  };

  explicit JwtKeys(VsJwtKeys* keys) : keys_(keys) {}

  std::unique_ptr<VsJwtKeys, Free> keys_;
};

// The issuer whose keys are in a file. Thread-safe.
class JwtIssuer {
 public:
  JwtIssuer(std::string keys, JwtDemands demands);

  // See RereadFile.
  absl::Status Read() { return keys_.Read(); }
  std::optional<absl::Status> Look() { return keys_.Look(); }

  // As JwtKeys::SubjectOf. The keys were read.
  absl::StatusOr<std::string> SubjectOf(absl::string_view token) const;

 private:
  const JwtDemands demands_;
  RereadFile<JwtKeys> keys_;
};

// Whether it has the shape of one; other tokens have no dots.
bool IsJwt(absl::string_view token);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_JWT_H_
