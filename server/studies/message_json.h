// Messages of the contract as JSON, for people and for digests: written from their descriptors, in
// the contract's own names, 64-bit integers as numbers, bytes as their SHA-256. Objects have their
// keys in order of field numbers, maps in order of their keys, so equal messages give equal text.
#ifndef VALUESCOPE_STUDIES_MESSAGE_JSON_H_
#define VALUESCOPE_STUDIES_MESSAGE_JSON_H_

#include <initializer_list>
#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "nlohmann/json.hpp"

namespace valuescope::studies {

// How a message is put into words. The defaults are those for people: a number that is 0 is said,
// what else is unset is left out.
struct JsonWording {
  // Whether a field that is not set is said all the same: as 0, "" or [], or as null where unset
  // means something.
  bool (*says_unset)(const google::protobuf::FieldDescriptor& field);
  std::string (*key)(const google::protobuf::FieldDescriptor& field);
  nlohmann::ordered_json (*enum_value)(const google::protobuf::EnumValueDescriptor& value);
  // Numbers by their digests: a Tensor stands as its shape and the SHA-256 of its bytes, and a list
  // that takes much room as its length and the SHA-256 of its JSON.
  bool abridged = false;

  JsonWording();
};

nlohmann::ordered_json MessageToJson(const google::protobuf::Message& message,
                                     const JsonWording& wording = JsonWording());

// The same of each message of a list.
template <typename Messages>
nlohmann::ordered_json ListToJson(const Messages& messages,
                                  const JsonWording& wording = JsonWording()) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& message : messages) list.push_back(MessageToJson(message, wording));
  return list;
}

// What a request chose, as a record keeps it: a JSON object, abridged, because records are read in
// lists. Fields of the request named in `without` are left out: what names the result or its
// inputs, and what is recorded elsewhere. So is what is unset, whose default the contract tells.
std::string RecordOfRequest(const google::protobuf::Message& request,
                            std::initializer_list<absl::string_view> without);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_MESSAGE_JSON_H_
