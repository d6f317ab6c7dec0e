// The circumplex as it is asked for, of a decomposition or of a study.
#ifndef VALUESCOPE_SERVICES_CIRCUMPLEX_REQUEST_H_
#define VALUESCOPE_SERVICES_CIRCUMPLEX_REQUEST_H_

#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "studies/decompose_vectors.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::services {

// `values` in the order of the list `field`. OUT_OF_RANGE or INVALID_ARGUMENT naming a field of
// "circumplex", or `field` and its element: see analysis::CircumplexPlaces.
absl::StatusOr<studies::CircumplexPlan> CircumplexFromProto(const v1::CircumplexOptions& options,
                                                            std::span<const std::string> values,
                                                            absl::string_view field);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_CIRCUMPLEX_REQUEST_H_
