// The flags that say where an S3 store of blobs is, read and checked as server_config.h has them.
#ifndef VALUESCOPE_CONFIG_S3_FLAGS_H_
#define VALUESCOPE_CONFIG_S3_FLAGS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "config/server_config.h"

namespace valuescope::config {

// DIR, or s3://BUCKET[/PREFIX].
absl::Status ReadArtifacts(absl::string_view text, ServerConfig& config);
absl::Status ReadS3Endpoint(absl::string_view text, ServerConfig& config);
absl::Status ReadS3Region(absl::string_view text, ServerConfig& config);
absl::Status ReadS3Addressing(absl::string_view text, ServerConfig& config);
absl::Status ReadS3CredentialsFile(absl::string_view text, ServerConfig& config);
absl::Status ReadS3CaFile(absl::string_view text, ServerConfig& config);

// INVALID_ARGUMENT where flags are given that --artifacts has no use for, or that tell a secret.
absl::Status CheckS3Flags(const ServerConfig& config);

// INVALID_ARGUMENT where files that the flags name cannot be read.
absl::Status CheckS3Files(const S3Config& s3);

}  // namespace valuescope::config

#endif  // VALUESCOPE_CONFIG_S3_FLAGS_H_
