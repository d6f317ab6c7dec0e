// How a resource keeps what it is: a message of the contract, serialised, as its metadata. What the
// store tells (name, owner, digest, times), what the blob holds and what both together give is left
// out of it. Nothing that was read is written again, so fields that a newer server wrote stay.
//
// Resource::format_version tells the format of the metadata:
//   1  JSON; see records_of_version_1.h
//   2  the message: Vector, NeuronSet, or of an artifact its Provenance; empty where it has none
#ifndef VALUESCOPE_STUDIES_STORED_RECORD_H_
#define VALUESCOPE_STUDIES_STORED_RECORD_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "store/store.h"

namespace valuescope::studies {

inline constexpr int kRecordVersion = 2;

// Records are read in lists. What a request adds to one is small, but a result derived from many
// vectors gathers their seeds and judges, and so on without end.
inline constexpr int64_t kMostRecordBytes = int64_t{256} << 10;

// RESOURCE_EXHAUSTED (reason RECORD_TOO_LARGE) above that.
absl::Status PutRecord(const google::protobuf::Message& record, store::Resource& resource);

// DATA_LOSS for metadata of another version or another kind.
absl::Status ParseRecord(const store::Resource& resource, google::protobuf::Message& record);

// DATA_LOSS, saying what is wrong with stored metadata.
absl::Status DamagedRecord(absl::string_view what);

// The record of either version; `of_version_1` reads JSON.
template <typename Record>
absl::StatusOr<Record> RecordOf(const store::Resource& resource,
                                absl::StatusOr<Record> (*of_version_1)(absl::string_view json)) {
  if (resource.format_version == 1) return of_version_1(resource.metadata);
  Record record;
  if (absl::Status status = ParseRecord(resource, record); !status.ok()) return status;
  return record;
}

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_STORED_RECORD_H_
