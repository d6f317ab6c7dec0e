#include "kinds/extraction_options.h"

#include "analysis/linear_probe.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "kinds/value_vectors.h"
#include "services/response_sets.h"
#include "studies/provenance.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::kinds {
namespace {

constexpr int kMostBootstrap = 10000;

// Where the responses come from.
absl::Status CheckSource(const v1::ExtractVectorsRequest& request) {
  const int sources =
      !request.responses().empty() + !request.artifact().empty() + request.has_generated();
  if (sources != 1) {
    return InvalidField("responses",
                        "must be given inline, as `artifact` or as `generated`, one of the three");
  }
  if (request.judge().empty() || !request.has_generated()) return absl::OkStatus();
  return InvalidField("judge", "must be unset with `generated`, whose labels the record explains");
}

absl::Status CheckProbeOptions(const v1::ExtractVectorsRequest& request) {
  const bool is_probe = request.method() == v1::EXTRACTION_METHOD_LINEAR_PROBE;
  if (is_probe && request.pooling() == v1::POOLING_TOKEN_MEAN) {
    return InvalidField("pooling",
                        "LINEAR_PROBE takes one point of each response, TOKEN_MEAN has none");
  }
  if (!request.has_inverse_regularization()) return absl::OkStatus();
  if (!is_probe) return InvalidField("inverse_regularization", "is of LINEAR_PROBE alone");
  const double c = request.inverse_regularization();
  if (c >= analysis::kLeastInverseRegularization && c <= analysis::kMostInverseRegularization) {
    return absl::OkStatus();
  }
  return OutOfRange("inverse_regularization", c, analysis::kLeastInverseRegularization,
                    analysis::kMostInverseRegularization);
}

}  // namespace

absl::Status CheckExtractionOptions(const v1::ExtractVectorsRequest& request) {
  if (!v1::ExtractionMethod_IsValid(request.method())) {
    return InvalidField("method", "is no method that this server knows");
  }
  VS_RETURN_IF_ERROR(CheckProbeOptions(request));
  if (!v1::Pooling_IsValid(request.pooling())) {
    return InvalidField("pooling", "is no way of pooling that this server knows");
  }
  if (request.has_bootstrap_samples() &&
      (request.bootstrap_samples() < 0 || request.bootstrap_samples() > kMostBootstrap)) {
    return OutOfRange("bootstrap_samples", request.bootstrap_samples(), 0, kMostBootstrap);
  }
  VS_RETURN_IF_ERROR(CheckSource(request));
  VS_RETURN_IF_ERROR(CheckValueVectors(request));
  VS_RETURN_IF_ERROR(services::CheckJudge(request));
  return CheckDisplayName("display_name", request.display_name());
}

absl::string_view SignRuleOf(v1::ExtractionMethod method) {
  switch (method) {
    case v1::EXTRACTION_METHOD_PCA:
    case v1::EXTRACTION_METHOD_PCA_CENTERED:
      return "along the mean over pairs of mean(expressing) - mean(non-expressing)";
    case v1::EXTRACTION_METHOD_LINEAR_PROBE:
      return "towards expressing";
    default:
      return studies::kDifferenceSign;
  }
}

}  // namespace valuescope::kinds
