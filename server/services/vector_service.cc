#include "services/vector_service.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/shared_tenant.h"
#include "base/status_macros.h"
#include "services/circumplex_request.h"
#include "services/idempotency.h"
#include "services/replays.h"
#include "services/reply_size.h"
#include "services/request_codec.h"
#include "services/result_codec.h"
#include "services/stored_vectors.h"
#include "services/study_codec.h"
#include "services/tensor_codec.h"
#include "studies/message_json.h"
#include "studies/provenance.h"

namespace valuescope::services {
namespace {

constexpr int kMostPairs = 64;
// Of a pair; what is derived from it gets a name that CheckDisplayName allows.
constexpr size_t kMaxValue = 128;

// Vectors that a part of a decomposition was made of, each once, with their digests by name.
struct Sources {
  v1::DecomposeVectorsRequest request;  // with the pairs that the part was made of
  std::vector<const studies::StoredVector*> vectors;
  UsedResources used;

  void Add(const v1::VectorPair& pair, const studies::DecompositionPair& read,
           const UsedResources& all) {
    *request.add_pairs() = pair;
    Add(pair.intrinsic(), *read.intrinsic, all);
    Add(pair.prompted(), *read.prompted, all);
  }

 private:
  void Add(const std::string& name, const studies::StoredVector& vector, const UsedResources& all) {
    if (used.emplace(name, all.at(name)).second) vectors.push_back(&vector);
  }
};

// The part of a decomposition that has a name of its own once stored.
struct Derived {
  v1::Vector* proto;
  const std::vector<float>* rows;
  std::string name;
  std::string sign_rule;
  const Sources* sources;
};

// What the parts of a decomposition take: rows as they are found, stored and sent, and what is told
// of each.
int64_t DecompositionMemory(size_t pairs, size_t layers, int64_t width) {
  constexpr int64_t kElement = 4 * sizeof(float), kDescription = 16 << 10;
  const auto parts = static_cast<int64_t>(4 * pairs + 1);
  return parts * (static_cast<int64_t>(layers) * width * kElement + kDescription);
}

// Of the fits of all layers; and the null's draws, with the assignments of ten values to places.
int64_t CircumplexMemory(size_t layers, int null_samples) {
  constexpr int64_t kFit = 4 << 10, kAssignments = 16 << 20;
  return static_cast<int64_t>(layers) * kFit + static_cast<int64_t>(null_samples * sizeof(double)) +
         kAssignments;
}

// What a source's provenance takes in those of the parts: the four of its pair and the mean delta
// repeat it, each as a record, as its bytes and as it is sent.
constexpr VectorCopies kCopiesOfASource = {.record = 5 * 3};

absl::StatusOr<std::optional<studies::CircumplexPlan>> CircumplexOf(
    const v1::DecomposeVectorsRequest& request) {
  if (!request.has_circumplex()) return std::nullopt;
  std::vector<std::string> values;
  for (const v1::VectorPair& pair : request.pairs()) values.push_back(pair.value());
  return CircumplexFromProto(request.circumplex(), values, "pairs");
}

void AddCircumplexes(const studies::CircumplexResult& result,
                     v1::DecomposeVectorsResponse& response) {
  for (const studies::LayerCircumplex& layer : result.layers) {
    v1::Circumplex& proto = *response.add_circumplexes();
    proto.set_layer(layer.layer);
    proto.set_r_squared(layer.fit.r_squared);
    proto.set_null_mean(result.null_mean);
    proto.set_null_95th_percentile(result.null_95th_percentile);
    proto.set_permutation_p_value(layer.fit.permutation_p_value);
    proto.set_distinct_permutations(result.distinct_permutations);
    proto.set_plane_variance_share(layer.fit.plane_variance);
    proto.set_null_p_value(layer.null_p_value);
    for (size_t i = 0; i < result.places.size(); ++i) {
      v1::CircumplexPoint& point = *proto.add_points();
      point.set_value(result.places[i].name);
      point.set_x(layer.fit.points[i][0]);
      point.set_y(layer.fit.points[i][1]);
      point.set_expected_angle(result.places[i].degrees);
    }
  }
}

// With all data as long as they are below what one message has, without any where they are not.
// Names stay, under which GetVector has the rows.
absl::Status FitReply(v1::DecomposeVectorsResponse& response) {
  if (static_cast<int64_t>(response.ByteSizeLong()) <= kMostReplyBytes) return absl::OkStatus();
  for (v1::PairDecomposition& pair : *response.mutable_decompositions()) {
    for (v1::Vector* part :
         {pair.mutable_shared(), pair.mutable_difference(), pair.mutable_intrinsic_orthogonal(),
          pair.mutable_prompted_orthogonal()}) {
      part->clear_data();
    }
  }
  if (response.has_mean_delta()) response.mutable_mean_delta()->clear_data();
  return CheckReplySize(static_cast<int64_t>(response.ByteSizeLong()), "the decompositions",
                        "ask for fewer `pairs` or `layers`");
}

v1::Provenance ProvenanceOf(const Derived& part) {
  std::vector<const v1::Provenance*> sources;
  for (const studies::StoredVector* vector : part.sources->vectors) {
    sources.push_back(&vector->record.provenance());
  }
  v1::Provenance provenance = studies::DerivedProvenance(sources);
  provenance.set_sign_rule(part.sign_rule);
  *provenance.mutable_inputs() = InputsOf(part.sources->used);
  // With the pairs: which of two inputs is the intrinsic one is nowhere else.
  provenance.set_options(studies::RecordOfRequest(part.sources->request,
                                                  {"strict", "store", "request_id", "circumplex"}));
  return provenance;
}

}  // namespace

absl::Status VectorService::ExtractVectors(const rpc::CallContext& context,
                                           const v1::ExtractVectorsRequest& request,
                                           v1::ExtractVectorsResponse* response) {
  return calls_.Answer("extract_vectors", "VectorService/ExtractVectors", context, request,
                       response);
}

absl::Status VectorService::DecomposeVectors(const rpc::CallContext& context,
                                             const v1::DecomposeVectorsRequest& request,
                                             v1::DecomposeVectorsResponse* response) {
  if (request.pairs_size() < 1 || request.pairs_size() > kMostPairs) {
    return OutOfRange("pairs", request.pairs_size(), 1, kMostPairs);
  }
  studies::DecompositionPlan plan;
  VS_ASSIGN_OR_RETURN(plan.circumplex, CircumplexOf(request));
  VS_ASSIGN_OR_RETURN(const store::IdempotencyKey key,
                      KeyOf("VectorService/DecomposeVectors", request));
  // A repetition is worked out again: a fixed function of stored vectors, which never change.
  VS_RETURN_IF_ERROR(store_->FindRequest(context.tenant, key).status());
  UsedResources used;
  std::vector<studies::StoredVector> vectors;
  vectors.reserve(2 * static_cast<size_t>(request.pairs_size()));
  std::vector<studies::DecompositionPair> pairs;
  std::vector<const studies::StoredVector*> all;
  for (int i = 0; i < request.pairs_size(); ++i) {
    const std::string field = absl::StrCat("pairs[", i, "]");
    if (request.pairs_size() > 1 && request.pairs(i).value().empty()) {
      return InvalidField(absl::StrCat(field, ".value"),
                          "is required where more than one pair is given");
    }
    if (request.pairs(i).value().size() > kMaxValue) {
      return InvalidField(absl::StrCat(field, ".value"), "must be at most 128 bytes");
    }
    VS_ASSIGN_OR_RETURN(
        studies::StoredVector intrinsic,
        HeldVectorOfName(context, absl::StrCat(field, ".intrinsic"), request.pairs(i).intrinsic(),
                         kCopiesOfASource, *store_, *blobs_, used));
    VS_ASSIGN_OR_RETURN(
        studies::StoredVector prompted,
        HeldVectorOfName(context, absl::StrCat(field, ".prompted"), request.pairs(i).prompted(),
                         kCopiesOfASource, *store_, *blobs_, used));
    for (studies::StoredVector* vector : {&intrinsic, &prompted}) {
      if (!model::IsPerLayer(vector->site())) {
        return InvalidField(field,
                            "has a vector of a site without layers, which is not decomposed");
      }
      vectors.push_back(std::move(*vector));
      all.push_back(&vectors.back());
    }
    pairs.push_back({.value = request.pairs(i).value(),
                     .intrinsic = &vectors[vectors.size() - 2],
                     .prompted = &vectors[vectors.size() - 1]});
  }
  VS_RETURN_IF_ERROR(context.Why());
  VS_ASSIGN_OR_RETURN(plan.layers,
                      LayersOfVectors(request.has_layers() ? &request.layers() : nullptr, all));
  plan.normalize_columns = request.normalize_columns();
  plan.strict = request.strict();
  plan.unit_deltas = request.unit_deltas();
  VS_RETURN_IF_ERROR(
      context.Hold(DecompositionMemory(pairs.size(), plan.layers.size(), all.front()->width())));
  if (plan.circumplex) {
    VS_RETURN_IF_ERROR(
        context.Hold(CircumplexMemory(plan.layers.size(), plan.circumplex->null_samples)));
  }
  VS_ASSIGN_OR_RETURN(const studies::DecompositionResult result,
                      studies::DecomposePairs(pairs, plan, context.cancellation));
  VS_RETURN_IF_ERROR(context.Why());

  std::vector<Sources> sources(pairs.size() + 1);  // of each pair, and of all
  for (Sources& each : sources) {
    each.request = request;
    each.request.clear_pairs();
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    for (Sources* each : {&sources[i], &sources.back()}) {
      each->Add(request.pairs(static_cast<int>(i)), pairs[i], used);
    }
  }
  std::vector<Derived> derived;
  for (size_t i = 0; i < result.pairs.size(); ++i) {
    const studies::PairResult& pair = result.pairs[i];
    v1::PairDecomposition& proto = *response->add_decompositions();
    proto.set_value(pair.value);
    const std::string prefix = pair.value.empty() ? "" : absl::StrCat(pair.value, " ");
    derived.push_back({proto.mutable_shared(), &pair.shared, prefix + "shared axis",
                       "<u, v_int + v_prompt> > 0", &sources[i]});
    derived.push_back({proto.mutable_difference(), &pair.difference, prefix + "difference axis",
                       "<u, v_int - v_prompt> > 0", &sources[i]});
    derived.push_back({proto.mutable_intrinsic_orthogonal(), &pair.intrinsic_orthogonal,
                       prefix + "intrinsic, orthogonalised",
                       "that of v_int, orthogonalised on v_prompt", &sources[i]});
    derived.push_back({proto.mutable_prompted_orthogonal(), &pair.prompted_orthogonal,
                       prefix + "prompted, orthogonalised",
                       "that of v_prompt, orthogonalised on v_int", &sources[i]});
    for (size_t l = 0; l < pair.layers.size(); ++l) {
      const analysis::Decomposition& one = pair.layers[l];
      v1::LayerDecomposition& layer = *proto.add_layers();
      layer.set_layer(plan.layers[l]);
      layer.set_cosine(one.cosine);
      if (one.disattenuated_cosine) layer.set_disattenuated_cosine(*one.disattenuated_cosine);
      layer.set_intrinsic_norm(one.intrinsic_norm);
      layer.set_prompted_norm(one.prompted_norm);
      layer.set_singular_value_shared(one.shared_singular_value);
      layer.set_singular_value_difference(one.difference_singular_value);
      layer.set_retained_norm_fraction(one.retained_norm_fraction);
      layer.set_difference_defined(!one.difference.empty());
      layer.set_shared_meaningful(one.cosine > 0);
    }
    for (const std::string& warning : pair.warnings) proto.add_warnings(warning);
  }
  for (size_t l = 0; l < result.mean_deltas.size(); ++l) {
    v1::MeanDelta& delta = *response->add_mean_deltas();
    delta.set_layer(plan.layers[l]);
    delta.set_norm(result.mean_deltas[l].norm);
    delta.set_explained_variance(result.mean_deltas[l].explained_variance.value_or(0));
    delta.set_mean_pairwise_cosine(result.mean_deltas[l].mean_pairwise_cosine.value_or(0));
  }
  if (!result.mean_delta.empty())
    derived.push_back({response->mutable_mean_delta(), &result.mean_delta, "mean delta",
                       "mean of v_prompt - v_int", &sources.back()});
  if (result.circumplex) {
    AddCircumplexes(*result.circumplex, *response);
    response->set_seed(plan.circumplex->seed);
  }
  for (const std::string& warning : result.warnings) response->add_warnings(warning);

  const v1::Vector& first = all.front()->record;
  int64_t data_bytes = 0;
  std::vector<studies::StoredVector> parts;
  std::vector<store::Resource> resources;
  for (const Derived& part : derived) {
    studies::StoredVector vector;
    vector.record.set_model(first.model());
    vector.record.set_model_digest(first.model_digest());
    vector.record.set_site(first.site());
    vector.record.set_width(first.width());
    vector.record.mutable_layers()->Assign(plan.layers.begin(), plan.layers.end());
    vector.record.set_display_name(part.name);
    *vector.record.mutable_provenance() = ProvenanceOf(part);
    vector.rows = *part.rows;
    VS_ASSIGN_OR_RETURN(resources.emplace_back(), studies::MakeVectorResource(*blobs_, vector));
    parts.push_back(std::move(vector));
  }
  const bool store = !request.has_store() || request.store();
  if (store) {
    // Two parts may have the same content (collinear inputs): one name serves both, so each is put
    // once.
    std::map<std::string, store::Resource> distinct;
    for (const store::Resource& resource : resources) distinct.emplace(resource.id, resource);
    std::vector<store::Resource> to_put;
    for (const auto& [id, resource] : distinct) to_put.push_back(resource);
    VS_ASSIGN_OR_RETURN(const auto stored,
                        store_->PutResources(context.tenant, std::move(to_put), key));
    for (store::Resource& resource : resources) {
      for (const store::Resource& one : stored) {
        if (one.id == resource.id) resource = one;
      }
    }
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    data_bytes += DataBytes(parts[i], plan.layers.size());
    *derived[i].proto = VectorToProto(
        resources[i], parts[i],
        {.with_data = data_bytes <= kMaxMessageData, .with_statistics = false, .layers = {}});
    if (!store) derived[i].proto->clear_name();
  }
  for (const auto& [name, digest] : used) {
    v1::ResourceDigest& proto = *response->add_digests();
    proto.set_name(name);
    proto.set_digest(digest);
  }
  return FitReply(*response);
}

absl::Status VectorService::CreateVector(const rpc::CallContext& context,
                                         const v1::CreateVectorRequest& request,
                                         v1::CreateVectorResponse* response) {
  const v1::Vector& given = request.vector();
  VS_ASSIGN_OR_RETURN(const store::IdempotencyKey key,
                      KeyOf("VectorService/CreateVector", request));
  VS_ASSIGN_OR_RETURN(const auto earlier, EarlierResult(*store_, context.tenant, key));
  if (earlier) return ReplayCreateVector(*earlier, response);
  VS_ASSIGN_OR_RETURN(const auto model, ModelOfName("vector.model", given.model(), *models_));
  VS_RETURN_IF_ERROR(CheckDisplayName("vector.display_name", given.display_name()));
  studies::StoredVector vector;
  VS_ASSIGN_OR_RETURN(const model::Site site, SiteFromProto("vector.site", given.site()));
  vector.record = studies::VectorWithin(
      *model, site, {given.layers().data(), static_cast<size_t>(given.layers_size())});
  VS_ASSIGN_OR_RETURN(const HostTensor data, TensorFromProto("vector.data", given.data()));
  const std::vector<int64_t> rows = {vector.num_rows(), vector.width()}, row = {vector.width()};
  if (data.shape != rows && !(data.shape == row && vector.num_rows() == 1)) {
    return InvalidField("vector.data",
                        absl::StrCat("must have the shape [", vector.num_rows(), ", ",
                                     vector.width(), "]: one row of the site's width a layer"),
                        "WRONG_WIDTH");
  }
  auto elements = ToFloat32(data);
  if (!elements.ok()) return InField("vector.data", elements.status());
  vector.rows = *std::move(elements);
  if (absl::Status status = studies::CheckVector(vector, model->architecture); !status.ok())
    return InField("vector", status);
  vector.record.set_display_name(given.display_name());
  v1::Provenance& provenance = *vector.record.mutable_provenance();
  provenance = studies::ProvenanceWithin(*model);
  provenance.set_site(SiteToProto(site));
  provenance.set_sign_rule("caller");
  VS_ASSIGN_OR_RETURN(store::Resource resource, studies::MakeVectorResource(*blobs_, vector));
  VS_ASSIGN_OR_RETURN(const auto stored,
                      store_->PutResources(context.tenant, {std::move(resource)}, key));
  *response->mutable_vector() = VectorToProto(stored.front(), vector, {});
  return absl::OkStatus();
}

absl::Status VectorService::GetVector(const rpc::CallContext& context,
                                      const v1::GetVectorRequest& request,
                                      v1::GetVectorResponse* response) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "vectors", request.name()));
  VS_ASSIGN_OR_RETURN(const store::Resource resource,
                      store_->GetResource(context.tenant, store::ResourceKind::kVector, id));
  VS_ASSIGN_OR_RETURN(const studies::StoredVector described, studies::DescribeVector(resource));
  VectorView view{.with_data = !request.omit_data(), .with_statistics = true, .layers = {}};
  if (described.record.layers_size() > 0 && request.has_layers()) {
    VS_ASSIGN_OR_RETURN(view.layers, LayersOfVectors(&request.layers(), {&described}));
  }
  const size_t rows =
      view.layers.empty() ? static_cast<size_t>(described.num_rows()) : view.layers.size();
  if (view.with_data && DataBytes(described, rows) > kMaxMessageData) {
    return NeverFits("MESSAGE_TOO_LARGE", "the rows do not fit one message; choose fewer `layers`");
  }
  if (!view.with_data) {
    *response->mutable_vector() = VectorToProto(resource, described, view);
    return absl::OkStatus();
  }
  VS_ASSIGN_OR_RETURN(const studies::StoredVector vector, studies::ReadVector(*blobs_, resource));
  *response->mutable_vector() = VectorToProto(resource, vector, view);
  return absl::OkStatus();
}

