#include "config/access_flags.h"

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "config/read_values.h"

namespace valuescope::config {
namespace {

// Host and port of HOST:PORT, [IPV6]:PORT.
absl::StatusOr<std::pair<std::string, int64_t>> SplitAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  int64_t port;
  if (colon == absl::string_view::npos || colon == 0 ||
      !ReadInteger(text.substr(colon + 1), 0, 65535, port).ok()) {
    return Refuse("must be HOST:PORT with a port from 0 to 65535 (0 takes a free one)");
  }
  absl::string_view host = text.substr(0, colon);
  if (absl::StartsWith(host, "[") != absl::EndsWith(host, "]") ||
      (!absl::StartsWith(host, "[") && absl::StrContains(host, ':'))) {
    return Refuse("must put an IPv6 address in brackets, such as [::1]:50051");
  }
  if (absl::StartsWith(host, "[")) host = host.substr(1, host.size() - 2);
  return std::make_pair(std::string(host), port);
}

bool IsLoopbackHost(absl::string_view host) {
  if (host == "localhost" || host == "::1") return true;
  const std::vector<std::string> parts = absl::StrSplit(host, '.');
  if (parts.size() != 4 || parts[0] != "127") return false;
  for (const std::string& part : parts) {
    int64_t value;
    if (!ReadInteger(part, 0, 255, value).ok()) return false;
  }
  return true;
}

bool IsLoopback(const std::string& address) {
  const auto host_and_port = SplitAddress(address);
  return host_and_port.ok() && IsLoopbackHost(host_and_port->first);
}

absl::Status CheckReachable(absl::string_view flag, const std::string& address,
                            const ServerConfig& config) {
  const bool guarded = config.HasTls() && config.Authenticates();
  if (address.empty() || config.insecure || guarded || IsLoopback(address)) {
    return absl::OkStatus();
  }
  return Refuse(
      absl::StrCat("--", flag, "=", address,
                   " can be reached from other machines and there is no authentication; "
                   "listen on 127.0.0.1, or pass --insecure if everybody who can reach it "
                   "may use it, or say who may by --tokens or --tls_client_ca, with "
                   "--tls_certificate and --tls_key"));
}

absl::Status CheckDistinct(const ServerConfig& config) {
  const std::vector<std::pair<const char*, const std::string*>> listeners = {
      {"--listen", &config.listen},
      {"--metrics_listen", &config.metrics_listen},
      {"--health_listen", &config.health_listen}};
  for (size_t i = 0; i < listeners.size(); ++i) {
    const std::string& address = *listeners[i].second;
    for (size_t j = 0; j < i && !absl::EndsWith(address, ":0") && !address.empty(); ++j) {
      if (address == *listeners[j].second) {
        return Refuse(absl::StrCat(listeners[j].first, " and ", listeners[i].first,
                                   " must not be the same address, ", address));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadAddress(absl::string_view text, std::string& address) {
  VS_RETURN_IF_ERROR(SplitAddress(text).status());
  address = std::string(text);
  return absl::OkStatus();
}

absl::Status CheckAccess(const ServerConfig& config) {
  VS_RETURN_IF_ERROR(CheckDistinct(config));
  if (config.tls_key.empty() && config.HasTls()) {
    return Refuse("--tls_certificate needs --tls_key, the file of its private key");
  }
  if (!config.tls_key.empty() && !config.HasTls()) {
    return Refuse("--tls_key needs --tls_certificate, the file of what it is the key of");
  }
  if (!config.tls_client_ca.empty() && !config.HasTls()) {
    return Refuse("--tls_client_ca needs --tls_certificate and --tls_key");
  }
  if (config.jwt_keys.empty() != config.jwt_issuer.empty()) {
    return Refuse("--jwt_keys and --jwt_issuer need each other: keys, and whose they are");
  }
  if (!config.jwt_keys.empty() && config.tokens.empty()) {
    return Refuse(
        "--jwt_keys needs --tokens, whose lines with sub say who the tokens' subjects are");
  }
  if (!config.tokens.empty() && !config.HasTls() && !IsLoopback(config.listen)) {
    return Refuse(absl::StrCat(
        "--tokens must not be sent in the clear to --listen=", config.listen,
        ", where others could read them on their way: give --tls_certificate and --tls_key too, or "
        "listen on 127.0.0.1"));
  }
  VS_RETURN_IF_ERROR(CheckReachable("listen", config.listen, config));
  return CheckReachable("metrics_listen", config.metrics_listen, config);
}

absl::Status CheckAccessFiles(const ServerConfig& config) {
  for (const auto& [flag, file] :
       {std::pair("--tokens", &config.tokens), std::pair("--jwt_keys", &config.jwt_keys),
        std::pair("--tls_certificate", &config.tls_certificate),
        std::pair("--tls_key", &config.tls_key),
        std::pair("--tls_client_ca", &config.tls_client_ca)}) {
    VS_RETURN_IF_ERROR(CheckReadable(flag, *file));
  }
  return absl::OkStatus();
}

}  // namespace valuescope::config
