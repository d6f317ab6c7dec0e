// Stored vectors by name, for services that read whole vectors.
#ifndef VALUESCOPE_SERVICES_STORED_VECTORS_H_
#define VALUESCOPE_SERVICES_STORED_VECTORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/stored_vector.h"

namespace valuescope::services {

// How often a call has the rows and the record of a vector at once, in whatever form.
struct VectorCopies {
  int64_t rows = 1;
  int64_t record = 1;
};

// The tenant's vector with its rows and its display name, added to `used`, once the call holds
// memory for so many copies of it and, while it is read, of its file. INVALID_ARGUMENT naming
// `field` for a malformed name, NOT_FOUND, errors of CallContext::Hold.
absl::StatusOr<studies::StoredVector> HeldVectorOfName(
    const rpc::CallContext& context, absl::string_view field, const std::string& name,
    const VectorCopies& copies, store::Store& store, store::BlobStore& blobs, UsedResources& used);

// The layers that all of `vectors` have a row for, ascending.
std::vector<int> CommonLayers(const std::vector<const studies::StoredVector*>& vectors);

// `layers` of a request about stored vectors: those chosen, or all common ones. INVALID_ARGUMENT
// naming "layers".
absl::StatusOr<std::vector<int>> LayersOfVectors(
    const v1::Layers* layers, const std::vector<const studies::StoredVector*>& vectors);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_STORED_VECTORS_H_
