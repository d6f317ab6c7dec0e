#include "rpc/jwt.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "rpc/jwt_interface.h"
#include "rpc/token_file.h"

namespace valuescope::rpc {
namespace {

constexpr size_t kLongestKeys = size_t{1} << 20;
constexpr size_t kLongestReason = 256;

absl::Status Refused(absl::string_view reason, absl::string_view message) {
  return ErrorWithReason(absl::StatusCode::kUnauthenticated, reason, message);
}

// What a token lacks is told only of those that the issuer signed.
absl::Status StatusOf(int32_t fault) {
  switch (fault) {
    case VS_JWT_EXPIRED:
      return Refused("TOKEN_EXPIRED", "the token has expired: get a new one from its issuer");
    case VS_JWT_NOT_YET:
      return Refused("TOKEN_EXPIRED", "the token holds only from a later time on: see its `nbf`");
    case VS_JWT_OTHER_ISSUER:
      return Refused("TOKEN_UNKNOWN", "the token's `iss` is not the issuer that this server knows");
    case VS_JWT_OTHER_AUDIENCE:
      return Refused("TOKEN_UNKNOWN",
                     "the token's `aud` does not name this server: ask for one with its audience");
    case VS_JWT_MISSING_CLAIM:
      return Refused("TOKEN_UNKNOWN",
                     "the token must have `iss`, `aud`, `exp` and a `sub` of at most 256 bytes");
    default:
      return Refused("TOKEN_UNKNOWN",
                     "the token is signed by no key that this server knows, or not well formed");
  }
}

}  // namespace

void JwtKeys::Free::operator()(VsJwtKeys* keys) const { vs_jwt_keys_free(keys); }

absl::StatusOr<JwtKeys> JwtKeys::Parse(absl::string_view jwk_set) {
  std::string error(kLongestReason, '\0');
  size_t size = 0;
  VsJwtKeys* const keys =
      vs_jwt_keys_parse(jwk_set.data(), jwk_set.size(), error.data(), error.size(), &size);
  if (keys != nullptr) return JwtKeys(keys);
  error.resize(size);
  return absl::InvalidArgumentError(error);
}

absl::StatusOr<std::string> JwtKeys::SubjectOf(absl::string_view token,
                                               const JwtDemands& demands) const {
  std::string subject(kLongestSubject, '\0');
  size_t size = 0;
  const int32_t fault =
      vs_jwt_verify(keys_.get(), token.data(), token.size(), demands.issuer.data(),
                    demands.issuer.size(), demands.audience.data(), demands.audience.size(),
                    static_cast<uint64_t>(absl::ToInt64Seconds(demands.leeway)), subject.data(),
                    subject.size(), &size);
  if (fault != VS_JWT_OK) return StatusOf(fault);
  subject.resize(size);
  return subject;
}

JwtIssuer::JwtIssuer(std::string keys, JwtDemands demands)
    : demands_(std::move(demands)), keys_(std::move(keys), kLongestKeys, JwtKeys::Parse) {}

absl::StatusOr<std::string> JwtIssuer::SubjectOf(absl::string_view token) const {
  const std::shared_ptr<const JwtKeys> keys = keys_.value();
  VS_CHECK(keys != nullptr);
  return keys->SubjectOf(token, demands_);
}

bool IsJwt(absl::string_view token) { return std::count(token.begin(), token.end(), '.') == 2; }

}  // namespace valuescope::rpc
