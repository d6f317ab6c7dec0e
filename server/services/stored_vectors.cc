#include "services/stored_vectors.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::services {
namespace {

absl::StatusOr<store::Resource> ResourceOfName(absl::string_view field, const std::string& name,
                                               const std::string& tenant, store::Store& store) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName(field, "vectors", name));
  return store.GetResource(tenant, store::ResourceKind::kVector, id);
}

}  // namespace

absl::StatusOr<studies::StoredVector> HeldVectorOfName(
    const rpc::CallContext& context, absl::string_view field, const std::string& name,
    const VectorCopies& copies, store::Store& store, store::BlobStore& blobs, UsedResources& used) {
  VS_ASSIGN_OR_RETURN(const store::Resource resource,
                      ResourceOfName(field, name, context.tenant, store));
  VS_ASSIGN_OR_RETURN(const studies::StoredVector described, studies::DescribeVector(resource));
  const auto record = static_cast<int64_t>(described.record.SpaceUsedLong());
  const int64_t rows =
      described.num_rows() * described.width() * static_cast<int64_t>(sizeof(float));
  VS_RETURN_IF_ERROR(
      context.Hold(copies.record * record + copies.rows * rows + resource.blob_size));
  VS_ASSIGN_OR_RETURN(studies::StoredVector vector, studies::ReadVector(blobs, resource));
  context.GiveBack(resource.blob_size);
  vector.record.set_display_name(resource.display_name);
  used[name] = resource.digest;
  return vector;
}

std::vector<int> CommonLayers(const std::vector<const studies::StoredVector*>& vectors) {
  const auto& first = vectors.front()->record.layers();
  std::vector<int> common(first.begin(), first.end());
  std::erase_if(common, [&](int layer) {
    return std::any_of(vectors.begin(), vectors.end(),
                       [&](const auto* vector) { return !vector->RowOfLayer(layer); });
  });
  return common;
}

absl::StatusOr<std::vector<int>> LayersOfVectors(
    const v1::Layers* layers, const std::vector<const studies::StoredVector*>& vectors) {
  const std::vector<int> common = CommonLayers(vectors);
  if (common.empty()) return InvalidField("layers", "the vectors have no layer in common");
  if (layers == nullptr || layers->layers_case() == v1::Layers::LAYERS_NOT_SET || layers->all())
    return common;
  VS_ASSIGN_OR_RETURN(std::vector<int> chosen, LayersFromProto("layers", layers,
                                                               {.site = model::Site::kResidualPost,
                                                                .num_layers = common.back() + 1}));
  for (const int layer : chosen) {
    if (!std::binary_search(common.begin(), common.end(), layer)) {
      return InvalidField(
          "layers", absl::StrCat("names layer ", layer, ", which not every vector has a row for"));
    }
  }
  return chosen;
}

}  // namespace valuescope::services
