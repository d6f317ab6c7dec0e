#include "studies/stored_vector.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "studies/contract_enums.h"
#include "studies/named_content.h"
#include "studies/records_of_version_1.h"
#include "studies/resource_naming.h"
#include "studies/stored_record.h"
#include "studies/tensor_file.h"

namespace valuescope::studies {
namespace {

// Larger than the rows of any model that this server can describe and hold.
constexpr int64_t kMaxVectorFile = int64_t{1} << 31;

absl::string_view BytesOf(const std::vector<float>& rows) {
  return {reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(float)};
}

absl::Status CheckLayers(const StoredVector& vector, int num_layers) {
  const auto& layers = vector.record.layers();
  if (!model::IsPerLayer(vector.site())) {
    if (layers.empty()) return absl::OkStatus();
    return InvalidField("layers", absl::StrCat("must be empty at ", NameOf(vector.site()),
                                               ", which has no layers"));
  }
  if (layers.empty()) return InvalidField("layers", "must name at least one layer");
  for (int i = 0; i < layers.size(); ++i) {
    const std::string field = absl::StrCat("layers[", i, "]");
    if (layers[i] < 0 || layers[i] >= num_layers) {
      return OutOfRange(field, layers[i], 0, num_layers - 1);
    }
    if (i > 0 && layers[i] <= layers[i - 1]) {
      return InvalidField(field, "layers must be strictly ascending");
    }
  }
  return absl::OkStatus();
}

// What reading relies on.
absl::Status CheckRecord(const v1::Vector& record) {
  const std::optional<model::Site> site = SiteOf(record.site());
  if (record.model_digest().empty() || !site || record.width() < 1) {
    return DamagedRecord("a vector without model, site or width");
  }
  const auto& layers = record.layers();
  if (model::IsPerLayer(*site) == layers.empty() || !std::is_sorted(layers.begin(), layers.end())) {
    return DamagedRecord("a vector with impossible layers");
  }
  return absl::OkStatus();
}

}  // namespace

model::Site StoredVector::site() const {
  return SiteOf(record.site()).value_or(model::Site::kResidualPost);
}

std::optional<int64_t> StoredVector::RowOfLayer(int layer) const {
  const auto& layers = record.layers();
  const auto place = std::lower_bound(layers.begin(), layers.end(), layer);
  if (place == layers.end() || *place != layer) return std::nullopt;
  return place - layers.begin();
}

v1::Vector VectorWithin(const engine::ServedModel& model, model::Site site,
                        std::span<const int32_t> layers) {
  v1::Vector record;
  record.set_model(absl::StrCat("models/", model.id));
  record.set_model_digest(model.weights_digest);
  record.set_site(SiteToProto(site));
  record.set_width(static_cast<int32_t>(model::WidthOf(site, model.architecture)));
  record.mutable_layers()->Assign(layers.begin(), layers.end());
  return record;
}

absl::Status CheckVector(const StoredVector& vector, const model::Architecture& architecture) {
  VS_RETURN_IF_ERROR(CheckLayers(vector, architecture.num_layers));
  const int64_t width = model::WidthOf(vector.site(), architecture);
  if (vector.width() != width) {
    return InvalidField("data",
                        absl::StrCat("has rows of ", vector.width(), " elements, ",
                                     NameOf(vector.site()), " of this model has ", width),
                        "WRONG_WIDTH");
  }
  if (static_cast<int64_t>(vector.rows.size()) != vector.num_rows() * width) {
    return InvalidField("data", absl::StrCat("must have one row for each layer: ",
                                             vector.num_rows(), " x ", width, " elements"));
  }
  for (size_t i = 0; i < vector.rows.size(); ++i) {
    if (!std::isfinite(vector.rows[i])) {
      return InvalidField("data", absl::StrCat("element ", i, " is not finite"), "NOT_FINITE");
    }
  }
  return absl::OkStatus();
}

std::string VectorDigest(const StoredVector& vector) {
  const v1::Vector& record = vector.record;
  Sha256 hash;
  hash.Update(absl::StrCat("valuescope vector 2\n", record.model_digest(), "\n",
                           NameOf(vector.site()), "\n", absl::StrJoin(record.layers(), ","), "\n",
                           record.width(), "\n"));
  hash.Update(BytesOf(vector.rows));
  hash.Update(NamedContent(record.provenance()));
  hash.Update(NamedContent(record.statistics()));
  return hash.HexDigest();
}

absl::StatusOr<store::Resource> MakeVectorResource(store::BlobStore& blobs,
                                                   const StoredVector& vector) {
  HostTensor rows;
  rows.dtype = DType::kFloat32;
  rows.shape = {vector.num_rows(), vector.width()};
  rows.bytes = std::string(BytesOf(vector.rows));
  const std::vector<NamedTensor> tensors = {{.name = "rows", .tensor = std::move(rows)}};
  VS_ASSIGN_OR_RETURN(const store::StoredBlob blob,
                      store::WriteBlob(blobs, WriteTensorFile(tensors)));
  store::Resource resource;
  resource.kind = store::ResourceKind::kVector;
  resource.digest = VectorDigest(vector);
  resource.id = IdOfDigest(resource.digest);
  resource.display_name = vector.record.display_name();
  resource.media_type = kSafetensorsMediaType;
  resource.blob_digest = blob.digest;
  resource.blob_size = blob.size;
  v1::Vector record = vector.record;
  record.clear_display_name();
  VS_RETURN_IF_ERROR(PutRecord(record, resource));
  return resource;
}

absl::StatusOr<StoredVector> DescribeVector(const store::Resource& resource) {
  StoredVector vector;
  VS_ASSIGN_OR_RETURN(vector.record, RecordOf<v1::Vector>(resource, VectorOfVersion1));
  VS_RETURN_IF_ERROR(CheckRecord(vector.record));
  return vector;
}

absl::StatusOr<StoredVector> ReadVector(store::BlobStore& blobs, const store::Resource& resource) {
  VS_ASSIGN_OR_RETURN(StoredVector vector, DescribeVector(resource));
  VS_ASSIGN_OR_RETURN(std::string bytes,
                      store::ReadBlob(blobs, resource.blob_digest, kMaxVectorFile));
  VS_ASSIGN_OR_RETURN(const TensorFile file, TensorFile::Parse(std::move(bytes)));
  VS_ASSIGN_OR_RETURN(vector.rows, file.Floats("rows", vector.num_rows() * vector.width()));
  return vector;
}

absl::Status CheckUsable(const StoredVector& vector, const engine::ServedModel& model,
                         model::Site site, absl::string_view field) {
  if (vector.record.model_digest() != model.weights_digest) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
                           absl::StrCat("`", field, "` was made on ", vector.record.model(),
                                        " with other weights than those of models/", model.id));
  }
  if (vector.site() != site) {
    return InvalidField(field,
                        absl::StrCat("must be a vector of site ", NameOf(site), ", it is one of ",
                                     NameOf(vector.site())),
                        "WRONG_SITE");
  }
  const int64_t width = model::WidthOf(site, model.architecture);
  if (vector.width() == width) return absl::OkStatus();
  return InvalidField(
      field, absl::StrCat("has rows of ", vector.width(), " elements, the model has ", width),
      "WRONG_WIDTH");
}

}  // namespace valuescope::studies
