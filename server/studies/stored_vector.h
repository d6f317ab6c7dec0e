// Vectors as they are kept: a resource whose record is the contract's Vector and whose blob holds
// the rows. Its name is the head of its digest, so storing the same content twice gives the same
// name. Where rows come from and how good they are is content too: an extraction that gives known
// rows with other statistics gets a name of its own, and nobody is shown the numbers of another
// one.
//
//   record    model, digest of its weights, site, width, layers, provenance, statistics
//   blob      safetensors, one tensor "rows", FLOAT32 [rows, width]
//   digest    SHA-256 over model digest, site, layers, the rows' bytes, provenance and statistics.
//             Vectors stored before provenance and statistics entered keep their digests.
#ifndef VALUESCOPE_STUDIES_STORED_VECTOR_H_
#define VALUESCOPE_STUDIES_STORED_VECTOR_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/served_model.h"
#include "model/site.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::studies {

struct StoredVector {
  v1::Vector record;        // without `data`; statistics one a row, or none
  std::vector<float> rows;  // [num_rows(), width]; empty if read without data

  model::Site site() const;
  int64_t width() const { return record.width(); }  // elements of a row
  // 1 at sites without layers.
  int64_t num_rows() const { return model::IsPerLayer(site()) ? record.layers_size() : 1; }
  std::span<const float> row(int64_t index) const {  // [width]
    return std::span<const float>(rows).subspan(static_cast<size_t>(index * width()),
                                                static_cast<size_t>(width()));
  }
  // Index of the row of an absolute layer, if there is one.
  std::optional<int64_t> RowOfLayer(int layer) const;
};

// The record of a vector of `model` before it is told where it comes from. `layers` are empty at
// sites without layers.
v1::Vector VectorWithin(const engine::ServedModel& model, model::Site site,
                        std::span<const int32_t> layers);

// INVALID_ARGUMENT naming "layers" or "data": layers not strictly ascending, outside the model or
// given at a site that has none, a width that is not the site's, a count of elements that is not
// rows x width, an element that is not finite.
absl::Status CheckVector(const StoredVector& vector, const model::Architecture& architecture);

// Digest of the content: 64 hexadecimal digits.
std::string VectorDigest(const StoredVector& vector);

// Writes the blob and returns the resource to put into the store. RESOURCE_EXHAUSTED where the
// record is too large to keep.
absl::StatusOr<store::Resource> MakeVectorResource(store::BlobStore& blobs,
                                                   const StoredVector& vector);

// The vector without its rows, from its record alone. DATA_LOSS where it is damaged.
absl::StatusOr<StoredVector> DescribeVector(const store::Resource& resource);

// The whole vector.
absl::StatusOr<StoredVector> ReadVector(store::BlobStore& blobs, const store::Resource& resource);

// FAILED_PRECONDITION (reason WRONG_MODEL) unless the vector was made on these weights;
// INVALID_ARGUMENT naming `field` unless it lives at `site` with the model's width.
absl::Status CheckUsable(const StoredVector& vector, const engine::ServedModel& model,
                         model::Site site, absl::string_view field);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_STORED_VECTOR_H_
