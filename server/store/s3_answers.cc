#include "store/s3_answers.h"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "store/blob_store.h"
#include "store/xml_element.h"

namespace valuescope::store {
namespace {

constexpr size_t kLongestCode = 64;
constexpr size_t kLongestKey = 1024;
constexpr size_t kLongestToken = 4096;

template <size_t kCount>
bool IsOneOf(absl::string_view code, const std::array<absl::string_view, kCount>& codes) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

// AWS, MinIO, Ceph and others have names of their own for a full disk or quota.
constexpr std::array<absl::string_view, 5> kFull = {
    "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage",
    "StorageFull"};
// Answered with a status of 400 to what may succeed a moment later.
constexpr std::array<absl::string_view, 7> kPassing = {"RequestTimeout",
                                                       "SlowDown",
                                                       "BadDigest",
                                                       "XAmzContentSHA256Mismatch",
                                                       "InvalidDigest",
                                                       "OperationAborted",
                                                       "ConditionalRequestConflict"};

struct Advice {
  absl::string_view code;
  absl::string_view check;
};
constexpr Advice kAdvice[] = {
    {"NoSuchBucket", "there is no such bucket: check --artifacts and --s3_endpoint"},
    {"InvalidBucketName", "the bucket's name is not allowed: check --artifacts"},
    {"InvalidAccessKeyId", "check the access key and that it belongs to --s3_endpoint"},
    {"SignatureDoesNotMatch", "check the secret key and --s3_region"},
    {"RequestTimeTooSkewed", "this machine's clock is wrong"},
    {"ExpiredToken", "the credentials have expired: renew them"},
    {"InvalidToken", "check the session token"},
    {"AuthorizationHeaderMalformed", "check --s3_region"},
    {"PermanentRedirect", "check --s3_region and --s3_endpoint"},
    {"IllegalLocationConstraintException", "check --s3_region"},
    {"NotImplemented", "it cannot do what is asked of it"},
};
constexpr absl::string_view kCheckRights =
    "check the credentials, and that they may list the bucket and get, put and delete objects "
    "under the prefix of --artifacts";

absl::string_view AdviceFor(const S3Answer& answer, absl::string_view code) {
  for (const Advice& advice : kAdvice) {
    if (advice.code == code) return advice.check;
  }
  if (answer.status == 301 || answer.status == 307) return "check --s3_region and --s3_endpoint";
  if (answer.status == 401 || answer.status == 403) return kCheckRights;
  if (answer.status == 400 && code.empty()) return "check the credentials and --s3_region";
  return "check that --s3_endpoint is an S3 store";
}

// The code in the body of an error; empty where it is none. Codes are words.
std::string CodeOf(const S3Answer& answer) {
  const absl::StatusOr<XmlElement> root = ParseXml(answer.body);
  if (!root.ok() || root->name != "Error") return "";
  const absl::string_view code = root->TextOf("Code");
  const bool is_word =
      code.size() <= kLongestCode && std::all_of(code.begin(), code.end(), [](char c) {
        return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.';
      });
  return is_word ? std::string(code) : "";
}

absl::Status Malformed(absl::string_view what) {
  return Unreachable(absl::StrCat("it does not answer as an S3 store does: ", what));
}

absl::StatusOr<XmlElement> ParseRoot(absl::string_view xml, absl::string_view name) {
  absl::StatusOr<XmlElement> root = ParseXml(xml);
  if (!root.ok() || root->name != name) return Malformed(absl::StrCat("no ", name));
  return root;
}

absl::StatusOr<absl::Time> TimeOfXml(absl::string_view text) {
  absl::Time time;
  if (text.size() > kLongestCode || !absl::ParseTime(absl::RFC3339_full, text, &time, nullptr)) {
    return Malformed("a time that is none");
  }
  return time;
}

}  // namespace

absl::string_view S3Answer::Header(absl::string_view name) const {
  const auto header = headers.find(std::string(name));
  return header == headers.end() ? absl::string_view() : header->second;
}

absl::StatusOr<absl::Time> S3Answer::Date() const { return TimeOfHeader(*this, "date"); }

bool IsPassing(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable &&
         DetailsOf(status).reason == "STORAGE_UNREACHABLE";
}

absl::Status Unreachable(absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kUnavailable, "STORAGE_UNREACHABLE",
                         absl::StrCat("the S3 store cannot be used: ", why));
}

