// SHA-256 and CRC-32C of artifact bytes, as the contract wants them. Kept apart from the server's
// so that the client stands alone.
#ifndef VALUESCOPE_CLIENT_CHECKSUM_H_
#define VALUESCOPE_CLIENT_CHECKSUM_H_

#include <openssl/evp.h>

#include <cstdint>
#include <memory>
#include <string>

namespace valuescope {

class Sha256Digest {
 public:
  Sha256Digest();
  void Update(const std::string& bytes);
  std::string Hex();  // once

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

uint32_t ChunkChecksum(const char* data, size_t size);

}  // namespace valuescope

#endif  // VALUESCOPE_CLIENT_CHECKSUM_H_
