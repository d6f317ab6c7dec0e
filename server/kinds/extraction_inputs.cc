#include "kinds/extraction_inputs.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/linear_probe.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/extraction_options.h"
#include "kinds/generated_responses.h"
#include "kinds/generation_request.h"
#include "kinds/value_vectors.h"
#include "nlohmann/json.hpp"
#include "studies/extract_vectors.h"
#include "studies/provenance.h"

namespace valuescope::kinds {
namespace {

// Of `responses`, whoever made them.
v1::Provenance ProvenanceOfExtraction(const v1::ExtractVectorsRequest& request,
                                      const engine::ServedModel& model,
                                      const studies::ResponseSet& responses,
                                      const services::UsedResources& used, model::Site site) {
  return ProvenanceOf(
      request, model, responses, used, site,
      {"model", "responses", "artifact", "judge", "seed", "display_name", "request_id"});
}

// Without what the responses tell once they are there.
v1::Provenance ProvenanceOfGenerated(const v1::ExtractVectorsRequest& request,
                                     const ResponseInputs& inputs,
                                     const services::UsedResources& used, model::Site site) {
  studies::ResponseSet none;
  none.rendered_chat = true;
  v1::Provenance provenance = ProvenanceOfExtraction(request, *inputs.held, none, used, site);
  provenance.set_judge(JudgesOf(*inputs.generation));
  provenance.add_seeds(request.generated().sampling().seed());
  provenance.add_seeds(request.generated().seed());
  const std::string& queries = request.generated().queries_artifact();
  if (queries.empty()) return provenance;
  // An upload goes by its content.
  for (v1::ResourceDigest& input : *provenance.mutable_inputs()) {
    if (input.name() == queries) input.set_name(studies::kQueriesInput);
  }
  auto chosen = nlohmann::ordered_json::parse(provenance.options());
  chosen["generated"].erase("queries_artifact");
  provenance.set_options(chosen.dump());
  return provenance;
}

absl::StatusOr<ResponseInputs> GivenInputs(const v1::ExtractVectorsRequest& request,
                                           std::shared_ptr<const engine::ServedModel> model,
                                           const studies::ResponseMeansPlan& plan,
                                           const rpc::CallContext& context,
                                           const services::ResolveOptions& options,
                                           const Sources& sources, services::UsedResources& used) {
  const bool many = !request.vectors().empty();
  const services::AskedLabels asked = AskedLabelsOf(request);
  services::ResolveOptions reading = options;
  if (many) reading.labels = &asked;
  VS_ASSIGN_OR_RETURN(ResponseInputs inputs,
                      InputsOfRequest(request, std::move(model), context, reading, sources, used));
  v1::Provenance& provenance = *inputs.record.mutable_provenance();
  provenance = ProvenanceOfExtraction(request, *inputs.held, inputs.responses, used, plan.site);
  if (many) {
    provenance.clear_num_expressing();  // each vector has its own
    provenance.clear_num_non_expressing();
    VS_RETURN_IF_ERROR(ResolveValueVectors(request, asked, used, context, inputs));
  } else {
    VS_RETURN_IF_ERROR(WithFieldRenamed(
        studies::CheckMethod(MethodOf(request), inputs.responses, studies::AllOf(inputs.responses)),
        "responses", request.artifact().empty() ? "responses" : "artifact"));
  }
  VS_RETURN_IF_ERROR(studies::CheckResponses(*inputs.held->engine, inputs.responses.responses, plan,
                                             context.cancellation));
  inputs.record.set_responses_per_shard(kResponsesPerChunk);
  return inputs;
}

absl::StatusOr<ResponseInputs> GeneratedInputs(const v1::ExtractVectorsRequest& request,
                                               std::shared_ptr<const engine::ServedModel> model,
                                               const studies::ResponseMeansPlan& plan,
                                               const rpc::CallContext& context,
                                               const services::ResolveOptions& options,
                                               const Sources& sources,
                                               services::UsedResources& used) {
  VS_ASSIGN_OR_RETURN(Generation generation,
                      GenerationOf(SourceOf(request.generated(), request.include_end_of_turn()),
                                   *model, context, options, sources, used));
  if (MethodOf(request) == v1::EXTRACTION_METHOD_LINEAR_PROBE &&
      generation.units() > analysis::kMostProbeResponses) {
    return InvalidField(
        "generated",
        absl::StrCat("asks for ", generation.units(), " responses, LINEAR_PROBE takes at most ",
                     analysis::kMostProbeResponses),
        "TOO_MANY_RESPONSES");
  }
  if (absl::Status status = studies::CheckResponses(
          *model->engine, LongestResponses(generation, *model), plan, context.cancellation);
      !status.ok()) {
    return WithFieldRenamed(status, "responses", "generated");
  }
  ResponseInputs inputs{.tenant = context.tenant,
                        .models = sources.models,
                        .held = std::move(model),
                        .responses = {},
                        .generation = std::make_shared<const Generation>(std::move(generation)),
                        .texts = nullptr,
                        .record = {}};
  inputs.record = RecordOf(*inputs.held, request.display_name(), options);
  inputs.record.set_num_responses(inputs.generation->units());
  inputs.record.set_responses_per_shard(kGeneratedPerShard);
  *inputs.record.mutable_generation() = inputs.generation->how;
  *inputs.record.mutable_provenance() = ProvenanceOfGenerated(request, inputs, used, plan.site);
  return inputs;
}

}  // namespace

absl::StatusOr<ResponseInputs> ExtractionInputsOf(const v1::ExtractVectorsRequest& request,
                                                  std::shared_ptr<const engine::ServedModel> model,
                                                  const studies::ResponseMeansPlan& plan,
                                                  const rpc::CallContext& context,
                                                  const services::ResolveOptions& options,
                                                  const Sources& sources,
                                                  services::UsedResources& used) {
  return request.has_generated()
             ? GeneratedInputs(request, std::move(model), plan, context, options, sources, used)
             : GivenInputs(request, std::move(model), plan, context, options, sources, used);
}

}  // namespace valuescope::kinds
