#include "studies/stored_record.h"

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::studies {

absl::Status PutRecord(const google::protobuf::Message& record, store::Resource& resource) {
  const auto bytes = static_cast<int64_t>(record.ByteSizeLong());
  if (bytes > kMostRecordBytes) {
    return NeverFits(
        "RECORD_TOO_LARGE",
        absl::StrCat("what is recorded of the result takes ", bytes, " bytes, allowed are at most ",
                     kMostRecordBytes, "; derive it from fewer vectors"));
  }
  resource.format_version = kRecordVersion;
  resource.metadata = record.SerializeAsString();
  return absl::OkStatus();
}

absl::Status ParseRecord(const store::Resource& resource, google::protobuf::Message& record) {
  if (resource.format_version != kRecordVersion) {
    return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_VERSION",
                           "stored metadata was written by another version of the server");
  }
  if (static_cast<int64_t>(resource.metadata.size()) > kMostRecordBytes ||
      !record.ParseFromString(resource.metadata)) {
    return DamagedRecord("it is no record of its kind");
  }
  return absl::OkStatus();
}

absl::Status DamagedRecord(absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_DAMAGED",
                         absl::StrCat("stored metadata is damaged: ", what));
}

}  // namespace valuescope::studies
