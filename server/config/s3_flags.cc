#include "config/s3_flags.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "config/read_values.h"

namespace valuescope::config {
namespace {

constexpr char kScheme[] = "s3://";
constexpr char kForms[] =
    "must be a directory or s3://BUCKET/PREFIX: a bucket of 3 to 63 lower-case letters, digits, "
    "'.' and '-', and a prefix of letters, digits, '.', '_', '-' and single '/'";
constexpr size_t kLongestPrefix = 512;
constexpr size_t kLongestRegion = 32;

// Letters and digits, in lower case where `lower`, and `others`.
bool IsMadeOf(absl::string_view text, absl::string_view others, bool lower) {
  return std::all_of(text.begin(), text.end(), [&](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return absl::ascii_isdigit(byte) || absl::ascii_islower(byte) ||
           (!lower && absl::ascii_isupper(byte)) || absl::StrContains(others, c);
  });
}

bool IsBucket(absl::string_view text) {
  return text.size() >= 3 && text.size() <= 63 && IsMadeOf(text, ".-", /*lower=*/true) &&
         absl::ascii_isalnum(static_cast<unsigned char>(text.front())) &&
         absl::ascii_isalnum(static_cast<unsigned char>(text.back()));
}

bool IsPrefix(absl::string_view text) {
  if (text.empty()) return true;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '/');
  return text.size() <= kLongestPrefix && IsMadeOf(text, "._-/", /*lower=*/false) &&
         std::none_of(parts.begin(), parts.end(), [](absl::string_view part) {
           return part.empty() || part == "." || part == "..";
         });
}

// HOST, [IPV6], and either with :PORT.
bool IsHost(absl::string_view text) {
  const size_t bracket = text.rfind(']');
  const size_t colon = text.find(':', bracket == absl::string_view::npos ? 0 : bracket);
  const absl::string_view host = text.substr(0, colon);
  int64_t port;
  if (colon != absl::string_view::npos &&
      !ReadInteger(text.substr(colon + 1), 1, 65535, port).ok()) {
    return false;
  }
  if (!absl::StartsWith(host, "[")) return !host.empty() && IsMadeOf(host, ".-", /*lower=*/false);
  return absl::EndsWith(host, "]") && host.size() > 2 &&
         IsMadeOf(host.substr(1, host.size() - 2), ":.", /*lower=*/false);
}

}  // namespace

// AWS's certificates cover one label before the host.
bool S3Config::BucketInHost() const {
  if (!addressing.empty()) return addressing == "host";
  return endpoint.empty() && !absl::StrContains(bucket, '.');
}

absl::Status ReadArtifacts(absl::string_view text, ServerConfig& config) {
  config.artifacts.clear();
  config.s3.bucket.clear();
  config.s3.prefix.clear();
  if (text.empty()) return Refuse("must not be empty");
  if (!absl::ConsumePrefix(&text, kScheme)) {
    // A directory of this name is nothing that anybody means.
    if (absl::StartsWithIgnoreCase(text, "s3:")) return Refuse(kForms);
    config.artifacts = std::string(text);
    return absl::OkStatus();
  }
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(absl::StripSuffix(text, "/"), absl::MaxSplits('/', 1));
  if (!IsBucket(parts.first) || !IsPrefix(parts.second)) {
    return Refuse(kForms);
  }
  config.s3.bucket = std::string(parts.first);
  config.s3.prefix = std::string(parts.second);
  return absl::OkStatus();
}

absl::Status ReadS3Endpoint(absl::string_view text, ServerConfig& config) {
  absl::string_view host = text;
  const bool has_scheme =
      absl::ConsumePrefix(&host, "https://") || absl::ConsumePrefix(&host, "http://");
  // What stands before an '@' is a secret: CheckS3Flags refuses it without repeating it.
  const bool has_user = absl::StrContains(host, '@');
  if (!has_scheme || (!has_user && !IsHost(host))) {
    return Refuse(
        "must be http://HOST[:PORT] or https://HOST[:PORT], a port from 1 to 65535, with nothing "
        "behind it");
  }
  config.s3.endpoint = std::string(text);
  return absl::OkStatus();
}

absl::Status ReadS3Region(absl::string_view text, ServerConfig& config) {
  if (text.empty() || text.size() > kLongestRegion || !IsMadeOf(text, "-", /*lower=*/true)) {
    return Refuse("must be a region such as eu-central-1");
  }
  config.s3.region = std::string(text);
  return absl::OkStatus();
}

absl::Status ReadS3Addressing(absl::string_view text, ServerConfig& config) {
  if (text != "path" && text != "host") return Refuse("must be path or host");
  config.s3.addressing = std::string(text);
  return absl::OkStatus();
}

absl::Status ReadS3CredentialsFile(absl::string_view text, ServerConfig& config) {
  if (text.empty()) return Refuse("must not be empty");
  config.s3.credentials_file = std::string(text);
  return absl::OkStatus();
}

absl::Status ReadS3CaFile(absl::string_view text, ServerConfig& config) {
  if (text.empty()) return Refuse("must not be empty");
  config.s3.ca_file = std::string(text);
  return absl::OkStatus();
}

absl::Status CheckS3Flags(const ServerConfig& config) {
  const S3Config& s3 = config.s3;
  if (absl::StrContains(s3.endpoint, '@')) {
    return Refuse(
        "--s3_endpoint must not have credentials in its URL, which others can see in the list of "
        "processes: put them into the file of --s3_credentials_file, or into AWS_ACCESS_KEY_ID "
        "and AWS_SECRET_ACCESS_KEY");
  }
  if (!s3.bucket.empty()) return absl::OkStatus();
  for (const auto& [flag, value] :
       {std::pair("--s3_endpoint", &s3.endpoint), std::pair("--s3_addressing", &s3.addressing),
        std::pair("--s3_credentials_file", &s3.credentials_file),
        std::pair("--s3_ca_file", &s3.ca_file)}) {
    if (!value->empty()) {
      return Refuse(absl::StrCat(flag, " is for --artifacts=s3://BUCKET/PREFIX alone"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckS3Files(const S3Config& s3) {
  for (const auto& [flag, file] : {std::pair("--s3_credentials_file", &s3.credentials_file),
                                   std::pair("--s3_ca_file", &s3.ca_file)}) {
    VS_RETURN_IF_ERROR(CheckReadable(flag, *file));
  }
  return absl::OkStatus();
}

}  // namespace valuescope::config
