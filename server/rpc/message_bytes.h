// Messages as they come and go: bytes that gRPC has, and what they are to the handlers.
#ifndef VALUESCOPE_RPC_MESSAGE_BYTES_H_
#define VALUESCOPE_RPC_MESSAGE_BYTES_H_

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace valuescope::rpc {

// What a message of this type takes once it is parsed from `bytes`, at least. INVALID_ARGUMENT
// (MESSAGE_NOT_DECODABLE) where they are none.
absl::StatusOr<int64_t> SizeOnceParsed(grpc::ByteBuffer& bytes,
                                       const google::protobuf::Descriptor& descriptor);

// Fills `message` from `bytes`, and lets go of them. INVALID_ARGUMENT where they are no such
// message (MESSAGE_NOT_DECODABLE) or an enum has a number that the contract does not know.
absl::Status ParseMessage(grpc::ByteBuffer& bytes, google::protobuf::Message& message);

// The same bytes in memory of their own.
grpc::ByteBuffer CopyOf(grpc::ByteBuffer& bytes);

grpc::ByteBuffer BytesOf(const google::protobuf::Message& message);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_MESSAGE_BYTES_H_
