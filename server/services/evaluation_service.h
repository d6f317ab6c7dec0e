// EvaluationService: what models say under steering, and what is to be measured of texts. Every
// call is work of a kind (kinds/), which leaves nothing but its answer.
#ifndef VALUESCOPE_SERVICES_EVALUATION_SERVICE_H_
#define VALUESCOPE_SERVICES_EVALUATION_SERVICE_H_

#include "rpc/call_context.h"
#include "services/calls_at_once.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::services {

class EvaluationService {
 public:
  // All outlive the service.
  EvaluationService(store::Store* store, store::BlobStore* blobs, const KindRegistry* kinds)
      : kinds_(kinds), calls_(kinds, store, blobs) {}

  absl::Status AskQuestionnaire(const rpc::CallContext& context,
                                const v1::AskQuestionnaireRequest& request,
                                v1::AskQuestionnaireResponse* response);
  absl::Status AnswerChoices(const rpc::CallContext& context,
                             const v1::AnswerChoicesRequest& request,
                             v1::AnswerChoicesResponse* response);
  absl::Status ScoreTaggedResponses(const rpc::CallContext& context,
                                    const v1::ScoreTaggedResponsesRequest& request,
                                    v1::ScoreTaggedResponsesResponse* response);
  absl::Status JudgeResponses(const rpc::CallContext& context,
                              const v1::JudgeResponsesRequest& request,
                              v1::JudgeResponsesResponse* response);
  absl::Status CompareResponses(const rpc::CallContext& context,
                                const v1::CompareResponsesRequest& request,
                                v1::CompareResponsesResponse* response);
  absl::Status MeasureTexts(const rpc::CallContext& context, const v1::MeasureTextsRequest& request,
                            v1::MeasureTextsResponse* response);

 private:
  // UNIMPLEMENTED where this server has no such kind.
  absl::Status Answer(absl::string_view kind, const rpc::CallContext& context,
                      const google::protobuf::Message& request,
                      google::protobuf::Message* response) const;

  const KindRegistry* const kinds_;
  const CallsAtOnce calls_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_EVALUATION_SERVICE_H_
