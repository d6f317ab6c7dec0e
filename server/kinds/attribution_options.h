// What a request for attribution may ask, as far as neither vectors nor responses are needed to
// tell.
#ifndef VALUESCOPE_KINDS_ATTRIBUTION_OPTIONS_H_
#define VALUESCOPE_KINDS_ATTRIBUTION_OPTIONS_H_

#include "absl/status/status.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {

// INVALID_ARGUMENT naming a field; UNIMPLEMENTED (reason OPTION_NOT_SERVED) naming the method.
absl::Status CheckAttributionOptions(const v1::AttributeNeuronsRequest& request);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_ATTRIBUTION_OPTIONS_H_
