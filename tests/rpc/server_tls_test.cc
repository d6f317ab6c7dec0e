#include "rpc/server_tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

namespace valuescope::rpc {
namespace {

using testing::StartsWith;

class CheckTlsFilesTest : public testing::Test {
 protected:
  CheckTlsFilesTest() {
    std::filesystem::create_directories(folder_);
    WritePair("server");
    WritePair("other");
    std::ofstream(Path("text")) << "no PEM\n";
  }
  ~CheckTlsFilesTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return absl::StrCat(folder_, "/", name); }

  // NAME.key, and NAME.crt, which it has signed itself.
  void WritePair(const std::string& name) const {
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"),
                                                                  EVP_PKEY_free);
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
    X509_set_pubkey(certificate.get(), key.get());
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
    ASSERT_GT(X509_sign(certificate.get(), key.get(), EVP_sha256()), 0);
    std::FILE* file = std::fopen(Path(name + ".key").c_str(), "w");
    PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
    file = std::fopen(Path(name + ".locked").c_str(), "w");
    PEM_write_PKCS8PrivateKey(file, key.get(), EVP_aes_128_cbc(), "word", 4, nullptr, nullptr);
    std::fclose(file);
    file = std::fopen(Path(name + ".crt").c_str(), "w");
    PEM_write_X509(file, certificate.get());
    std::fclose(file);
  }

  // What is said of files by their names in the folder; "" of `client_ca` is none.
  std::string Told(const std::string& certificate, const std::string& key,
                   const std::string& client_ca = "") const {
    return std::string(CheckTlsFiles({.certificate = Path(certificate),
                                      .key = Path(key),
                                      .client_ca = client_ca.empty() ? "" : Path(client_ca)})
                           .message());
  }

  const std::string folder_ = absl::StrCat(testing::TempDir(), "/tls_", ::getpid());
};

TEST_F(CheckTlsFilesTest, TakesACertificateWithItsKey) {
  EXPECT_EQ(Told("server.crt", "server.key"), "");
  EXPECT_EQ(Told("other.crt", "other.key", "server.crt"), "");
}

TEST_F(CheckTlsFilesTest, NamesTheFlagOfTheFileThatIsWrong) {
  EXPECT_THAT(Told("none", "server.key"), StartsWith("--tls_certificate names a file that cannot"));
  EXPECT_THAT(Told("text", "server.key"), StartsWith("--tls_certificate must name a PEM file"));
  EXPECT_THAT(Told("server.key", "server.key"), StartsWith("--tls_certificate must name"));
  EXPECT_THAT(Told("server.crt", "none"), StartsWith("--tls_key names a file that cannot"));
  EXPECT_THAT(Told("server.crt", "server.crt"), StartsWith("--tls_key must name a PEM file"));
  EXPECT_THAT(Told("server.crt", "server.locked"), StartsWith("--tls_key must name a PEM file"));
  EXPECT_THAT(Told("server.crt", "other.key"), StartsWith("--tls_key is not the key"));
  EXPECT_THAT(Told("server.crt", "server.key", "none"), StartsWith("--tls_client_ca names a file"));
  EXPECT_THAT(Told("server.crt", "server.key", "text"), StartsWith("--tls_client_ca must name"));
}

}  // namespace
}  // namespace valuescope::rpc
