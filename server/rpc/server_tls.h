// TLS of the server's port. Certificate, key and the certificates that clients' are checked against
// are files that are read again when they change: connections that are made from then on have the
// new ones, and those that are open go on.
#ifndef VALUESCOPE_RPC_SERVER_TLS_H_
#define VALUESCOPE_RPC_SERVER_TLS_H_

#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace valuescope::rpc {

struct TlsFiles {
  std::string certificate;  // PEM: the server's, and those between it and a root
  std::string key;          // PEM, without a password
  // PEM: roots of clients' certificates; empty: clients are not asked for one.
  std::string client_ca = "";
  bool client_certificate_required = false;
};

// INVALID_ARGUMENT, beginning with the flag, where a file cannot be read or is no PEM of its kind,
// or the key is not the certificate's.
absl::Status CheckTlsFiles(const TlsFiles& files);

// A client certificate that is shown is checked; one that is not trusted ends the connection.
std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const TlsFiles& files);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_SERVER_TLS_H_
