#include "studies/stored_vector.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "studies/json_fields.h"
#include "studies/resource_naming.h"
#include "studies/tensor_file.h"

namespace valuescope::studies {
namespace {

using nlohmann::json;

// Larger than the rows of any model that this server can describe and hold.
constexpr int64_t kMaxVectorFile = int64_t{1} << 31;

absl::string_view BytesOf(const std::vector<float>& rows) {
  return {reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(float)};
}

json StatisticsToJson(const RowStatistics& row) {
  json interval = nullptr;
  if (row.norm_interval) {
    interval = {{"lower", row.norm_interval->lower},
                {"upper", row.norm_interval->upper},
                {"level", row.norm_interval->level}};
  }
  return {{"layer", row.layer},
          {"num_expressing", row.num_expressing},
          {"num_non_expressing", row.num_non_expressing},
          {"norm", row.norm},
          {"relative_norm", OrNull(row.relative_norm)},
          {"split_half_cosine", OrNull(row.split_half_cosine)},
          {"reliability", OrNull(row.reliability)},
          {"norm_interval", std::move(interval)},
          {"auroc", OrNull(row.auroc)},
          {"debiased_squared_norm", OrNull(row.debiased_squared_norm)}};
}

RowStatistics StatisticsFromJson(const json& value) {
  RowStatistics row;
  row.layer = value.at("layer").get<int>();
  row.num_expressing = value.at("num_expressing").get<int64_t>();
  row.num_non_expressing = value.at("num_non_expressing").get<int64_t>();
  row.norm = value.at("norm").get<double>();
  row.relative_norm = NumberOrNull(value.at("relative_norm"));
  row.split_half_cosine = NumberOrNull(value.at("split_half_cosine"));
  row.reliability = NumberOrNull(value.at("reliability"));
  if (const json& interval = value.at("norm_interval"); !interval.is_null()) {
    row.norm_interval = {.lower = interval.at("lower").get<double>(),
                         .upper = interval.at("upper").get<double>(),
                         .level = interval.at("level").get<double>()};
  }
  row.auroc = NumberOrNull(value.at("auroc"));
  row.debiased_squared_norm = NumberOrNull(value.at("debiased_squared_norm"));
  return row;
}

json StatisticsToJson(const std::vector<RowStatistics>& rows) {
  json statistics = json::array();
  for (const RowStatistics& row : rows) statistics.push_back(StatisticsToJson(row));
  return statistics;
}

std::string MetadataOf(const StoredVector& vector) {
  return DumpJson({{"format_version", kVectorFormatVersion},
                   {"model", vector.model},
                   {"model_digest", vector.model_digest},
                   {"site", std::string(NameOf(vector.site))},
                   {"width", vector.width},
                   {"layers", vector.layers},
                   {"provenance", ProvenanceToJson(vector.provenance)},
                   {"statistics", StatisticsToJson(vector.statistics)}});
}

absl::Status CheckLayers(const StoredVector& vector, int num_layers) {
  if (!model::IsPerLayer(vector.site)) {
    if (vector.layers.empty()) return absl::OkStatus();
    return InvalidField(
        "layers", absl::StrCat("must be empty at ", NameOf(vector.site), ", which has no layers"));
  }
  if (vector.layers.empty()) return InvalidField("layers", "must name at least one layer");
  for (size_t i = 0; i < vector.layers.size(); ++i) {
    const std::string field = absl::StrCat("layers[", i, "]");
    if (vector.layers[i] < 0 || vector.layers[i] >= num_layers) {
      return OutOfRange(field, vector.layers[i], 0, num_layers - 1);
    }
    if (i > 0 && vector.layers[i] <= vector.layers[i - 1]) {
      return InvalidField(field, "layers must be strictly ascending");
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<int64_t> StoredVector::RowOfLayer(int layer) const {
  const auto place = std::lower_bound(layers.begin(), layers.end(), layer);
  if (place == layers.end() || *place != layer) return std::nullopt;
  return place - layers.begin();
}

absl::Status CheckVector(const StoredVector& vector, const model::Architecture& architecture) {
  VS_RETURN_IF_ERROR(CheckLayers(vector, architecture.num_layers));
  const int64_t width = model::WidthOf(vector.site, architecture);
  if (vector.width != width) {
    return InvalidField("data",
                        absl::StrCat("has rows of ", vector.width, " elements, ",
                                     NameOf(vector.site), " of this model has ", width),
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
  Sha256 hash;
  hash.Update(absl::StrCat("valuescope vector 2\n", vector.model_digest, "\n", NameOf(vector.site),
                           "\n", absl::StrJoin(vector.layers, ","), "\n", vector.width, "\n"));
  hash.Update(BytesOf(vector.rows));
  hash.Update(ProvenanceToJson(vector.provenance));
  hash.Update(DumpJson(StatisticsToJson(vector.statistics)));
  return hash.HexDigest();
}

absl::StatusOr<store::Resource> MakeVectorResource(store::BlobStore& blobs,
                                                   const StoredVector& vector) {
  HostTensor rows;
  rows.dtype = DType::kFloat32;
  rows.shape = {vector.num_rows(), vector.width};
  rows.bytes = std::string(BytesOf(vector.rows));
  const std::vector<NamedTensor> tensors = {{.name = "rows", .tensor = std::move(rows)}};
  VS_ASSIGN_OR_RETURN(const store::StoredBlob blob,
                      store::WriteBlob(blobs, WriteTensorFile(tensors)));
  store::Resource resource;
  resource.kind = store::ResourceKind::kVector;
  resource.format_version = kVectorFormatVersion;
  resource.digest = VectorDigest(vector);
  resource.id = IdOfDigest(resource.digest);
  resource.display_name = vector.display_name;
  resource.media_type = kSafetensorsMediaType;
  resource.metadata = MetadataOf(vector);
  resource.blob_digest = blob.digest;
  resource.blob_size = blob.size;
  return resource;
}

absl::StatusOr<StoredVector> DescribeVector(const store::Resource& resource) {
  StoredVector vector;
  vector.display_name = resource.display_name;
  std::string site, provenance;
  VS_RETURN_IF_ERROR(ReadJson(resource.metadata, kVectorFormatVersion, [&](const json& value) {
    vector.model = value.at("model").get<std::string>();
    vector.model_digest = value.at("model_digest").get<std::string>();
    site = value.at("site").get<std::string>();
    vector.width = value.at("width").get<int64_t>();
    vector.layers = value.at("layers").get<std::vector<int>>();
    provenance = value.at("provenance").get<std::string>();
    for (const json& row : value.at("statistics")) {
      vector.statistics.push_back(StatisticsFromJson(row));
    }
  }));
  VS_ASSIGN_OR_RETURN(vector.site, ParseSite(site));
  VS_ASSIGN_OR_RETURN(vector.provenance, ProvenanceFromJson(provenance));
  return vector;
}

absl::StatusOr<StoredVector> ReadVector(store::BlobStore& blobs, const store::Resource& resource) {
  VS_ASSIGN_OR_RETURN(StoredVector vector, DescribeVector(resource));
  VS_ASSIGN_OR_RETURN(std::string bytes,
                      store::ReadBlob(blobs, resource.blob_digest, kMaxVectorFile));
  VS_ASSIGN_OR_RETURN(const TensorFile file, TensorFile::Parse(std::move(bytes)));
  VS_ASSIGN_OR_RETURN(vector.rows, file.Floats("rows", vector.num_rows() * vector.width));
  return vector;
}

absl::Status CheckUsable(const StoredVector& vector, const engine::ServedModel& model,
                         model::Site site, absl::string_view field) {
  if (vector.model_digest != model.weights_digest) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
                           absl::StrCat("`", field, "` was made on ", vector.model,
                                        " with other weights than those of models/", model.id));
  }
  if (vector.site != site) {
    return InvalidField(field,
                        absl::StrCat("must be a vector of site ", NameOf(site), ", it is one of ",
                                     NameOf(vector.site)),
                        "WRONG_SITE");
  }
  const int64_t width = model::WidthOf(site, model.architecture);
  if (vector.width == width) return absl::OkStatus();
  return InvalidField(
      field, absl::StrCat("has rows of ", vector.width, " elements, the model has ", width),
      "WRONG_WIDTH");
}

}  // namespace valuescope::studies
