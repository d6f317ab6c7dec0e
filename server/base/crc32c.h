// CRC-32C (Castagnoli), the checksum on every chunk of a streamed artifact.
#ifndef VALUESCOPE_BASE_CRC32C_H_
#define VALUESCOPE_BASE_CRC32C_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace valuescope {

uint32_t Crc32c(absl::string_view bytes);

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_CRC32C_H_
