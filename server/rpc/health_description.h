// The health service's description, for reflection: gRPC answers the service without one, so tools
// that know nothing but reflection could list it and not call it.
#ifndef VALUESCOPE_RPC_HEALTH_DESCRIPTION_H_
#define VALUESCOPE_RPC_HEALTH_DESCRIPTION_H_

namespace valuescope::rpc {

// Makes the description part of the program.
void DescribeHealth();

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_HEALTH_DESCRIPTION_H_
