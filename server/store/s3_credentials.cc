#include "store/s3_credentials.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/error.h"

namespace valuescope::store {
namespace {

constexpr size_t kLongestFile = 64 << 10;
constexpr size_t kLongestSecret = 8 << 10;  // session tokens are long

absl::Status NoCredentials(absl::string_view check) {
  return ErrorWithReason(absl::StatusCode::kUnavailable, "STORAGE_REFUSED",
                         absl::StrCat("there are no credentials for the S3 store: ", check));
}

// They become headers and must not end one.
bool IsKey(absl::string_view text) {
  return text.size() <= kLongestSecret && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isgraph(static_cast<unsigned char>(c));
         });
}

bool AreWhole(const S3Credentials& credentials) {
  return !credentials.access_key.empty() && !credentials.secret_key.empty() &&
         IsKey(credentials.access_key) && IsKey(credentials.secret_key) &&
         IsKey(credentials.session_token);
}

std::string Variable(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

S3Credentials Parse(absl::string_view text) {
  S3Credentials credentials;
  bool in_default = false;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const absl::string_view stripped = absl::StripAsciiWhitespace(line);
    if (!stripped.empty() && stripped[0] == '[') in_default = stripped == "[default]";
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(stripped, absl::MaxSplits('=', 1));
    if (!in_default) continue;
    const absl::string_view name = absl::StripAsciiWhitespace(pair.first);
    const std::string value(absl::StripAsciiWhitespace(pair.second));
    if (name == "aws_access_key_id") credentials.access_key = value;
    if (name == "aws_secret_access_key") credentials.secret_key = value;
    if (name == "aws_session_token") credentials.session_token = value;
  }
  return credentials;
}

}  // namespace

absl::StatusOr<S3Credentials> S3CredentialsSource::Get() {
  if (!file_.empty()) {
    absl::MutexLock lock(&mutex_);
    return FromFile();
  }
  S3Credentials credentials{.access_key = Variable("AWS_ACCESS_KEY_ID"),
                            .secret_key = Variable("AWS_SECRET_ACCESS_KEY"),
                            .session_token = Variable("AWS_SESSION_TOKEN")};
  if (!AreWhole(credentials)) {
    return NoCredentials(
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file by "
        "--s3_credentials_file");
  }
  return credentials;
}

absl::StatusOr<S3Credentials> S3CredentialsSource::FromFile() {
  const FileVersion version = VersionOf(file_);
  if (version != version_ && version.exists()) {
    std::string text(kLongestFile, '\0');
    std::ifstream file(file_, std::ios::binary);
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(file.gcount()));
    S3Credentials credentials = Parse(text);
    // Else somebody is in the middle of writing it.
    if (AreWhole(credentials)) {
      read_ = std::move(credentials);
      version_ = version;
    }
  }
  if (AreWhole(read_)) return read_;
  return NoCredentials(
      "the file of --s3_credentials_file needs a section [default] with aws_access_key_id and "
      "aws_secret_access_key");
}

}  // namespace valuescope::store
