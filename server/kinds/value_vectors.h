// Extractions of several vectors over the same responses (ExtractVectorsRequest.vectors): what may
// be asked, and what each vector will be made of. A vector that the data cannot give is known
// before anything runs; it is told as absent, and the others are made.
#ifndef VALUESCOPE_KINDS_VALUE_VECTORS_H_
#define VALUESCOPE_KINDS_VALUE_VECTORS_H_

#include <vector>

#include "absl/status/status.h"
#include "kinds/response_work.h"
#include "kinds/saved_work.pb.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "services/value_labels.h"
#include "studies/response_selection.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::kinds {

// INVALID_ARGUMENT naming "vectors" or a field beneath it. OK where no vectors are asked for.
absl::Status CheckValueVectors(const v1::ExtractVectorsRequest& request);
// RESOURCE_EXHAUSTED (reason USE_A_JOB) where they are more than a call makes.
absl::Status CheckVectorsOfCall(const v1::ExtractVectorsRequest& request);

// Their values and conditions, numbered as they appear; of vectors that CheckValueVectors found no
// fault with.
services::AskedLabels AskedLabelsOf(const v1::ExtractVectorsRequest& request);

// The vectors that an extraction makes: of several those that the data can give, of one alone null.
std::vector<const SavedValueVector*> MadeVectors(const SavedExtraction& extraction);
// Which responses a vector is made of; null: all.
studies::ResponseSelection SelectionOf(const SavedValueVector* vector,
                                       const studies::ResponseSet& set);

// Memory of their places in sums, bytes; none of one alone.
int64_t BytesOfPlaces(const SavedExtraction& extraction);

// Fills extract_vectors.vectors of the record, whose provenance is that of all, and takes away the
// responses that count in none. `used` is what the inputs are of. INVALID_ARGUMENT naming
// "vectors...": a value or a condition that no response has, or no vector that can be made; why the
// call was stopped.
absl::Status ResolveValueVectors(const v1::ExtractVectorsRequest& request,
                                 const services::AskedLabels& asked,
                                 const services::UsedResources& used,
                                 const rpc::CallContext& context, ResponseInputs& inputs);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_VALUE_VECTORS_H_
