#include "rpc/server_tls.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace valuescope::rpc {
namespace {

constexpr unsigned int kLookSeconds = 1;

template <typename Type, void (*kFree)(Type*)>
struct Freed {
  void operator()(Type* object) const { kFree(object); }
};
using Certificate = std::unique_ptr<X509, Freed<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY, EVP_PKEY_free>>;

struct Closed {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Closed>;

// Nobody is there to ask for a password.
int NoPassword(char*, int, int, void*) { return 0; }

absl::Status Refuse(const char* flag, const char* what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", what));
}

// The first certificate of a file.
absl::Status Read(const char* flag, const std::string& path, Certificate& certificate) {
  const File file(std::fopen(path.c_str(), "r"));
  if (file == nullptr) return Refuse(flag, "names a file that cannot be read");
  certificate.reset(PEM_read_X509(file.get(), nullptr, NoPassword, nullptr));
  if (certificate == nullptr) return Refuse(flag, "must name a PEM file of certificates");
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& files) {
  Certificate certificate, root;
  VS_RETURN_IF_ERROR(Read("--tls_certificate", files.certificate, certificate));
  if (!files.client_ca.empty()) VS_RETURN_IF_ERROR(Read("--tls_client_ca", files.client_ca, root));
  const File file(std::fopen(files.key.c_str(), "r"));
  if (file == nullptr) return Refuse("--tls_key", "names a file that cannot be read");
  const Key key(PEM_read_PrivateKey(file.get(), nullptr, NoPassword, nullptr));
  if (key == nullptr) {
    return Refuse("--tls_key", "must name a PEM file of a private key without a password");
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return Refuse("--tls_key", "is not the key of the first certificate of --tls_certificate");
  }
  return absl::OkStatus();
}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const TlsFiles& files) {
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          files.key, files.certificate, files.client_ca, kLookSeconds));
  options.watch_identity_key_cert_pairs();
  if (!files.client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(files.client_certificate_required
                                      ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                      : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace valuescope::rpc
