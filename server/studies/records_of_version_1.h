// Records of format 1, which servers wrote before the contract's messages were the records: JSON
// with the words of named_content.h, a provenance within as the text of a JSON object of its own.
// They are read straight into messages and stay as they are.
#ifndef VALUESCOPE_STUDIES_RECORDS_OF_VERSION_1_H_
#define VALUESCOPE_STUDIES_RECORDS_OF_VERSION_1_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/neurons.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::studies {

// DATA_LOSS for text of another format.
absl::StatusOr<v1::Vector> VectorOfVersion1(absl::string_view json);
absl::StatusOr<v1::NeuronSet> NeuronSetOfVersion1(absl::string_view json);
absl::StatusOr<v1::Provenance> ProvenanceOfVersion1(absl::string_view json);

// Of an artifact's metadata; an empty message where it tells none.
absl::StatusOr<v1::Provenance> ArtifactProvenanceOfVersion1(absl::string_view json);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_RECORDS_OF_VERSION_1_H_
