// Which method of which service answers an RPC, and on whose threads: the only place where a
// service of the contract and one of gRPC meet.
#ifndef VALUESCOPE_BINDINGS_BINDINGS_H_
#define VALUESCOPE_BINDINGS_BINDINGS_H_

#include <memory>

#include "rpc/call_runtime.h"
#include "rpc/rpc_service.h"

namespace valuescope::services {

class ActivationService;
class ArtifactService;
class EvaluationService;
class GenerationService;
class JobService;
class ModelService;
class NeuronService;
class TenantService;
class VectorService;

}  // namespace valuescope::services

namespace valuescope::bindings {

// To be registered with a grpc::ServerBuilder. Both arguments outlive what is returned.
std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime,
                                      services::ActivationService* service);
std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime,
                                      services::ArtifactService* service);
std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime,
                                      services::EvaluationService* service);
std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime,
                                      services::GenerationService* service);
std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime, services::JobService* service);
std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime, services::ModelService* service);
std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime, services::NeuronService* service);
std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime, services::TenantService* service);
std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime, services::VectorService* service);

}  // namespace valuescope::bindings

#endif  // VALUESCOPE_BINDINGS_BINDINGS_H_
