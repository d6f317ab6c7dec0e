// The flags that say where the server listens and who may call it, read and checked as
// server_config.h has them.
#ifndef VALUESCOPE_CONFIG_ACCESS_FLAGS_H_
#define VALUESCOPE_CONFIG_ACCESS_FLAGS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "config/server_config.h"

namespace valuescope::config {

// HOST:PORT or [IPV6]:PORT.
absl::Status ReadAddress(absl::string_view text, std::string& address);

// INVALID_ARGUMENT where addresses are the same; where the flags of TLS are not all there; where
// somebody on another machine could call without being asked who they are, or could read along as
// tokens pass by.
absl::Status CheckAccess(const ServerConfig& config);

// INVALID_ARGUMENT where files that the flags name cannot be read.
absl::Status CheckAccessFiles(const ServerConfig& config);

}  // namespace valuescope::config

#endif  // VALUESCOPE_CONFIG_ACCESS_FLAGS_H_
