// What makes a request that creates something safe to send twice: its request_id, and a digest of
// what it asks for.
#ifndef VALUESCOPE_SERVICES_IDEMPOTENCY_H_
#define VALUESCOPE_SERVICES_IDEMPOTENCY_H_

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "base/sha256.h"
#include "store/store.h"

namespace valuescope::services {

// The same message gives the same bytes, maps included.
template <typename Message>
std::string DeterministicBytes(const Message& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

// INVALID_ARGUMENT naming "request_id" unless it is empty or a UUID of 36 characters.
template <typename Request>
absl::StatusOr<store::IdempotencyKey> KeyOf(absl::string_view method, Request request) {
  const std::string id = request.request_id();
  bool uuid = id.size() == 36;
  for (size_t i = 0; uuid && i < id.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    uuid = dash ? id[i] == '-' : absl::ascii_isxdigit(static_cast<unsigned char>(id[i]));
  }
  if (!id.empty() && !uuid)
    return InvalidField("request_id", "must be a UUID in its 36-character form");
  if (id.empty()) return store::IdempotencyKey{};
  request.clear_request_id();
  return store::IdempotencyKey{
      .request_id = absl::AsciiStrToLower(id),
      .request_digest = Sha256Hex(absl::StrCat(method, "\n", DeterministicBytes(request)))};
}

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_IDEMPOTENCY_H_
