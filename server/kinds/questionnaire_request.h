// A questionnaire as a request has it: its options and items looked at, those of one language
// chosen, and each written as the user's turn, in each order of the options.
#ifndef VALUESCOPE_KINDS_QUESTIONNAIRE_REQUEST_H_
#define VALUESCOPE_KINDS_QUESTIONNAIRE_REQUEST_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "kinds/evaluation_request.h"
#include "kinds/saved_work.pb.h"
#include "kinds/sources.h"
#include "rpc/call_context.h"
#include "services/label_reading.h"
#include "services/request_codec.h"
#include "text/named_option.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {

// INVALID_ARGUMENT naming the field, of what can be told without items.
absl::StatusOr<SavedQuestionnaire> QuestionnaireOf(const v1::AskQuestionnaireRequest& request,
                                                   const engine::ServedModel& model);

// The labels of the options. FAILED_PRECONDITION, reason UNREADABLE_LABELS.
absl::StatusOr<services::LabelTokens> LabelsOf(const SavedQuestionnaire& questionnaire,
                                               const engine::ServedModel& model);

// What finds the option that an answer in words names, of each form: its index among the labels.
// INVALID_ARGUMENT naming "options[i]...".
absl::StatusOr<std::vector<text::NamedOption>> NamersOf(const SavedQuestionnaire& questionnaire);

// Adds every item of the language. INVALID_ARGUMENT naming "items[i]...", "artifact" with the line,
// or "language".
absl::Status AddItems(const v1::AskQuestionnaireRequest& request,
                      const SavedQuestionnaire& questionnaire, const AskingShape& shape,
                      const engine::ServedModel& model, const rpc::CallContext& context,
                      const Sources& sources, services::UsedResources& used,
                      EvaluationWriter& writer);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_QUESTIONNAIRE_REQUEST_H_
