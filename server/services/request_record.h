// What a request chose, as a record keeps it: the JSON mapping of the message, written from its
// descriptor, in the contract's own names and in order of field numbers. Records are read in lists,
// so numbers do not travel in them: a Tensor stands as its shape and the SHA-256 of its bytes, and
// a list that takes much room as its length and the SHA-256 of its JSON.
#ifndef VALUESCOPE_SERVICES_REQUEST_RECORD_H_
#define VALUESCOPE_SERVICES_REQUEST_RECORD_H_

#include <initializer_list>
#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace valuescope::services {

// A JSON object. Fields of the request named in `without` are left out: what names the result or
// its inputs, and what is recorded elsewhere. So is what is unset, whose default the contract
// tells. Equal requests give equal text.
std::string RecordOfRequest(const google::protobuf::Message& request,
                            std::initializer_list<absl::string_view> without);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_REQUEST_RECORD_H_
