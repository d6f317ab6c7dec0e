#include "bindings/bindings.h"
#include "services/evaluation_service.h"
#include "valuescope/v1/evaluation.grpc.pb.h"

namespace valuescope::bindings {

std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime,
                                      services::EvaluationService* service) {
  using Service = services::EvaluationService;
  auto binding =
      std::make_unique<rpc::RpcService>(v1::EvaluationService::service_full_name(), runtime);
  binding->Unary("AskQuestionnaire", rpc::Lane::kLong, service, &Service::AskQuestionnaire);
  binding->Unary("AnswerChoices", rpc::Lane::kLong, service, &Service::AnswerChoices);
  binding->Unary("ScoreTaggedResponses", rpc::Lane::kLong, service, &Service::ScoreTaggedResponses);
  binding->Unary("JudgeResponses", rpc::Lane::kLong, service, &Service::JudgeResponses);
  binding->Unary("CompareResponses", rpc::Lane::kLong, service, &Service::CompareResponses);
  binding->Unary("MeasureTexts", rpc::Lane::kLong, service, &Service::MeasureTexts);
  return binding;
}

}  // namespace valuescope::bindings
