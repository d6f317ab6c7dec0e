#include "base/id.h"

#include <openssl/rand.h>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"

namespace valuescope {

std::string NewUuid() {
  unsigned char bytes[16];
  VS_CHECK(RAND_bytes(bytes, sizeof(bytes)) == 1);
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
  const std::string hex =
      absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(bytes), sizeof(bytes)));
  return absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-",
                      hex.substr(16, 4), "-", hex.substr(20));
}

absl::Status CheckResourceId(absl::string_view field, absl::string_view id) {
  bool allowed = !id.empty() && id.size() <= 128 &&
                 absl::ascii_isalnum(static_cast<unsigned char>(id.front())) &&
                 !absl::StrContains(id, "..");
  for (const char c : id) {
    allowed = allowed && (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' ||
                          c == '_' || c == '-');
  }
  if (allowed) return absl::OkStatus();
  return InvalidField(field,
                      "must be 1 to 128 letters, digits, '.', '_' or '-', begin with a letter or "
                      "digit and not contain '..'");
}

absl::Status CheckDisplayName(absl::string_view field, absl::string_view name) {
  constexpr size_t kMost = 256;
  if (name.size() > kMost) {
    return InvalidField(field,
                        absl::StrCat("has ", name.size(), " bytes, allowed are at most ", kMost));
  }
  // No text of PostgreSQL has one.
  if (absl::StrContains(name, '\0')) return InvalidField(field, "must hold no NUL character");
  return absl::OkStatus();
}

}  // namespace valuescope
