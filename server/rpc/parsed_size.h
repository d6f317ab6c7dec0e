// What a message takes in memory once it is parsed, told from its bytes on the wire before it is:
// two bytes there may be an empty message that takes two hundred, so that a short request could
// fill the memory of the server by being read.
#ifndef VALUESCOPE_RPC_PARSED_SIZE_H_
#define VALUESCOPE_RPC_PARSED_SIZE_H_

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/zero_copy_stream.h>

#include <cstdint>
#include <optional>

namespace valuescope::rpc {

// Bytes of memory, those that the allocator adds included, that hold the message in the whole of
// `wire` once it is parsed. Never less than that, and rather more: lists as if each had just
// doubled its room, every value where a later one takes its place. Not counted: while an array
// doubles, the one before it, half as large, is there for a moment too; what reflection makes of
// maps that it is asked to list.
//
// nullopt where the parser would refuse the bytes for their form. Of those that have an answer it
// may still refuse some: text is not looked at.
//
// One pass over tags and lengths that keeps nothing and skips text and tensors; safe to call from
// several threads. `type` is a proto3 message that has a generated class.
std::optional<int64_t> ParsedSize(const google::protobuf::Descriptor& type,
                                  google::protobuf::io::ZeroCopyInputStream* wire);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_PARSED_SIZE_H_
