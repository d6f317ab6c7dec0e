#include "rpc/message_bytes.h"

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/proto_buffer_writer.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "rpc/parsed_size.h"
#include "rpc/request_check.h"

namespace valuescope::rpc {
namespace {

absl::Status NotDecodable() {
  return ErrorWithReason(
      absl::StatusCode::kInvalidArgument, "MESSAGE_NOT_DECODABLE",
      "the message is not one of this method's requests, or one of its strings is not UTF-8");
}

}  // namespace

absl::StatusOr<int64_t> SizeOnceParsed(grpc::ByteBuffer& bytes,
                                       const google::protobuf::Descriptor& descriptor) {
  grpc::ProtoBufferReader reader(&bytes);
  const std::optional<int64_t> size = ParsedSize(descriptor, &reader);
  if (!size) return NotDecodable();
  return *size;
}

absl::Status ParseMessage(grpc::ByteBuffer& bytes, google::protobuf::Message& message) {
  {
    grpc::ProtoBufferReader reader(&bytes);
    if (!message.ParseFromZeroCopyStream(&reader)) return NotDecodable();
  }
  bytes.Clear();
  return CheckEnums(message);
}

grpc::ByteBuffer CopyOf(grpc::ByteBuffer& bytes) {
  grpc::Slice slice(bytes.Length());
  auto* to = const_cast<uint8_t*>(slice.begin());
  grpc::ProtoBufferReader reader(&bytes);
  const void* piece = nullptr;
  for (int size = 0; reader.Next(&piece, &size);) {
    to = std::copy_n(static_cast<const uint8_t*>(piece), size, to);
  }
  return grpc::ByteBuffer(&slice, 1);
}

grpc::ByteBuffer BytesOf(const google::protobuf::Message& message) {
  grpc::ByteBuffer bytes;
  bool owned = false;
  VS_CHECK((grpc::GenericSerialize<grpc::ProtoBufferWriter, google::protobuf::Message>(
                message, &bytes, &owned))
               .ok());
  return bytes;
}

}  // namespace valuescope::rpc
