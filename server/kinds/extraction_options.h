// What a request for an extraction may ask, as far as responses are not needed to tell.
#ifndef VALUESCOPE_KINDS_EXTRACTION_OPTIONS_H_
#define VALUESCOPE_KINDS_EXTRACTION_OPTIONS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::kinds {

// INVALID_ARGUMENT naming a field.
absl::Status CheckExtractionOptions(const v1::ExtractVectorsRequest& request);

// The method of a request or of a record.
template <typename Choice>
v1::ExtractionMethod MethodOf(const Choice& choice) {
  return choice.method() == v1::EXTRACTION_METHOD_UNSPECIFIED
             ? v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS
             : choice.method();
}

// As Provenance.sign_rule tells it.
absl::string_view SignRuleOf(v1::ExtractionMethod method);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_EXTRACTION_OPTIONS_H_
