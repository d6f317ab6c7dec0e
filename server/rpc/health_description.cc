#include "rpc/health_description.h"

#include "grpc/health/v1/health.pb.h"

namespace valuescope::rpc {

// Whoever asks for one of its messages has the file linked.
void DescribeHealth() { grpc::health::v1::HealthCheckRequest::descriptor(); }

}  // namespace valuescope::rpc
