// Which resources a message names: every string in it that is a resource name, such as vectors/ID,
// wherever the contract has one.
#ifndef VALUESCOPE_RPC_RESOURCE_NAMES_H_
#define VALUESCOPE_RPC_RESOURCE_NAMES_H_

#include <google/protobuf/message.h>

#include <cstddef>
#include <set>
#include <string>

namespace valuescope::rpc {

inline constexpr size_t kMostResourceNames = 64;

// Adds the names in `message`, up to kMostResourceNames, as far as they are among the first
// thousands of its parts: a message may hold a million responses.
void AddResourceNames(const google::protobuf::Message& message, std::set<std::string>& names);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_RESOURCE_NAMES_H_
