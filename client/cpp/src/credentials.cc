#include "valuescope/credentials.h"

#include <fstream>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace valuescope {
namespace {

constexpr size_t kLongestToken = 4096;

bool ReadAll(const std::string& path, std::string& bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return false;
  bytes.assign(std::istreambuf_iterator<char>(file), {});
  return !file.bad() && !bytes.empty();
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsCredentials(const TlsFiles& files) {
  if (files.certificate.empty() != files.key.empty()) {
    return absl::InvalidArgumentError(
        "a client certificate and its key must be given both or neither");
  }
  grpc::SslCredentialsOptions options;
  for (const auto& [path, bytes] : {std::pair(&files.ca, &options.pem_root_certs),
                                    std::pair(&files.certificate, &options.pem_cert_chain),
                                    std::pair(&files.key, &options.pem_private_key)}) {
    if (!path->empty() && !ReadAll(*path, *bytes)) {
      return absl::InvalidArgumentError(absl::StrCat("cannot read ", *path));
    }
  }
  return grpc::SslCredentials(options);
}

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  std::string bytes;
  const bool read = ReadAll(path, bytes);
  const absl::string_view token = absl::StripAsciiWhitespace(bytes);
  if (!read || token.empty() || token.size() > kLongestToken) {
    return absl::FailedPreconditionError(
        absl::StrCat("the token file ", path, " cannot be read, or holds no token"));
  }
  return std::string(token);
}

}  // namespace valuescope
