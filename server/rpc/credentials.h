// Callers by what they show: a bearer token, which the server knows or an issuer signed that it
// knows, or the certificate of their TLS connection. A token counts before a certificate, for
// whoever sends one says by it who they are.
//
// A certificate names its caller by a URI in its subject alternative name,
//
//   spiffe://ANY.DOMAIN/tenant/TENANT/role/ROLE
//
// which is the only URI there. TENANT is not `shared`, which nobody is (base/shared_tenant.h). That
// the certificate was signed by whom --tls_client_ca trusts was found out by TLS.
#ifndef VALUESCOPE_RPC_CREDENTIALS_H_
#define VALUESCOPE_RPC_CREDENTIALS_H_

#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "rpc/authenticator.h"
#include "rpc/caller.h"
#include "rpc/jwt.h"
#include "rpc/peer.h"
#include "rpc/token_file.h"

namespace valuescope::rpc {

// Whom such a URI names; nullopt where it is none.
std::optional<Caller> CallerOfUri(absl::string_view uri);

class CredentialsAuthenticator : public Authenticator {
 public:
  // Both outlive this. Without `tokens` certificates alone count; without `issuer` no token is one
  // that somebody signed. An issuer's tokens need the lines that say who their subjects are.
  explicit CredentialsAuthenticator(const TokenFile* tokens, const JwtIssuer* issuer = nullptr)
      : tokens_(tokens), issuer_(issuer) {}

  // UNAUTHENTICATED with the reason CREDENTIALS_MISSING, TOKEN_UNKNOWN, TOKEN_EXPIRED,
  // SUBJECT_UNKNOWN or CERTIFICATE_NAMES_NOBODY.
  absl::StatusOr<Caller> Authenticate(const Peer& peer) const override;

 private:
  absl::StatusOr<Caller> OfAuthorization(absl::string_view authorization) const;
  absl::StatusOr<Caller> OfSigned(absl::string_view token) const;

  const TokenFile* const tokens_;
  const JwtIssuer* const issuer_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_CREDENTIALS_H_