absl::Status StatusOf(const S3Answer& answer) {
  const int status = answer.status;
  if (status >= 200 && status < 300) return absl::OkStatus();
  const std::string code = CodeOf(answer);
  const std::string said =
      absl::StrCat("HTTP ", status, code.empty() ? "" : absl::StrCat(" ", code));
  if (status == 507 || IsOneOf(code, kFull)) {
    return ErrorWithReason(absl::StatusCode::kUnavailable, "STORAGE_FULL",
                           absl::StrCat("the S3 store is full (", said, ")"));
  }
  if (status == 404 && code != "NoSuchBucket") return BlobNotFound();
  const bool cannot = status == 501 || code == "NotImplemented";
  if ((status >= 500 && !cannot) || status == 408 || status == 429 || IsOneOf(code, kPassing)) {
    return Unreachable(absl::StrCat("it answers with ", said));
  }
  return ErrorWithReason(
      absl::StatusCode::kUnavailable, "STORAGE_REFUSED",
      absl::StrCat("the S3 store refuses (", said, "): ", AdviceFor(answer, code)));
}

absl::StatusOr<absl::Time> TimeOfHeader(const S3Answer& answer, absl::string_view name) {
  const time_t seconds = curl_getdate(std::string(answer.Header(name)).c_str(), /*unused=*/nullptr);
  if (seconds < 0) return Malformed(absl::StrCat("no ", name));
  return absl::FromTimeT(seconds);
}

absl::StatusOr<int64_t> WholeSizeOf(const S3Answer& answer) {
  const absl::string_view range = answer.Header("content-range");
  int64_t size;
  if (!absl::StartsWith(range, "bytes ") || !absl::StrContains(range, '/') ||
      !absl::SimpleAtoi(range.substr(range.rfind('/') + 1), &size) || size < 0) {
    return Malformed("no content-range");
  }
  return size;
}

absl::StatusOr<S3Listing> ParseListing(absl::string_view xml, absl::string_view after) {
  VS_ASSIGN_OR_RETURN(const XmlElement root, ParseRoot(xml, "ListBucketResult"));
  S3Listing listing;
  std::string last(after);
  for (const XmlElement& child : root.children) {
    if (child.name != "Contents") continue;
    S3Object object{.key = std::string(child.TextOf("Key"))};
    if (object.key.size() > kLongestKey || object.key <= last) return Malformed("unordered keys");
    VS_ASSIGN_OR_RETURN(object.last_modified, TimeOfXml(child.TextOf("LastModified")));
    last = object.key;
    listing.objects.push_back(std::move(object));
  }
  if (root.TextOf("IsTruncated") != "true") return listing;
  listing.next = std::string(root.TextOf("NextContinuationToken"));
  if (listing.next.empty() || listing.next.size() > kLongestToken || listing.objects.empty()) {
    return Malformed("a list that goes on and says not where");
  }
  return listing;
}

absl::StatusOr<std::vector<S3Upload>> ParseUploads(absl::string_view xml) {
  VS_ASSIGN_OR_RETURN(const XmlElement root, ParseRoot(xml, "ListMultipartUploadsResult"));
  std::vector<S3Upload> uploads;
  for (const XmlElement& child : root.children) {
    if (child.name != "Upload") continue;
    S3Upload upload{.key = std::string(child.TextOf("Key")),
                    .id = std::string(child.TextOf("UploadId"))};
    if (upload.key.size() > kLongestKey || upload.id.size() > kLongestToken) {
      return Malformed("an upload that is none");
    }
    VS_ASSIGN_OR_RETURN(upload.initiated, TimeOfXml(child.TextOf("Initiated")));
    uploads.push_back(std::move(upload));
  }
  return uploads;
}

absl::StatusOr<std::string> ParseUploadId(absl::string_view xml) {
  VS_ASSIGN_OR_RETURN(const XmlElement root, ParseRoot(xml, "InitiateMultipartUploadResult"));
  const absl::string_view id = root.TextOf("UploadId");
  if (id.empty() || id.size() > kLongestToken) return Malformed("an upload without an id");
  return std::string(id);
}

absl::Status CheckCompleted(const S3Answer& answer) {
  if (ParseRoot(answer.body, "CompleteMultipartUploadResult").ok()) return absl::OkStatus();
  if (CodeOf(answer).empty()) return Malformed("no CompleteMultipartUploadResult");
  // As if it had said so at once, with a status of its own.
  S3Answer failed = answer;
  failed.status = 500;
  return StatusOf(failed);
}

}  // namespace valuescope::store
