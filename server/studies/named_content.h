// The text of a record that a digest hashes: JSON with sorted keys and the words of the first
// records. Bytes of a message are no such text: equal messages may differ in them. What exists must
// keep its name, so this text never changes: a field that the contract gets later is part of it
// only where it is set. People read the same text of a provenance in the summary of a job.
#ifndef VALUESCOPE_STUDIES_NAMED_CONTENT_H_
#define VALUESCOPE_STUDIES_NAMED_CONTENT_H_

#include <string>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/repeated_field.h"
#include "nlohmann/json.hpp"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/neurons.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::studies {

std::string NamedContent(const v1::Provenance& provenance);
std::string NamedContent(const google::protobuf::RepeatedPtrField<v1::VectorStatistics>& rows);
std::string NamedContent(const google::protobuf::RepeatedPtrField<v1::NeuronSetLayer>& layers);
std::string NamedContent(const google::protobuf::RepeatedPtrField<std::string>& texts);

// What the first records call a field and a value: "RESIDUAL_POST", "response mean", "float32", the
// number of a class; "" for UNSPECIFIED.
std::string FirstKeyOf(const google::protobuf::FieldDescriptor& field);
nlohmann::ordered_json FirstWordOf(const google::protobuf::EnumValueDescriptor& value);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_NAMED_CONTENT_H_
