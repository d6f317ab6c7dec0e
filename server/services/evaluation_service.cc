#include "services/evaluation_service.h"

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::services {

absl::Status EvaluationService::AskQuestionnaire(const rpc::CallContext& context,
                                                 const v1::AskQuestionnaireRequest& request,
                                                 v1::AskQuestionnaireResponse* response) {
  return Answer("ask_questionnaire", context, request, response);
}

absl::Status EvaluationService::AnswerChoices(const rpc::CallContext& context,
                                              const v1::AnswerChoicesRequest& request,
                                              v1::AnswerChoicesResponse* response) {
  return Answer("answer_choices", context, request, response);
}

absl::Status EvaluationService::ScoreTaggedResponses(const rpc::CallContext& context,
                                                     const v1::ScoreTaggedResponsesRequest& request,
                                                     v1::ScoreTaggedResponsesResponse* response) {
  return Answer("score_tagged_responses", context, request, response);
}

absl::Status EvaluationService::JudgeResponses(const rpc::CallContext& context,
                                               const v1::JudgeResponsesRequest& request,
                                               v1::JudgeResponsesResponse* response) {
  return Answer("judge_responses", context, request, response);
}

absl::Status EvaluationService::CompareResponses(const rpc::CallContext& context,
                                                 const v1::CompareResponsesRequest& request,
                                                 v1::CompareResponsesResponse* response) {
  return Answer("compare_responses", context, request, response);
}

absl::Status EvaluationService::MeasureTexts(const rpc::CallContext& context,
                                             const v1::MeasureTextsRequest& request,
                                             v1::MeasureTextsResponse* response) {
  return Answer("measure_texts", context, request, response);
}

absl::Status EvaluationService::Answer(absl::string_view kind, const rpc::CallContext& context,
                                       const google::protobuf::Message& request,
                                       google::protobuf::Message* response) const {
  if (kinds_->Find(kind) != nullptr) return calls_.AnswerAnew(kind, context, request, response);
  return ErrorWithReason(absl::StatusCode::kUnimplemented, "OPTION_NOT_SERVED",
                         absl::StrCat("this server does not offer ", kind));
}

}  // namespace valuescope::services
