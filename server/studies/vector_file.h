// Vectors as files that leave the server and come back.
//
//   safetensors   a FLOAT32 tensor [rows, width] a vector, "vectors/ID"; __metadata__ tells
//                 "valuescope.format", and under each tensor's name the vector's record as JSON
//   GGUF          llama.cpp's control vector: tensors direction.N, FLOAT32 [width], behind 0-based
//                 block N; metadata "valuescope.vector" is that JSON
//
// The record names the digest of the vector, so none of its content can be lost or changed unseen
// on its way. Files of others tell nothing but numbers; what is stored of them says from which file
// they came. Equal vectors give equal bytes.
#ifndef VALUESCOPE_STUDIES_VECTOR_FILE_H_
#define VALUESCOPE_STUDIES_VECTOR_FILE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/served_model.h"
#include "model/site.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::studies {

inline constexpr size_t kMostVectorsInFile = 64;

// The vector with the rows of `layers` alone, which it has, ascending: another vector.
StoredVector WithLayers(const StoredVector& vector, std::span<const int> layers);

// What a file calls a vector: "vectors/" and the head of its digest.
std::string NameInFile(const StoredVector& vector);

// The file; names in it must differ.
std::string WriteSafetensors(std::span<const StoredVector> vectors);

// INVALID_ARGUMENT naming "vectors[0]" or "layers": another site than RESIDUAL_POST; a row of layer
// 0, behind which llama.cpp cannot act (reason NO_LAYER_0).
absl::StatusOr<std::string> WriteControlVector(const StoredVector& vector);

struct VectorInFile {
  StoredVector vector;               // checked against the model
  std::vector<std::string> tensors;  // the file's, of each row
};

struct VectorFile {
  std::vector<VectorInFile> vectors;  // in the order of the tensors' names
  v1::GgufConvention convention = v1::GGUF_CONVENTION_UNSPECIFIED;
};

// Bytes of memory that reading a file takes beside the file itself, at most. INVALID_ARGUMENT
// naming "data" where the file's beginning is malformed.
absl::StatusOr<int64_t> MemoryToRead(v1::VectorFormat format, absl::string_view file);

// Vectors of `model` from a file of `header`'s format, whose digest was checked; `site` where the
// file does not tell. INVALID_ARGUMENT naming "data" or "header.convention", as the contract says
// of ImportVectors; FAILED_PRECONDITION, reason WRONG_MODEL, for a vector of other weights.
absl::StatusOr<VectorFile> ReadVectorFile(const v1::ImportVectorsHeader& header, model::Site site,
                                          const engine::ServedModel& model, absl::string_view file);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_VECTOR_FILE_H_
