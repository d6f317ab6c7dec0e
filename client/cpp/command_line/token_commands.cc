// Makes bearer tokens: 32 random bytes, of which a server is told the SHA-256 alone.
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "commands.h"
#include "output.h"

namespace valuescope::command_line {
namespace {

constexpr size_t kTokenBytes = 32;

// What a server takes for a tenant.
bool IsTenant(const std::string& text) {
  constexpr size_t kLongest = 128;
  const auto is_alnum = [](char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)); };
  return !text.empty() && text.size() <= kLongest && is_alnum(text[0]) &&
         text.find("..") == std::string::npos && std::all_of(text.begin(), text.end(), [&](char c) {
           return is_alnum(c) || c == '.' || c == '_' || c == '-';
         });
}

std::optional<std::string> RandomToken() {
  std::array<unsigned char, kTokenBytes> bytes;
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) return std::nullopt;
  const absl::string_view view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return absl::StrCat("vs_", absl::WebSafeBase64Escape(view));
}

std::string Sha256Of(const std::string& text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), size));
}

}  // namespace

int CreateToken(const Globals& globals, const TokenFlags& flags) {
  if (!IsTenant(flags.tenant)) {
    return FailUsage(absl::InvalidArgumentError(
        "--tenant must be 1 to 128 letters, digits, '.', '_' and '-', the first one a letter or "
        "digit"));
  }
  if (flags.tenant == "shared") {
    return FailUsage(absl::InvalidArgumentError(
        "--tenant must not be shared: to that tenant belongs what others publish"));
  }
  const std::optional<std::string> token = RandomToken();
  if (!token) return Fail(absl::UnavailableError("this machine has no random numbers"));
  nlohmann::ordered_json line = {
      {"sha256", Sha256Of(*token)}, {"tenant", flags.tenant}, {"role", flags.role}};
  if (!flags.name.empty()) line["name"] = flags.name;
  if (globals.json) {
    std::cout << nlohmann::ordered_json({{"token", *token}, {"line", line}}).dump() << "\n";
  } else {
    std::cout << "token  " << *token << "\nline   " << line.dump() << "\n";
  }
  return kOk;
}

}  // namespace valuescope::command_line
