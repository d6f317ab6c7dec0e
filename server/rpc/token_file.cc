#include "rpc/token_file.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/id.h"
#include "base/sha256.h"
#include "base/shared_tenant.h"
#include "base/status_macros.h"
#include "base/strict_json.h"

namespace valuescope::rpc {
namespace {

constexpr size_t kLongestFile = size_t{4} << 20;
constexpr size_t kDigestDigits = 64;
constexpr char kAnyRest = '*';

bool IsDigest(absl::string_view text) {
  return text.size() == kDigestDigits && std::all_of(text.begin(), text.end(), [](char c) {
           const auto byte = static_cast<unsigned char>(c);
           return absl::ascii_isdigit(byte) || (byte >= 'a' && byte <= 'f');
         });
}

// Of a line with "sub" and that alone, or "sha256" and that alone.
absl::Status CheckWhose(const Token& token) {
  if (!token.sub.empty() && token.sha256.empty()) {
    if (token.sub.size() <= kLongestSubject && token.sub.find(kAnyRest) >= token.sub.size() - 1) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat("must have sub of 1 to ", kLongestSubject,
                                                   " bytes, with a * as its last one at most"));
  }
  if (token.sub.empty() && IsDigest(token.sha256)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "must have either sub, or sha256: the token's SHA-256 as 64 lower-case hexadecimal digits");
}

// One line. The messages show nothing of it: it could be a token that somebody put there.
absl::StatusOr<Token> ParseToken(absl::string_view line) {
  VS_ASSIGN_OR_RETURN(const nlohmann::json json, ParseStrictJson(line));
  if (!json.is_object()) return absl::InvalidArgumentError("is no JSON object");
  Token token;
  std::string role;
  for (const auto& [key, value] : json.items()) {
    std::string* const place = key == "sha256"   ? &token.sha256
                               : key == "sub"    ? &token.sub
                               : key == "tenant" ? &token.caller.tenant
                               : key == "role"   ? &role
                               : key == "name"   ? &token.caller.name
                                                 : nullptr;
    if (place == nullptr || !value.is_string()) {
      return absl::InvalidArgumentError(
          "may have sha256 or sub, tenant, role and name, each a string");
    }
    *place = value.get<std::string>();
  }
  VS_RETURN_IF_ERROR(CheckWhose(token));
  if (!CheckResourceId("tenant", token.caller.tenant).ok()) {
    return absl::InvalidArgumentError(
        "must have tenant: 1 to 128 letters, digits, '.', '_' and '-', the first one a letter or "
        "digit");
  }
  if (token.caller.tenant == kSharedTenant) {
    return absl::InvalidArgumentError(
        "must have another tenant than shared, to whom belongs what tenants publish");
  }
  const std::optional<Role> named = RoleOfName(role);
  if (!named) return absl::InvalidArgumentError("must have role: reader, user or admin");
  token.caller.role = *named;
  VS_RETURN_IF_ERROR(CheckDisplayName("name", token.caller.name));
  return token;
}

absl::Status InLine(size_t number, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("line ", number, " ", what));
}

}  // namespace

absl::StatusOr<std::vector<Token>> ParseTokens(absl::string_view text) {
  std::vector<Token> tokens;
  std::set<std::pair<std::string, std::string>> known;
  size_t number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    absl::StatusOr<Token> token = ParseToken(line);
    if (!token.ok()) return InLine(number, token.status().message());
    if (!known.emplace(token->sha256, token->sub).second) {
      return InLine(number, "has a sha256 or sub that another line has too");
    }
    if (tokens.size() == kMostTokens) {
      return InLine(number, absl::StrCat("is one more than the ", kMostTokens, " that may be"));
    }
    tokens.push_back(*std::move(token));
  }
  if (tokens.empty()) return absl::InvalidArgumentError("there is no line in it");
  return tokens;
}

TokenFile::TokenFile(std::string path) : file_(std::move(path), kLongestFile, ParseTokens) {}

std::optional<Caller> TokenFile::CallerOf(absl::string_view token) const {
  const std::string digest = Sha256Hex(token);
  const std::shared_ptr<const std::vector<Token>> tokens = file_.value();
  if (tokens == nullptr) return std::nullopt;
  const Token* found = nullptr;
  for (const Token& known : *tokens) {
    if (known.sub.empty() && CRYPTO_memcmp(known.sha256.data(), digest.data(), kDigestDigits) == 0)
      found = &known;
  }
  if (found == nullptr) return std::nullopt;
  return found->caller;
}

std::optional<Caller> TokenFile::CallerOfSubject(absl::string_view sub) const {
  const std::shared_ptr<const std::vector<Token>> tokens = file_.value();
  if (tokens == nullptr) return std::nullopt;
  const Token* found = nullptr;
  for (const Token& known : *tokens) {
    if (known.sub.empty()) continue;
    if (known.sub == sub) {
      found = &known;
      break;
    }
    const bool begins =
        absl::EndsWith(known.sub, "*") && absl::StartsWith(sub, absl::StripSuffix(known.sub, "*"));
    if (begins && (found == nullptr || known.sub.size() > found->sub.size())) found = &known;
  }
  if (found == nullptr) return std::nullopt;
  Caller caller = found->caller;
  if (caller.name.empty()) caller.name = std::string(sub);
  return caller;
}

}  // namespace valuescope::rpc
