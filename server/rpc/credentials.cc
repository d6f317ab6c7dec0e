#include "rpc/credentials.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/error.h"
#include "base/id.h"
#include "base/shared_tenant.h"
#include "base/status_macros.h"

namespace valuescope::rpc {
namespace {

constexpr char kAuthorization[] = "authorization";
constexpr absl::string_view kScheme = "bearer ";
constexpr size_t kLongestToken = 8192;

absl::Status Unauthenticated(absl::string_view reason, absl::string_view message) {
  return ErrorWithReason(absl::StatusCode::kUnauthenticated, reason, message);
}

}  // namespace

std::optional<Caller> CallerOfUri(absl::string_view uri) {
  if (!absl::ConsumePrefix(&uri, "spiffe://")) return std::nullopt;
  const std::vector<absl::string_view> parts = absl::StrSplit(uri, '/');
  if (parts.size() != 5 || parts[0].empty() || parts[1] != "tenant" || parts[3] != "role" ||
      !CheckResourceId("tenant", parts[2]).ok() || parts[2] == kSharedTenant) {
    return std::nullopt;
  }
  const std::optional<Role> role = RoleOfName(parts[4]);
  if (!role) return std::nullopt;
  return Caller{.tenant = std::string(parts[2]), .role = *role};
}

absl::StatusOr<Caller> CredentialsAuthenticator::Authenticate(const Peer& peer) const {
  const CallMetadata metadata = peer.metadata();
  const auto [first, last] = metadata.equal_range(kAuthorization);
  if (first != last) {
    if (std::next(first) != last) {
      return Unauthenticated("TOKEN_UNKNOWN",
                             "the metadata authorization must be there once, not several times");
    }
    return OfAuthorization(first->second);
  }
  const std::optional<std::string> uri = peer.certificate_uri();
  if (!uri) {
    return Unauthenticated(
        "CREDENTIALS_MISSING",
        tokens_ == nullptr
            ? "this server wants to know who calls: connect with a client certificate that it "
              "trusts"
            : "this server wants to know who calls: send the metadata authorization: Bearer "
              "TOKEN, which clients do that are given a token or the file of one");
  }
  const std::optional<Caller> caller = CallerOfUri(*uri);
  if (!caller) {
    return Unauthenticated(
        "CERTIFICATE_NAMES_NOBODY",
        "the client certificate needs one URI in its subject alternative name, "
        "spiffe://DOMAIN/tenant/TENANT/role/ROLE, where TENANT is not shared and ROLE is reader, "
        "user or admin");
  }
  return *caller;
}

absl::StatusOr<Caller> CredentialsAuthenticator::OfAuthorization(
    absl::string_view authorization) const {
  if (tokens_ == nullptr) {
    return Unauthenticated("TOKEN_UNKNOWN",
                           "this server knows no tokens: send none, and connect with a client "
                           "certificate that it trusts");
  }
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) {
    return Unauthenticated("CREDENTIALS_MISSING",
                           "the metadata authorization must be Bearer TOKEN");
  }
  authorization.remove_prefix(kScheme.size());
  if (authorization.size() <= kLongestToken) {
    std::optional<Caller> caller = tokens_->CallerOf(authorization);
    if (caller) return *std::move(caller);
    if (issuer_ != nullptr && IsJwt(authorization)) return OfSigned(authorization);
  }
  return Unauthenticated("TOKEN_UNKNOWN",
                         "this server does not know the token, or no longer: ask its operator "
                         "for one");
}

absl::StatusOr<Caller> CredentialsAuthenticator::OfSigned(absl::string_view token) const {
  VS_ASSIGN_OR_RETURN(const std::string subject, issuer_->SubjectOf(token));
  std::optional<Caller> caller = tokens_->CallerOfSubject(subject);
  if (caller) return *std::move(caller);
  return Unauthenticated(
      "SUBJECT_UNKNOWN",
      absl::StrCat("the token is good, but nobody said who its subject is here: ask the operator "
                   "for a line of --tokens with \"sub\": \"",
                   absl::CHexEscape(subject), "\""));
}

}  // namespace valuescope::rpc
