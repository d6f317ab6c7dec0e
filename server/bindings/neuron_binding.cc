#include "bindings/bindings.h"
#include "services/neuron_service.h"
#include "valuescope/v1/neurons.grpc.pb.h"

namespace valuescope::bindings {

std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime, services::NeuronService* service) {
  using Service = services::NeuronService;
  auto binding = std::make_unique<rpc::RpcService>(v1::NeuronService::service_full_name(), runtime);
  binding->Unary("AttributeNeurons", rpc::Lane::kLong, service, &Service::AttributeNeurons);
  binding->Unary("ClassifyNeurons", rpc::Lane::kLong, service, &Service::ClassifyNeurons);
  binding->Unary("ScoreSelectivity", rpc::Lane::kLong, service, &Service::ScoreSelectivity);
  binding->Unary("CompareNeuronSets", rpc::Lane::kLong, service, &Service::CompareNeuronSets);
  binding->Unary("TestNeurons", rpc::Lane::kLong, service, &Service::TestNeurons);
  // Reads all of the set's columns to find the first.
  binding->Unary("GetNeuronSet", rpc::Lane::kLong, service, &Service::GetNeuronSet);
  binding->Unary("ListNeuronSets", rpc::Lane::kQuick, service, &Service::ListNeuronSets);
  binding->Unary("DeleteNeuronSet", rpc::Lane::kQuick, service, &Service::DeleteNeuronSet);
  binding->Unary("TopContexts", rpc::Lane::kLong, service, &Service::TopContexts);
  return binding;
}

}  // namespace valuescope::bindings
