#include "services/attribution_requests.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/request_record.h"
#include "services/response_sets.h"
#include "services/stored_vectors.h"
#include "services/study_codec.h"

namespace valuescope::services {
namespace {

constexpr int kMostTop = 10000;
constexpr int kDefaultTop = 100;

absl::Status CheckMethod(const v1::AttributeNeuronsRequest& request) {
  using Request = v1::AttributeNeuronsRequest;
  if (request.method_case() == Request::METHOD_NOT_SET) {
    return InvalidField("method", "must be set; this version serves direct_contribution");
  }
  if (request.method_case() != Request::kDirectContribution) {
    const auto* field = Request::descriptor()->FindFieldByNumber(request.method_case());
    return ErrorWithReason(absl::StatusCode::kUnimplemented, "OPTION_NOT_SERVED",
                           absl::StrCat("`", field->name(),
                                        "` is not served by this version; direct_contribution is"));
  }
  if (request.has_target())
    return InvalidField("target",
                        "has no meaning for direct_contribution, whose target is the vector");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ResolvedAttribution> ResolveAttribution(const v1::AttributeNeuronsRequest& request,
                                                       const rpc::CallContext& context,
                                                       const engine::ModelRegistry& models,
                                                       store::Store& store, store::BlobStore& blobs,
                                                       int64_t most_responses) {
  ResolvedAttribution resolved;
  VS_ASSIGN_OR_RETURN(resolved.model, ModelOfName("model", request.model(), models));
  const engine::ServedModel& model = *resolved.model;
  VS_RETURN_IF_ERROR(CheckMethod(request));
  if (model.architecture.post_norms) {
    return ErrorWithReason(absl::StatusCode::kUnimplemented, "OPTION_NOT_SERVED",
                           absl::StrCat("direct_contribution is not served for `models/", model.id,
                                        "`, which norms what the MLP writes"));
  }
  const int top_k = request.has_top_k() ? request.top_k() : kDefaultTop;
  if (top_k < 0 || top_k > kMostTop) return OutOfRange("top_k", top_k, 0, kMostTop);
  VS_RETURN_IF_ERROR(CheckDisplayName("display_name", request.display_name()));
  VS_RETURN_IF_ERROR(CheckJudge(request));
  VS_ASSIGN_OR_RETURN(resolved.vector, VectorOfName("vector", request.vector(), context.tenant,
                                                    store, blobs, resolved.used));
  VS_RETURN_IF_ERROR(
      studies::CheckUsable(resolved.vector, model, model::Site::kResidualPost, "vector"));
  studies::AttributeNeuronsSpec& spec = resolved.spec;
  if (request.has_source_layer()) spec.source_layer = request.source_layer();
  const bool chosen = request.has_layers() &&
                      request.layers().layers_case() != v1::Layers::LAYERS_NOT_SET &&
                      !request.layers().all();
  if (!chosen && !spec.source_layer) {
    spec.layers = resolved.vector.layers;
  } else {
    // All blocks of a source layer are those that can have written its row.
    const int num_layers = !chosen && resolved.vector.RowOfLayer(*spec.source_layer)
                               ? *spec.source_layer + 1
                               : model.architecture.num_layers;
    VS_ASSIGN_OR_RETURN(
        spec.layers,
        LayersFromProto(
            "layers", request.has_layers() ? &request.layers() : nullptr,
            {.site = model::Site::kMlpNeurons, .num_layers = num_layers, .all_by_default = true}));
  }
  VS_RETURN_IF_ERROR(studies::CheckRows(resolved.vector, spec.layers, spec.source_layer));
  VS_ASSIGN_OR_RETURN(
      resolved.responses,
      ResponseSetOf({request.responses(), request.artifact(), request.include_end_of_turn(),
                     most_responses, "create a job with the same request"},
                    context, model, store, blobs, resolved.used));
  spec.model = model.id;
  spec.model_digest = model.weights_digest;
  VS_ASSIGN_OR_RETURN(spec.vector_id, IdOfName("vector", "vectors", request.vector()));
  spec.vector_digest = resolved.used.at(request.vector());
  spec.num_responses = static_cast<int64_t>(resolved.responses.responses.size());
  spec.responses_per_shard = studies::ResponsesPerShard(spec.num_responses);
  spec.top_k = top_k;
  spec.display_name = request.display_name();
  spec.provenance = studies::ProvenanceOf(model, resolved.responses.rendered_chat);
  spec.provenance.site = model::Site::kMlpNeurons;
  spec.provenance.pooling = studies::kResponseMeanPooling;
  spec.provenance.sign_rule = studies::kDifferenceSign;
  spec.provenance.judge = JudgeOf(request);
  spec.provenance.num_expressing = resolved.responses.num_expressing;
  spec.provenance.num_non_expressing = resolved.responses.num_non_expressing;
  spec.provenance.num_dropped = resolved.responses.num_dropped;
  spec.provenance.inputs = InputsOf(resolved.used, request.artifact());
  spec.provenance.options = RecordOfRequest(
      request, {"model", "responses", "artifact", "vector", "judge", "display_name", "request_id"});
  return resolved;
}

}  // namespace valuescope::services
