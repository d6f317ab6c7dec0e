// The bearer tokens of a server: a file with a line for each, which holds the token's digest and
// whose it is, and never the token.
//
//   {"sha256": "9f86d081884c7d65...", "tenant": "lab", "role": "user", "name": "nightly sweeps"}
//
// It is read again while the server runs, so that tokens come and go without a restart.
#ifndef VALUESCOPE_RPC_TOKEN_FILE_H_
#define VALUESCOPE_RPC_TOKEN_FILE_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/file_version.h"
#include "rpc/caller.h"

namespace valuescope::rpc {

inline constexpr size_t kMostTokens = 4096;

struct Token {
  std::string sha256;  // of the token's bytes, 64 lower-case hexadecimal digits
  Caller caller;
};

// JSON Lines of objects with sha256, tenant (as in a resource name), role (reader, user or admin)
// and perhaps name (up to 256 bytes); lines without anything are skipped. INVALID_ARGUMENT, naming
// the line, for anything else, for a digest twice, for no token and for more than kMostTokens.
absl::StatusOr<std::vector<Token>> ParseTokens(absl::string_view text);

// Thread-safe.
class TokenFile {
 public:
  explicit TokenFile(std::string path) : path_(std::move(path)) {}

  // Reads it. INVALID_ARGUMENT where it cannot be read or is wrong, and what was read before stays.
  absl::Status Read();

  // To be called every second or so: reads it where it has changed since and does no longer. What
  // Read said then; nullopt where it was not read. A state of the file is read once.
  std::optional<absl::Status> Look();

  // Whose token this is. Takes as long whichever it is and however much of it is right.
  std::optional<Caller> CallerOf(absl::string_view token) const;

 private:
  using Tokens = std::shared_ptr<const std::vector<Token>>;

  const std::string path_;
  mutable absl::Mutex mutex_;
  FileVersion seen_ ABSL_GUARDED_BY(mutex_);  // when somebody looked last
  FileVersion read_ ABSL_GUARDED_BY(mutex_);
  Tokens tokens_ ABSL_GUARDED_BY(mutex_) = std::make_shared<std::vector<Token>>();
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_TOKEN_FILE_H_
