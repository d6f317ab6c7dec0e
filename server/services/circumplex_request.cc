#include "services/circumplex_request.h"

#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::services {
namespace {

constexpr int kFewestSamples = 100, kMostSamples = 100000;

absl::StatusOr<analysis::CircumplexAngles> AnglesFromProto(v1::CircumplexAngles angles) {
  switch (angles) {
    case v1::CIRCUMPLEX_ANGLES_UNSPECIFIED:
    case v1::CIRCUMPLEX_ANGLES_TEN:
      return analysis::CircumplexAngles::kTen;
    case v1::CIRCUMPLEX_ANGLES_NINE:
      return analysis::CircumplexAngles::kNine;
    case v1::CIRCUMPLEX_ANGLES_FOUR_DOMAINS:
      return analysis::CircumplexAngles::kFourDomains;
    default:
      return InvalidField("circumplex.angles", "must be TEN, NINE or FOUR_DOMAINS");
  }
}

}  // namespace

absl::StatusOr<studies::CircumplexPlan> CircumplexFromProto(const v1::CircumplexOptions& options,
                                                            std::span<const std::string> values,
                                                            absl::string_view field) {
  studies::CircumplexPlan plan;
  if (options.has_null_samples()) plan.null_samples = options.null_samples();
  if (plan.null_samples < kFewestSamples || plan.null_samples > kMostSamples) {
    return OutOfRange("circumplex.null_samples", plan.null_samples, kFewestSamples, kMostSamples);
  }
  plan.seed = options.seed();
  VS_ASSIGN_OR_RETURN(const analysis::CircumplexAngles angles, AnglesFromProto(options.angles()));
  VS_ASSIGN_OR_RETURN(plan.places, analysis::CircumplexPlaces(values, angles, field));
  return plan;
}

}  // namespace valuescope::services
