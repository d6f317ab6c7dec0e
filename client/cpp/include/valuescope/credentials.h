// What a client shows a server: a bearer token, which may lie in a file that others renew, and the
// files of a TLS connection.
//
//   valuescope::ClientOptions options;
//   options.token_file = "/var/run/secrets/valuescope/token";
//   auto credentials = valuescope::TlsCredentials({.ca = "ca.pem"});
//   if (!credentials.ok()) ...
//   options.credentials = *credentials;
//   valuescope::Client client("lab.example:50051", options);
#ifndef VALUESCOPE_CREDENTIALS_H_
#define VALUESCOPE_CREDENTIALS_H_

#include <grpcpp/security/credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace valuescope {

// PEM files. Each may be empty.
struct TlsFiles {
  // Roots that the server's certificate is checked against; empty: those that gRPC knows.
  std::string ca;
  // A certificate that tells the server who calls, and its key: both or neither.
  std::string certificate;
  std::string key;
};

// For ClientOptions::credentials. The files are read now. INVALID_ARGUMENT where one cannot be, or
// one of certificate and key is missing.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsCredentials(const TlsFiles& files);

// The token in a file, without white space around it. FAILED_PRECONDITION where the file cannot be
// read or holds none.
absl::StatusOr<std::string> ReadToken(const std::string& path);

}  // namespace valuescope

#endif  // VALUESCOPE_CREDENTIALS_H_
