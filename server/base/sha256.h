// SHA-256, the digest that names models, vectors, neuron sets and artifacts.
#ifndef VALUESCOPE_BASE_SHA256_H_
#define VALUESCOPE_BASE_SHA256_H_

#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace valuescope {

// Incremental: Update any number of times, then HexDigest once.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(absl::string_view bytes);
  std::string HexDigest();  // 64 lower-case hexadecimal digits

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string Sha256Hex(absl::string_view bytes);

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_SHA256_H_
