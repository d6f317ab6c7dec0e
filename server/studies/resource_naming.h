// Resources that are named by their content take the head of its digest as their id: 128 bits, far
// beyond chance collisions, and the store refuses another digest under the same id.
#ifndef VALUESCOPE_STUDIES_RESOURCE_NAMING_H_
#define VALUESCOPE_STUDIES_RESOURCE_NAMING_H_

#include <string>

#include "absl/strings/string_view.h"

namespace valuescope::studies {

// `digest` is 64 hexadecimal digits.
inline std::string IdOfDigest(absl::string_view digest) {
  return std::string(digest.substr(0, 32));
}

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_RESOURCE_NAMING_H_
