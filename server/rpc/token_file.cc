#include "rpc/token_file.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/id.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/strict_json.h"

namespace valuescope::rpc {
namespace {

constexpr size_t kLongestFile = size_t{4} << 20;
constexpr size_t kDigestDigits = 64;

bool IsDigest(absl::string_view text) {
  return text.size() == kDigestDigits && std::all_of(text.begin(), text.end(), [](char c) {
           const auto byte = static_cast<unsigned char>(c);
           return absl::ascii_isdigit(byte) || (byte >= 'a' && byte <= 'f');
         });
}

// One line. The messages show nothing of it: it could be a token that somebody put there.
absl::StatusOr<Token> ParseToken(absl::string_view line) {
  VS_ASSIGN_OR_RETURN(const nlohmann::json json, ParseStrictJson(line));
  if (!json.is_object()) return absl::InvalidArgumentError("is no JSON object");
  Token token;
  std::string role;
  for (const auto& [key, value] : json.items()) {
    std::string* const place = key == "sha256"   ? &token.sha256
                               : key == "tenant" ? &token.caller.tenant
                               : key == "role"   ? &role
                               : key == "name"   ? &token.caller.name
                                                 : nullptr;
    if (place == nullptr || !value.is_string()) {
      return absl::InvalidArgumentError("may have sha256, tenant, role and name, each a string");
    }
    *place = value.get<std::string>();
  }
  if (!IsDigest(token.sha256)) {
    return absl::InvalidArgumentError(
        "must have sha256: the token's SHA-256 as 64 lower-case hexadecimal digits");
  }
  if (!CheckResourceId("tenant", token.caller.tenant).ok()) {
    return absl::InvalidArgumentError(
        "must have tenant: 1 to 128 letters, digits, '.', '_' and '-', the first one a letter or "
        "digit");
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
  std::set<std::string> digests;
  size_t number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    absl::StatusOr<Token> token = ParseToken(line);
    if (!token.ok()) return InLine(number, token.status().message());
    if (!digests.insert(token->sha256).second) {
      return InLine(number, "has a sha256 that another line has too");
    }
    if (tokens.size() == kMostTokens) {
      return InLine(number, absl::StrCat("is one more than the ", kMostTokens, " that may be"));
    }
    tokens.push_back(*std::move(token));
  }
  if (tokens.empty()) return absl::InvalidArgumentError("there is no token in it");
  return tokens;
}

absl::Status TokenFile::Read() {
  const FileVersion version = VersionOf(path_);
  std::string text(kLongestFile + 1, '\0');
  std::ifstream file(path_, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  {
    absl::MutexLock lock(&mutex_);
    seen_ = read_ = version;
  }
  if (!file.is_open() || file.bad()) return absl::InvalidArgumentError("cannot be read");
  if (text.size() > kLongestFile) {
    return absl::InvalidArgumentError(absl::StrCat("has more than ", kLongestFile, " bytes"));
  }
  VS_ASSIGN_OR_RETURN(std::vector<Token> tokens, ParseTokens(text));
  absl::MutexLock lock(&mutex_);
  tokens_ = std::make_shared<const std::vector<Token>>(std::move(tokens));
  return absl::OkStatus();
}

std::optional<absl::Status> TokenFile::Look() {
  const FileVersion version = VersionOf(path_);
  {
    absl::MutexLock lock(&mutex_);
    if (version == read_) return std::nullopt;
    // Else somebody may be in the midst of writing it.
    const bool rests = version == seen_;
    seen_ = version;
    if (!rests) return std::nullopt;
  }
  return Read();
}

std::optional<Caller> TokenFile::CallerOf(absl::string_view token) const {
  const std::string digest = Sha256Hex(token);
  Tokens tokens;
  {
    absl::MutexLock lock(&mutex_);
    tokens = tokens_;
  }
  const Token* found = nullptr;
  for (const Token& known : *tokens) {
    if (CRYPTO_memcmp(known.sha256.data(), digest.data(), kDigestDigits) == 0) found = &known;
  }
  if (found == nullptr) return std::nullopt;
  return found->caller;
}

}  // namespace valuescope::rpc