absl::Status VectorService::ListVectors(const rpc::CallContext& context,
                                        const v1::ListVectorsRequest& request,
                                        v1::ListVectorsResponse* response) {
  VS_ASSIGN_OR_RETURN(
      const store::ResourceFilter filter,
      FilterByModel(request.model(), [](const store::Resource& resource, const std::string& model) {
        const auto vector = studies::DescribeVector(resource);
        return vector.ok() && vector->record.model() == model;
      }));
  VS_ASSIGN_OR_RETURN(const store::ResourcePage page,
                      store_->ListResources(
                          request.shared() ? kSharedTenant : absl::string_view(context.tenant),
                          store::ResourceKind::kVector, filter,
                          {.page_size = request.page_size(), .page_token = request.page_token()}));
  for (const store::Resource& resource : page.resources) {
    VS_ASSIGN_OR_RETURN(const studies::StoredVector vector, studies::DescribeVector(resource));
    *response->add_vectors() = VectorToProto(resource, vector, {});
  }
  response->set_next_page_token(page.next_page_token);
  return absl::OkStatus();
}

absl::Status VectorService::DeleteVector(const rpc::CallContext& context,
                                         const v1::DeleteVectorRequest& request,
                                         v1::DeleteVectorResponse*) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("name", "vectors", request.name()));
  return store_->DeleteResource(context.tenant, store::ResourceKind::kVector, id);
}

}  // namespace valuescope::services
