// The bearer tokens of a server: a file with a line for each, which holds the token's digest and
// whose it is, and never the token.
//
//   {"sha256": "9f86d081884c7d65...", "tenant": "lab", "role": "user", "name": "nightly sweeps"}
//
// Tokens that an issuer signs (jwt.h) come and go, so a line names whom they are for: their `sub`,
// or all that begin with what stands before a last *.
//
//   {"sub": "system:serviceaccount:lab:gate", "tenant": "lab", "role": "user"}
//   {"sub": "system:serviceaccount:lab:*", "tenant": "lab", "role": "reader"}
//
// It is read again while the server runs, so that callers come and go without a restart.
#ifndef VALUESCOPE_RPC_TOKEN_FILE_H_
#define VALUESCOPE_RPC_TOKEN_FILE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/reread_file.h"
#include "rpc/caller.h"

namespace valuescope::rpc {

inline constexpr size_t kMostTokens = 4096;
inline constexpr size_t kLongestSubject = 256;

struct Token {
  std::string sha256;  // of the token's bytes, 64 lower-case hexadecimal digits; else empty
  std::string sub;     // 1 to kLongestSubject bytes, the last perhaps a *; else empty
  Caller caller;
};

// JSON Lines of objects with either sha256 or sub, tenant (as in a resource name), role (reader,
// user or admin) and perhaps name (up to 256 bytes); lines without anything are skipped.
// INVALID_ARGUMENT, naming the line, for anything else, for a sha256 or sub twice, for no line and
// for more than kMostTokens.
absl::StatusOr<std::vector<Token>> ParseTokens(absl::string_view text);

// Thread-safe.
class TokenFile {
 public:
  explicit TokenFile(std::string path);

  // See RereadFile.
  absl::Status Read() { return file_.Read(); }
  std::optional<absl::Status> Look() { return file_.Look(); }

  // Whose token this is. Takes as long whichever it is and however much of it is right.
  std::optional<Caller> CallerOf(absl::string_view token) const;

  // Who the bearer of a signed token with this `sub` is: by the line that has it as it is, else by
  // the longest that it begins with. Without a name of the line's own it has the subject as one.
  std::optional<Caller> CallerOfSubject(absl::string_view sub) const;

 private:
  RereadFile<std::vector<Token>> file_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_TOKEN_FILE_H_
