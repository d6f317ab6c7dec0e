#include "store/s3_upload.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::store {
namespace {

std::string Base64OfHex(absl::string_view digest) {
  return absl::Base64Escape(absl::HexStringToBytes(digest));
}

// `size` bytes of the blob's file from `offset` on.
S3Request SendingBytes(absl::string_view operation, const std::string& key, const StagedBlob& blob,
                       int64_t offset, int64_t size, const std::string& digest) {
  S3Request request{.operation = operation, .method = "PUT", .key = key};
  request.body = {.size = size, .sha256 = digest};
  request.body.read = [file = blob.file, offset](int64_t from, std::span<char> out) {
    return file->Read(offset + from, out);
  };
  request.headers = {{"x-amz-checksum-sha256", Base64OfHex(digest)}};
  return request;
}

// Where the store says what it received.
absl::Status CheckReceived(const S3Answer& answer, const std::string& digest) {
  const absl::string_view received = answer.Header("x-amz-checksum-sha256");
  if (received.empty() || received == Base64OfHex(digest)) return absl::OkStatus();
  return Unreachable("it received other bytes than were sent");
}

absl::StatusOr<std::string> BeginUpload(S3Client& client, const std::string& key) {
  S3Request request{.operation = "create_upload", .method = "POST", .key = key};
  request.query = {{"uploads", ""}};
  request.headers = {{"x-amz-checksum-algorithm", "SHA256"}};
  VS_ASSIGN_OR_RETURN(const S3Answer answer, client.Send(request));
  return ParseUploadId(answer.body);
}

// What CompleteMultipartUpload says of one part.
std::string PartXml(size_t number, absl::string_view tag, absl::string_view digest) {
  const std::string escaped =
      absl::StrReplaceAll(tag, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
  return absl::StrCat("<Part><ChecksumSHA256>", Base64OfHex(digest), "</ChecksumSHA256><ETag>",
                      escaped, "</ETag><PartNumber>", number, "</PartNumber></Part>");
}

// The list of parts with which the upload is completed.
absl::StatusOr<std::string> SendParts(S3Client& client, const std::string& key,
                                      const std::string& id, const StagedBlob& blob) {
  const int64_t part_bytes = client.options().part_bytes;
  std::string parts;
  for (size_t i = 0; i < blob.part_digests.size(); ++i) {
    const int64_t offset = static_cast<int64_t>(i) * part_bytes;
    S3Request request =
        SendingBytes("upload_part", key, blob, offset, std::min(part_bytes, blob.size - offset),
                     blob.part_digests[i]);
    request.query = {{"partNumber", absl::StrCat(i + 1)}, {"uploadId", id}};
    VS_ASSIGN_OR_RETURN(const S3Answer answer, client.Send(request));
    VS_RETURN_IF_ERROR(CheckReceived(answer, blob.part_digests[i]));
    absl::StrAppend(&parts, PartXml(i + 1, answer.Header("etag"), blob.part_digests[i]));
  }
  return absl::StrCat("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
                      parts, "</CompleteMultipartUpload>");
}

absl::Status CompleteUpload(S3Client& client, const std::string& key, const std::string& id,
                            std::string parts) {
  S3Request request{.operation = "complete_upload", .method = "POST", .key = key};
  request.query = {{"uploadId", id}};
  request.body = S3Body::OfText(std::move(parts));
  S3Client::Attempts attempts(&client);
  while (true) {
    const absl::StatusOr<S3Answer> answer = client.Try(request, attempts);
    const absl::Status status = answer.ok() ? CheckCompleted(*answer) : answer.status();
    // An attempt whose answer was lost may have completed it; whoever publishes the blob looks.
    if (!attempts.first() && absl::IsNotFound(status)) return absl::OkStatus();
    if (!attempts.Again(status)) return status;
  }
}

absl::Status UploadInParts(S3Client& client, const std::string& key, const StagedBlob& blob) {
  VS_ASSIGN_OR_RETURN(const std::string id, BeginUpload(client, key));
  absl::StatusOr<std::string> parts = SendParts(client, key, id, blob);
  const absl::Status status =
      parts.ok() ? CompleteUpload(client, key, id, *std::move(parts)) : parts.status();
  // What cannot be given up now is found by ClearUnfinished.
  if (!status.ok()) AbortUpload(client, key, id).IgnoreError();
  if (!absl::IsNotFound(status)) return status;
  return Unreachable("an upload has vanished");
}

}  // namespace

absl::Status Upload(S3Client& client, const std::string& key, const StagedBlob& blob) {
  if (blob.part_digests.size() > 1) return UploadInParts(client, key, blob);
  const S3Request request = SendingBytes("put", key, blob, /*offset=*/0, blob.size, blob.digest);
  VS_ASSIGN_OR_RETURN(const S3Answer answer, client.Send(request));
  return CheckReceived(answer, blob.digest);
}

absl::Status AbortUpload(S3Client& client, const std::string& key, const std::string& id) {
  S3Request request{.operation = "abort_upload", .method = "DELETE", .key = key};
  request.query = {{"uploadId", id}};
  const absl::Status status = client.Try(request, S3Client::Attempts(&client)).status();
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

}  // namespace valuescope::store
