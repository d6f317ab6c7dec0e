// The inputs of an extraction, from a request that CheckExtractionOptions found no fault with: its
// labelled responses, or how they will be generated, checked as far as can be before anything runs.
#ifndef VALUESCOPE_KINDS_EXTRACTION_INPUTS_H_
#define VALUESCOPE_KINDS_EXTRACTION_INPUTS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "kinds/response_work.h"
#include "kinds/sources.h"
#include "rpc/call_context.h"
#include "services/kind.h"
#include "services/request_codec.h"
#include "studies/response_means.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::kinds {

// `plan` says what is read of each response. What the inputs are of is added to `used`. The record
// lacks the kind's own field alone. Errors name the request's fields, those of InputsOfRequest and
// GenerationOf among them.
absl::StatusOr<ResponseInputs> ExtractionInputsOf(
    const v1::ExtractVectorsRequest& request, std::shared_ptr<const engine::ServedModel> model,
    const studies::ResponseMeansPlan& plan, const rpc::CallContext& context,
    const services::ResolveOptions& options, const Sources& sources, services::UsedResources& used);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_EXTRACTION_INPUTS_H_
