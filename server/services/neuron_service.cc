#include "services/neuron_service.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/shared_tenant.h"
#include "base/status_macros.h"
#include "services/classification_request.h"
#include "services/idempotency.h"
#include "services/replays.h"
#include "services/request_codec.h"
#include "services/result_codec.h"
#include "services/stored_neuron_sets.h"
#include "services/stored_vectors.h"
#include "services/study_codec.h"
#include "studies/classify_neurons.h"
#include "studies/message_json.h"
#include "studies/provenance.h"
#include "studies/stored_neuron_set.h"

namespace valuescope::services {
absl::Status NeuronService::AttributeNeurons(const rpc::CallContext& context,
                                             const v1::AttributeNeuronsRequest& request,
                                             v1::AttributeNeuronsResponse* response) {
  return calls_.Answer("attribute_neurons", "NeuronService/AttributeNeurons", context, request,
                       response);
}

absl::Status NeuronService::ClassifyNeurons(const rpc::CallContext& context,
                                            const v1::ClassifyNeuronsRequest& request,
                                            v1::ClassifyNeuronsResponse* response) {
  VS_ASSIGN_OR_RETURN(const store::IdempotencyKey key,
                      KeyOf("NeuronService/ClassifyNeurons", request));
  VS_ASSIGN_OR_RETURN(const auto earlier, EarlierResult(*store_, context.tenant, key));
  if (earlier) return ReplayClassifyNeurons(*earlier, *blobs_, response);
  VS_ASSIGN_OR_RETURN(const auto model, ModelOfName("model", request.model(), *models_));
  VS_ASSIGN_OR_RETURN(const int top_k, TopKOf(request));
  UsedResources used;
  VS_ASSIGN_OR_RETURN(const NamedClassification named,
                      ClassificationOf(context, request, *model, *store_, *blobs_, used));
  VS_ASSIGN_OR_RETURN(const studies::Classification classification,
                      studies::ClassifyNeurons(*model->engine, named.first, named.second,
                                               named.plan, context.cancellation));
  v1::NeuronSet set;
  set.set_model(absl::StrCat("models/", model->id));
  set.set_model_digest(model->weights_digest);
  set.set_method(studies::kGeometricMethod);
  set.set_display_name(request.display_name());
  set.set_top_k(top_k);
  set.mutable_layers()->Assign(classification.layers.begin(), classification.layers.end());
  set.mutable_warnings()->Assign(classification.warnings.begin(), classification.warnings.end());
  v1::Provenance& provenance = *set.mutable_provenance();
  provenance = studies::ProvenanceOf(*model, /*rendered_chat=*/false);
  provenance.set_site(v1::SITE_MLP_NEURONS);
  *provenance.mutable_inputs() = InputsOf(used);
  provenance.set_options(
      studies::RecordOfRequest(request, {"model", "strict", "display_name", "request_id"}));
  VS_ASSIGN_OR_RETURN(const store::Resource resource,
                      PutNeuronSet(set, studies::EncodeColumns(classification.columns),
                                   context.tenant, key, *store_, *blobs_));
  *response->mutable_neuron_set() =
      NeuronSetToProto(resource, set, studies::TopNeurons(classification.columns, top_k));
  AddDigests(*model, used, response->mutable_digests());
  *response->mutable_warnings() = set.warnings();
  return absl::OkStatus();
}

absl::Status NeuronService::TestNeurons(const rpc::CallContext& context,
                                        const v1::TestNeuronsRequest& request,
                                        v1::TestNeuronsResponse* response) {
  return calls_.AnswerAnew("test_neurons", context, request, response);
}

absl::Status NeuronService::GetNeuronSet(const rpc::CallContext& context,
                                         const v1::GetNeuronSetRequest& request,
                                         v1::GetNeuronSetResponse* response) {
  UsedResources used;
  VS_ASSIGN_OR_RETURN(const NamedNeuronSet named,
                      NeuronSetOfName(context, "name", request.name(), *store_, used));
  VS_ASSIGN_OR_RETURN(const auto columns, HeldColumns(context, named, *blobs_));
  *response->mutable_neuron_set() =
      NeuronSetToProto(named.resource, named.set, studies::TopNeurons(columns, named.set.top_k()));
  return absl::OkStatus();
}

absl::Status NeuronService::ListNeuronSets(const rpc::CallContext& context,
                                           const v1::ListNeuronSetsRequest& request,
                                           v1::ListNeuronSetsResponse* response) {
  VS_ASSIGN_OR_RETURN(
      const store::ResourceFilter filter,
      FilterByModel(request.model(), [](const store::Resource& resource, const std::string& model) {
        const auto set = studies::DescribeNeuronSet(resource);
        return set.ok() && set->model() == model;
      }));
  VS_ASSIGN_OR_RETURN(const store::ResourcePage page,
                      store_->ListResources(
                          request.shared() ? kSharedTenant : absl::string_view(context.tenant),
                          store::ResourceKind::kNeuronSet, filter,
                          {.page_size = request.page_size(), .page_token = request.page_token()}));
  for (const store::Resource& resource : page.resources) {
    VS_ASSIGN_OR_RETURN(const v1::NeuronSet set, studies::DescribeNeuronSet(resource));
    *response->add_neuron_sets() = NeuronSetToProto(resource, set, {});
  }
  response->set_next_page_token(page.next_page_token);
  return absl::OkStatus();
}

absl::Status NeuronService::DeleteNeuronSet(const rpc::CallContext& context,
                                            const v1::DeleteNeuronSetRequest& request,
                                            v1::DeleteNeuronSetResponse*) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "neuronSets", request.name()));
  return store_->DeleteResource(context.tenant, store::ResourceKind::kNeuronSet, id);
}

}  // namespace valuescope::services
