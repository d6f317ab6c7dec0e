// Vectors beside one another by layer, and the tokens that each speaks for. The mathematics is
// analysis/'s (vector_cosines.h, token_scores.h); here are names, rows and layers put together.
#ifndef VALUESCOPE_STUDIES_COMPARE_VECTORS_H_
#define VALUESCOPE_STUDIES_COMPARE_VECTORS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::studies {

struct NamedVector {
  std::string name;  // vectors/ID
  const StoredVector* vector = nullptr;
};

// Sites whose vectors are directions in the residual stream.
bool IsResidual(model::Site site);

// Every pair first < second at every layer: pairs in the order of `vectors`, each layer by layer.
// Every vector has a row for each of `layers`, which are {0} at a site without layers.
// INVALID_ARGUMENT naming "vectors[i]", reason WRONG_SITE, where sites or widths differ;
// FAILED_PRECONDITION, reason WRONG_MODEL, where models do. CANCELLED.
absl::StatusOr<std::vector<v1::VectorCosine>> CompareVectors(
    const std::vector<NamedVector>& vectors, const std::vector<int>& layers,
    const Cancellation& cancellation);

// Bytes of the unembedding that are in memory at a time.
inline constexpr int64_t kUnembeddingBytes = int64_t{4} << 20;

// The `count` tokens at either end of every vector at every layer, none for a row of zeros: vectors
// in order, each layer by layer. The vectors are `engine`'s and of a residual site; `piece` is the
// vocabulary's own string of a token. One pass over the unembedding in parts of kUnembeddingBytes.
// Errors of Engine::UnembeddingRows; CANCELLED.
absl::StatusOr<std::vector<v1::VectorTokens>> TokensOfVectors(
    const std::vector<NamedVector>& vectors, const std::vector<int>& layers, int count,
    const engine::Engine& engine, const std::function<std::string(int32_t id)>& piece,
    const Cancellation& cancellation);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_COMPARE_VECTORS_H_
